//! What the routes of statistics have in common.

use crate::app::App;
use crate::domain::access::Scope;
use crate::http::caller::Caller;
use crate::http::problem::error::ApiResult;
use crate::store::admin::statistics::{CountedTo, TypeStatistics};
use crate::store::error::StoreError;

/// Counts new events, so that the response is current. If the database accepts no writes, the response has the
/// earlier numbers.
pub async fn count_new_events(app: &App) -> ApiResult<()> {
    match app.primary.count_events().await {
        Ok(_) | Err(StoreError::Unavailable(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Counts new events, and returns the statistics of each type that the caller may read.
pub async fn readable_type_statistics(app: &App, caller: &Caller) -> ApiResult<CountedTo<Vec<TypeStatistics>>> {
    count_new_events(app).await?;
    let mut counted = app.primary.type_statistics().await?;
    counted.value.retain(|known| caller.may(Scope::Read, &known.aggregate_type));
    Ok(counted)
}
