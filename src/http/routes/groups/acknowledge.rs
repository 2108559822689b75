//! `PUT /groups/{group_name}/claims/{claim_id}`: acknowledge a claim, and claim the next events.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::groups::acknowledge::{Acknowledgement, Failure, NextClaim, RetryTime};
use crate::groups::error::GroupError;
use crate::http::cache::NO_CACHE;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::path::{ClaimPath, GroupPath};
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::media_type::JSON;
use crate::http::openapi::parameters::ClaimParams;
use crate::http::openapi::responses::{GroupNotFound, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::routes::groups::claim::ClaimParameters;
use crate::http::routes::groups::shared::{
    ClaimSchema, check_filter, claim_of_missing_group, delivered_body, in_range, of_group, write_claim,
};

const EXAMPLE: &str = r#"{"last_processed_position": 5311}"#;
const FAILED_MAX: usize = 1_000;
const REASON_CHARS_MAX: usize = 1_000;
/// The longest time until a retry, and the longest rest of a partition: 30 days, and a day.
const RETRY_SECONDS_MAX: i64 = 30 * 86_400;
const REST_SECONDS_MAX: i64 = 86_400;

/// What a worker has processed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Acknowledgement)]
pub struct AcknowledgementIn {
    /// Everything of the claim up to here is processed. The same position again extends the lease.
    #[schema(value_type = u64, maximum = 9007199254740991_u64)]
    last_processed_position: i64,
    /// Events that could not be processed. Their streams are parked.
    #[serde(default)]
    #[schema(max_items = 1000)]
    failed: Vec<FailureIn>,
    /// Ends the claim, even if events are left.
    #[serde(default)]
    release: bool,
    /// The seconds for which the partition rests after the claim, 0 to 86400.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 86400)]
    retry_after: i64,
}

/// An event that could not be processed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Failure)]
pub struct FailureIn {
    #[schema(value_type = u64, maximum = 9007199254740991_u64)]
    global_position: i64,
    /// 1 to 1000 characters.
    reason: String,
    /// The seconds until it is tried again, 0 to 2592000; null: an operator decides. Default: `retry_after` of the group.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 2592000)]
    retry_after: Option<Option<i64>>,
}

/// Distinguishes null from an absent member.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::<i64>::deserialize(deserializer).map(Some)
}

/// What was acknowledged.
#[derive(Serialize, ToSchema)]
#[schema(as = Acknowledged)]
pub struct AcknowledgedOut {
    claim_id: String,
    last_processed_position: Position,
    /// The number of streams that this acknowledgement parked.
    parked_streams: i32,
}

/// The response to an acknowledgement.
#[derive(Serialize, ToSchema)]
#[schema(as = AcknowledgedClaim)]
pub struct AcknowledgedClaimSchema {
    acknowledged: AcknowledgedOut,
    /// The claim with its unprocessed events, or the next claim.
    claim: Option<ClaimSchema>,
}

/// The query parameters.
pub struct AcknowledgeParameters {
    next: bool,
    claim: ClaimParameters,
}

impl FromQuery for AcknowledgeParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let next = query.take_flag("next")?;
        let claim = ClaimParameters::take(&mut query)?;
        query.finish()?;
        Ok(Self { next, claim })
    }
}

impl AcknowledgementIn {
    fn validate(self) -> ApiResult<Acknowledgement> {
        let position = self.last_processed_position;
        ApiError::check_range("/last_processed_position", position, 0, EXACT_INTEGER_MAX)?;
        if self.failed.len() > FAILED_MAX {
            return Err(ApiError::invalid_member("/failed", format!("must have at most {FAILED_MAX} elements")));
        }
        let rest_seconds = in_range("/retry_after", self.retry_after, 0, REST_SECONDS_MAX)?;
        let failed = self.failed.into_iter().enumerate();
        let failed = failed.map(|(index, failure)| failure.validate(index, position)).collect::<ApiResult<_>>()?;
        Ok(Acknowledgement { last_processed_position: position, failed, release: self.release, rest_seconds })
    }
}

impl FailureIn {
    fn validate(self, index: usize, acknowledged: Position) -> ApiResult<Failure> {
        if self.global_position > acknowledged {
            let detail = format!("must be at most last_processed_position, which is {acknowledged}");
            return Err(ApiError::invalid_member(format!("/failed/{index}/global_position"), detail));
        }
        let characters = self.reason.chars().count();
        if self.reason.trim().is_empty() || characters > REASON_CHARS_MAX || self.reason.contains('\0') {
            let detail = format!("must have 1 to {REASON_CHARS_MAX} characters, and no NUL");
            return Err(ApiError::invalid_member(format!("/failed/{index}/reason"), detail));
        }
        let retry = match self.retry_after {
            None => RetryTime::BySettings,
            Some(None) => RetryTime::ByOperator,
            Some(Some(seconds)) => {
                RetryTime::After(in_range(format!("/failed/{index}/retry_after"), seconds, 0, RETRY_SECONDS_MAX)?)
            }
        };
        Ok(Failure { global_position: self.global_position, reason: self.reason, retry })
    }
}

/// Acknowledge a claim
///
/// Extends the lease, or ends the claim when it is processed to its end. With `next=true`, the response then has the next
/// claim. A repeated request gets the first response.
#[utoipa::path(put, path = "/groups/{group_name}/claims/{claim_id}", operation_id = "acknowledge_claim", tag = "groups",
    params(
        ClaimParams,
        ("next" = Option<bool>, Query, description = "`true`: hands out the next claim when this one ends"),
        ("limit" = Option<u64>, Query, description = "The largest number of events of the next claim, 1 to 1000, \
            default 100", minimum = 1, maximum = 1000),
        ("wait" = Option<u64>, Query, description = "The seconds to wait for the next claim", minimum = 0,
            maximum = 60),
    ),
    request_body(content = AcknowledgementIn, content_type = "application/json"),
    responses(
        (status = 200, description = "Acknowledged", body = AcknowledgedClaimSchema),
        GroupNotFound,
        (status = 409, description = "The claim is lost, the position is before the acknowledged one, too many streams \
            are parked, or the log has lost events", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "The position is beyond the claim", body = ProblemSchema,
            content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn acknowledge_claim(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: JsonRequest<(GroupPath, ClaimPath, Parameters<AcknowledgeParameters>)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (GroupPath(name), ClaimPath(claim_id), Parameters(parameters)), body } = request;
    let acknowledgement = body.parse::<AcknowledgementIn>(EXAMPLE)?.validate()?;
    let group = match app.groups.open(&name).await {
        Err(GroupError::GroupNotFound) => return Err(claim_of_missing_group(&app, claim_id, &name).await?),
        opened => opened?,
    };
    check_filter(&caller, Scope::Read, &group.filter())?;
    // The worker of the next claim is that of this one.
    let worker = group.worker_of(claim_id);
    let next = parameters.next.then(|| parameters.claim.options(worker, None));
    let acknowledged = match group.acknowledge(claim_id, acknowledgement, next).await {
        Err(GroupError::GroupNotFound) => return Err(claim_of_missing_group(&app, claim_id, &name).await?),
        acknowledged => acknowledged.map_err(|error| of_group(error, &name))?,
    };

    let out = AcknowledgedOut {
        claim_id: claim_id.to_string(),
        last_processed_position: acknowledged.last_processed_position,
        parked_streams: acknowledged.parked_streams,
    };
    let mut body = b"{\"acknowledged\":".to_vec();
    serde_json::to_writer(&mut body, &out).map_err(ApiError::internal)?;
    body.extend_from_slice(b",\"claim\":");
    let delivery = match acknowledged.claim {
        NextClaim::None => {
            body.extend_from_slice(b"null");
            None
        }
        NextClaim::Open(claim) => {
            write_claim(&mut body, &claim)?;
            None
        }
        NextClaim::New(delivery) => {
            write_claim(&mut body, delivery.claim())?;
            Some(delivery)
        }
    };
    body.push(b'}');
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::CACHE_CONTROL, NO_CACHE);
    if acknowledged.is_replayed {
        headers.insert("Idempotent-Replayed", HeaderValue::from_static("true"));
    }
    Ok(match delivery {
        Some(delivery) => (headers, delivered_body(body, delivery)).into_response(),
        None => (headers, body).into_response(),
    })
}
