//! `POST /groups/{group_name}/retries`: try parked streams again.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::name::{check_name, check_path_name};
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::json_request::OptionalJsonRequest;
use crate::http::extract::path::GroupPath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::GroupParams;
use crate::http::openapi::responses::{GroupNotFound, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::representation::response::json;
use crate::http::routes::groups::shared::{of_group, open_managed};
use crate::store::groups::parked::RetryQuery;

const EXAMPLE: &str = r#"{"reason": "card declined"}"#;

/// Which parked streams are tried again. An absent member is no condition.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRetry)]
pub struct RetryIn {
    aggregate_type: Option<String>,
    /// The type of the event that failed.
    event_type: Option<String>,
    /// The exact reason.
    reason: Option<String>,
}

/// The streams that are tried again.
#[derive(Serialize, ToSchema)]
#[schema(as = Retried)]
pub struct RetriedOut {
    parked_streams: u64,
}

/// Try parked streams again
///
/// All streams that match are due now, also those for which an operator decides.
#[utoipa::path(post, path = "/groups/{group_name}/retries", operation_id = "retry_parked_streams", tag = "groups",
    params(GroupParams),
    request_body(content = Option<RetryIn>, content_type = "application/json"),
    responses(
        (status = 200, description = "The number of streams that are tried again", body = RetriedOut),
        GroupNotFound,
        WriteProblems,
    ))]
pub async fn retry_parked_streams(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: OptionalJsonRequest<(GroupPath, NoQuery)>,
) -> ApiResult<Response> {
    let OptionalJsonRequest { parts: (GroupPath(name), NoQuery), body } = request;
    let retry = match body {
        Some(body) => body.parse::<RetryIn>(EXAMPLE)?,
        None => RetryIn::default(),
    };
    if let Some(Err(fault)) = retry.aggregate_type.as_deref().map(check_path_name) {
        return Err(ApiError::invalid_member("/aggregate_type", fault.to_string()));
    }
    if let Some(Err(fault)) = retry.event_type.as_deref().map(check_name) {
        return Err(ApiError::invalid_member("/event_type", fault.to_string()));
    }
    if retry.reason.as_deref().is_some_and(|reason| reason.is_empty() || reason.contains('\0')) {
        return Err(ApiError::invalid_member("/reason", "must have at least one character, and no NUL"));
    }
    let group = open_managed(&app, &caller, &name).await?;
    let query = RetryQuery {
        aggregate_type: retry.aggregate_type.as_deref(),
        event_type: retry.event_type.as_deref(),
        reason: retry.reason.as_deref(),
    };
    let parked_streams = group.retry_parked_streams(query).await.map_err(|error| of_group(error, &name))?;
    Ok(json(RetriedOut { parked_streams }))
}
