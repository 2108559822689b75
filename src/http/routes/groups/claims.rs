//! `/groups/{group_name}/claims`: the open claims of a group.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::Scope;
use crate::groups::error::GroupError;
use crate::http::cache::NO_CACHE;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::{ClaimPath, GroupPath};
use crate::http::extract::query::NoQuery;
use crate::http::media_type::JSON;
use crate::http::openapi::parameters::{ClaimParams, GroupParams};
use crate::http::openapi::responses::{ClaimNotFound, DeleteProblems, GroupNotFound, ReadProblems};
use crate::http::problem::code::Code;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::json;
use crate::http::routes::groups::shared::{
    ClaimHead, ClaimSchema, check_filter, claim_of_missing_group, of_group, open_readable, write_claim,
};
use crate::store::groups::parked::ParkedQuery;

/// The open claims of a group, without their events.
#[derive(Serialize, ToSchema)]
pub struct ClaimList {
    claims: Vec<ClaimHead>,
}

/// List the open claims
#[utoipa::path(get, path = "/groups/{group_name}/claims", operation_id = "list_claims", tag = "groups",
    params(GroupParams),
    responses(
        (status = 200, description = "The open claims, by partition", body = ClaimList),
        GroupNotFound,
        ReadProblems,
    ))]
pub async fn list_claims(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    GroupPath(name): GroupPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let group = open_readable(&app, &caller, &name).await?;
    let steps = group.open_claims().await.map_err(|error| of_group(error, &name))?;
    let mut claims = Vec::with_capacity(steps.len());
    for step in &steps {
        let retried = match (&step.claim.parked_type, &step.claim.parked_id) {
            (Some(aggregate_type), Some(aggregate_id)) => {
                let one = ParkedQuery {
                    aggregate_type: Some(aggregate_type),
                    aggregate_id: Some(aggregate_id),
                    limit: 1,
                    ..ParkedQuery::default()
                };
                group.parked_streams(one).await?.into_iter().next()
            }
            _ => None,
        };
        claims.extend(ClaimHead::from_step(step, retried.as_ref()));
    }
    Ok(json(ClaimList { claims }))
}

/// Read an open claim with its unprocessed events
#[utoipa::path(get, path = "/groups/{group_name}/claims/{claim_id}", operation_id = "read_claim", tag = "groups",
    params(ClaimParams),
    responses(
        (status = 200, description = "The claim", body = ClaimSchema),
        ClaimNotFound,
        ReadProblems,
    ))]
pub async fn read_claim(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    GroupPath(name): GroupPath,
    ClaimPath(claim_id): ClaimPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let group = open_readable(&app, &caller, &name).await?;
    let claim = group.read_claim(claim_id).await.map_err(|error| of_group(error, &name))?;
    let mut body = Vec::new();
    write_claim(&mut body, &claim)?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(JSON)), (header::CACHE_CONTROL, NO_CACHE)];
    Ok((headers, body).into_response())
}

/// Release a claim
///
/// Nothing is acknowledged, and the events are handed out again at once.
#[utoipa::path(delete, path = "/groups/{group_name}/claims/{claim_id}", operation_id = "release_claim", tag = "groups",
    params(ClaimParams),
    responses(
        (status = 204, description = "The claim is not open any more"),
        GroupNotFound,
        DeleteProblems,
    ))]
pub async fn release_claim(
    State(app): State<Arc<App>>,
    caller: Caller,
    GroupPath(name): GroupPath,
    ClaimPath(claim_id): ClaimPath,
    _: NoQuery,
) -> ApiResult<StatusCode> {
    let group = match app.groups.open(&name).await {
        Err(GroupError::GroupNotFound) => {
            let problem = claim_of_missing_group(&app, claim_id, &name).await?;
            let is_lost = problem.problem().code == Code::ClaimLost;
            return if is_lost { Ok(StatusCode::NO_CONTENT) } else { Err(problem) };
        }
        opened => opened?,
    };
    check_filter(&caller, Scope::Read, &group.filter())?;
    group.release(claim_id).await.map_err(|error| of_group(error, &name))?;
    Ok(StatusCode::NO_CONTENT)
}
