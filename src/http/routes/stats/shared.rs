//! What the routes of statistics have in common.

use crate::app::App;
use crate::http::problem::error::ApiResult;
use crate::store::error::StoreError;

/// Counts new events, so that the response is current. If the database accepts no writes, the response has the
/// earlier numbers.
pub async fn count_new_events(app: &App) -> ApiResult<()> {
    match app.primary.count_events().await {
        Ok(_) | Err(StoreError::Unavailable(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
