//! `GET /reducers`: list the reducers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::Scope;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::json;
use crate::http::routes::reducers::shared::ReducerOut;

/// All reducers, in the order of their aggregate types.
#[derive(Serialize, ToSchema)]
pub struct ReducerList {
    reducers: Vec<ReducerOut>,
}

/// List the reducers
#[utoipa::path(get, path = "/reducers", operation_id = "list_reducers", tag = "aggregates", responses(
    (status = 200, description = "All reducers, in the byte order of their types", body = ReducerList),
    ReadProblems,
))]
pub async fn list_reducers(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    _: NoQuery,
) -> ApiResult<Response> {
    let reducers = app.primary.reducers().await?.into_iter();
    let readable = reducers.filter(|reducer| caller.may(Scope::Read, &reducer.aggregate_type));
    Ok(json(ReducerList { reducers: readable.map(ReducerOut::from).collect() }))
}
