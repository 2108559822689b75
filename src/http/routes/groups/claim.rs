//! `POST /groups/{group_name}/claims`: claim the next events of a group.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::name::check_name;
use crate::groups::claim::{Claim, ClaimOptions, ClaimResult};
use crate::http::base_path;
use crate::http::cache::NO_CACHE;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::append_headers::IdempotencyKey;
use crate::http::extract::json_request::OptionalJsonRequest;
use crate::http::extract::path::GroupPath;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::media_type::JSON;
use crate::http::openapi::parameters::GroupParams;
use crate::http::openapi::responses::{GroupNotFound, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::representation::format::{LIMIT_DEFAULT, LIMIT_MAX, WAIT_SECONDS_MAX};
use crate::http::routes::groups::shared::{ClaimSchema, delivered_body, of_group, open_readable, write_claim};
use crate::wire::path::segment;

const EXAMPLE: &str = r#"{"worker": "mailer-3"}"#;

/// The worker that claims events.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewClaim)]
pub struct ClaimIn {
    /// The name of the worker, which the group shows beside the claim.
    worker: Option<String>,
}

/// The size of a claim, and the longest wait for one.
#[derive(Debug, Clone, Copy)]
pub struct ClaimParameters {
    limit: usize,
    wait: Duration,
}

impl ClaimParameters {
    /// Takes the parameters.
    pub fn take(query: &mut Query) -> ApiResult<Self> {
        let limit = query.take_number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        let wait = Duration::from_secs(query.take_number("wait", 0, WAIT_SECONDS_MAX)?.unwrap_or(0));
        Ok(Self { limit, wait })
    }

    /// Returns the options of a claim for a worker.
    pub fn options(self, worker: Option<String>, key: Option<String>) -> ClaimOptions {
        ClaimOptions { limit: self.limit, worker, key, wait: self.wait }
    }
}

impl FromQuery for ClaimParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let parameters = Self::take(&mut query)?;
        query.finish()?;
        Ok(parameters)
    }
}

/// Claim the next events
///
/// Hands out the next events of the free partition that is furthest behind, under a lease. With an `Idempotency-Key`, a
/// repeated request finds the same claim while it is open. A claim whose response cannot be delivered is released.
#[utoipa::path(post, path = "/groups/{group_name}/claims", operation_id = "create_claim", tag = "groups",
    params(
        GroupParams,
        ("limit" = Option<u64>, Query, description = "The largest number of events, 1 to 1000, default 100",
            minimum = 1, maximum = 1000),
        ("wait" = Option<u64>, Query, description = "The seconds to wait for events", minimum = 0, maximum = 60),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeated request finds the same open claim"),
    ),
    request_body(content = Option<ClaimIn>, content_type = "application/json"),
    responses(
        (status = 200, description = "The open claim that an earlier request with the key has made", body = ClaimSchema),
        (status = 201, description = "A new claim", body = ClaimSchema),
        (status = 204, description = "Nothing can be handed out at this time"),
        GroupNotFound,
        WriteProblems,
    ))]
pub async fn create_claim(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: OptionalJsonRequest<(GroupPath, Parameters<ClaimParameters>, IdempotencyKey)>,
) -> ApiResult<Response> {
    let OptionalJsonRequest { parts: (GroupPath(name), Parameters(parameters), IdempotencyKey(key)), body } = request;
    let worker = match body {
        Some(body) => body.parse::<ClaimIn>(EXAMPLE)?.worker,
        None => None,
    };
    if let Some(Err(fault)) = worker.as_deref().map(check_name) {
        return Err(ApiError::invalid(FieldError::pointer("/worker", fault.to_string())));
    }
    let group = open_readable(&app, &caller, &name).await?;
    let options = parameters.options(worker, key.map(|key| format!("key:{key}")));
    let result = group.claim(options).await.map_err(|error| of_group(error, &name))?;
    let mut body = Vec::new();
    match result {
        ClaimResult::Nothing => Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, NO_CACHE)]).into_response()),
        ClaimResult::Known(claim) => {
            write_claim(&mut body, &claim)?;
            let replayed = [("Idempotent-Replayed", HeaderValue::from_static("true"))];
            Ok((headers(&name, &claim), replayed, body).into_response())
        }
        ClaimResult::New(delivery) => {
            write_claim(&mut body, delivery.claim())?;
            let headers = headers(&name, delivery.claim());
            Ok((StatusCode::CREATED, headers, delivered_body(body, delivery)).into_response())
        }
    }
}

fn headers(name: &str, claim: &Claim) -> [(header::HeaderName, HeaderValue); 3] {
    let location = format!("{}/groups/{}/claims/{}", base_path::current(), segment(name), claim.claim_id);
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(JSON)),
        (header::CACHE_CONTROL, NO_CACHE),
        (header::LOCATION, HeaderValue::try_from(location).expect("a path is ASCII without control characters")),
    ]
}
