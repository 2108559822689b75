//! `GET /erasures`: list the receipts.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::erasure::ErasureNo;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::http::base_path::link;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::format::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::representation::response::json;
use crate::http::routes::erasures::receipt::{ErasureOut, Projections, may_read};

/// A page of the receipts.
#[derive(Serialize, ToSchema)]
pub struct ErasureList {
    erasures: Vec<ErasureOut>,
    /// The path of the next page; null at the end.
    next: Option<String>,
}

/// The query parameters.
pub struct ListParameters {
    after: ErasureNo,
    limit: usize,
}

impl FromQuery for ListParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let after = query.take_number("after", 0, EXACT_INTEGER_MAX)?.unwrap_or(0);
        let limit = query.take_number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        query.finish()?;
        Ok(Self { after, limit })
    }
}

/// List the receipts of erasures
///
/// In the order of their numbers: those of which the key may administer every aggregate type. A page may have fewer
/// receipts than `limit` although more follow: only `"next": null` marks the end.
#[utoipa::path(get, path = "/erasures", operation_id = "list_erasures", tag = "erasures",
    params(
        ("after" = Option<u64>, Query, description = "Begins after this erasure"),
        ("limit" = Option<u64>, Query, description = "1 to 1000, default 100", minimum = 1, maximum = 1000),
    ),
    responses((status = 200, description = "A page of the receipts", body = ErasureList), ReadProblems))]
pub async fn list_erasures(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    Parameters(ListParameters { after, limit }): Parameters<ListParameters>,
) -> ApiResult<Response> {
    let mut erasures = app.primary.erasures_after(after, limit + 1).await?;
    let has_more = erasures.len() > limit;
    erasures.truncate(limit);
    let last = erasures.last().map(|erasure| erasure.erasure);
    let next = last
        .filter(|_| has_more)
        .map(|last| link("/erasures", &[("after", last.to_string()), ("limit", limit.to_string())]));
    let projections = Projections::read(&app).await?;
    let readable = erasures.into_iter().filter(|erasure| may_read(&caller, erasure));
    let erasures = readable.map(|erasure| ErasureOut::new(erasure, &projections)).collect();
    Ok(json(ErasureList { erasures, next }))
}
