//! `DELETE /reducers/{aggregate_type}`: delete the reducer of a type.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;
use crate::http::extract::path::TypePath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::TypeParams;
use crate::http::openapi::responses::{DeleteProblems, ReducerNotFound};
use crate::http::problem::error::{ApiError, ApiResult};

/// Delete the reducer of a type
///
/// The snapshots that it made are ignored from then on.
#[utoipa::path(delete, path = "/reducers/{aggregate_type}", operation_id = "delete_reducer", tag = "aggregates",
    params(TypeParams),
    responses((status = 204, description = "Deleted"), ReducerNotFound, DeleteProblems))]
pub async fn delete_reducer(
    State(app): State<Arc<App>>,
    TypePath(aggregate_type): TypePath,
    _: NoQuery,
) -> ApiResult<StatusCode> {
    let existed = app.primary.delete_reducer(&aggregate_type).await?;
    app.snapshotter.refresh().await?;
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::reducer_not_found(&aggregate_type)) }
}
