//! `GET /erasures/{erasure}`: read a receipt.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::app::App;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::ErasurePath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::{ErasureNotFound, ReadProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::representation::response::json;
use crate::http::routes::erasures::receipt::{ErasureOut, Projections, check_may_read};

/// Read the receipt of an erasure
#[utoipa::path(get, path = "/erasures/{erasure}", operation_id = "read_erasure", tag = "erasures",
    params(("erasure" = u64, Path, description = "The number of the erasure", minimum = 1)),
    responses((status = 200, description = "The receipt", body = ErasureOut), ErasureNotFound, ReadProblems))]
pub async fn read_erasure(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    ErasurePath(number): ErasurePath,
    _: NoQuery,
) -> ApiResult<Response> {
    let erasure = app.primary.erasure(number).await?.ok_or_else(|| ApiError::erasure_not_found(number))?;
    check_may_read(&caller, &erasure)?;
    Ok(json(ErasureOut::new(erasure, &Projections::read(&app).await?)))
}
