//! The reducer that folds a stream.

use crate::app::App;
use crate::domain::name::StreamId;
use crate::domain::reducer::Reducer;
use crate::http::problem::error::{ApiError, ApiResult};

/// Returns the reducer of a stream's type. A stream without events is reported before a type without a reducer.
pub(super) async fn reducer_of(app: &App, stream: &StreamId) -> ApiResult<Reducer> {
    if let Some(reducer) = app.reader().reducer(stream.aggregate_type()).await? {
        return Ok(reducer);
    }
    app.reader().stream_head(stream).await?.ok_or_else(|| ApiError::stream_not_found(stream))?;
    Err(ApiError::no_reducer(stream.aggregate_type()))
}
