//! `GET /reducers/{aggregate_type}`: read the reducer of a type.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::app::App;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::TypePath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::TypeParams;
use crate::http::openapi::responses::{ReadProblems, ReducerNotFound};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::representation::response::json;
use crate::http::routes::reducers::shared::ReducerOut;

/// Read the reducer of a type
#[utoipa::path(get, path = "/reducers/{aggregate_type}", operation_id = "read_reducer", tag = "aggregates",
    params(TypeParams),
    responses((status = 200, description = "The reducer", body = ReducerOut), ReducerNotFound, ReadProblems))]
pub async fn read_reducer(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    TypePath(aggregate_type): TypePath,
    _: NoQuery,
) -> ApiResult<Response> {
    let reducer = app.primary.reducer(&aggregate_type).await?;
    let reducer = reducer.ok_or_else(|| ApiError::reducer_not_found(&aggregate_type))?;
    Ok(json(ReducerOut::from(reducer)))
}
