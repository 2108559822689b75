//! What the routes of groups have in common: a group, a claim and a parked stream in a response.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::claim_id::ClaimId;
use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::domain::group::GroupFilter;
use crate::domain::partition::Partition;
use crate::domain::version::Version;
use crate::groups::claim::{Claim, Delivery};
use crate::groups::error::GroupError;
use crate::groups::group::ActiveGroup;
use crate::http::caller::Caller;
use crate::http::erasure_guard::begin_again;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::store::groups::parked::ParkedStream;
use crate::store::groups::settings::Group;
use crate::store::groups::steps::Step;
use crate::wire::event::EventSchema;
use crate::wire::time::format_time;

/// The size of the pieces in which a response with a claim is sent.
const PIECE_BYTES: usize = 64 * 1024;

/// A consumer group.
#[derive(Serialize, ToSchema)]
#[schema(as = Group)]
pub struct GroupOut {
    group_name: String,
    #[schema(value_type = GroupFilterSchema)]
    filter: GroupFilter,
    partitions: i16,
    lease_seconds: i32,
    retry_after: Vec<i32>,
    paused: bool,
    /// Every event up to here was processed, or belongs to a parked stream.
    last_processed_position: Position,
    #[schema(format = DateTime)]
    last_processed_at: String,
    /// The number of positions between it and the head of the log.
    lag: Position,
    /// The seconds since its first unprocessed event occurred; 0 if there is none.
    lag_seconds: f64,
    /// The number of claims that are not acknowledged yet.
    open_claims: usize,
    parked_streams: i64,
    /// The number of parked streams whose next try an operator decides.
    parked_for_good: i64,
    partition_states: Vec<PartitionOut>,
}

/// The filter of a group: the parameters of `GET /events`, without times.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GroupFilter)]
pub struct GroupFilterSchema {
    #[schema(required = false)]
    aggregate_type: Vec<String>,
    #[schema(required = false)]
    aggregate_id: Vec<String>,
    #[schema(required = false)]
    event_type: Vec<String>,
    #[schema(required = false)]
    correlation_id: Vec<String>,
}

/// A partition of a group.
#[derive(Serialize, ToSchema)]
#[schema(as = GroupPartition)]
pub struct PartitionOut {
    partition: Partition,
    last_processed_position: Position,
    /// The open claim.
    claim_id: Option<String>,
    worker: Option<String>,
    #[schema(format = DateTime)]
    claimed_until: Option<String>,
    /// The partition rests until then.
    #[schema(format = DateTime)]
    not_before: Option<String>,
    parked_streams: i32,
}

/// A claim: events under a lease.
#[derive(Serialize, ToSchema)]
#[schema(as = Claim)]
pub struct ClaimSchema {
    #[serde(flatten)]
    head: ClaimHead,
    /// The unprocessed events of the claim, in the order of their positions.
    events: Vec<EventSchema>,
}

/// The members of a claim beside its events.
#[derive(Serialize, ToSchema)]
#[schema(as = ClaimHead)]
pub struct ClaimHead {
    /// `epoch.partition.number`. The number only increases: a fencing token.
    claim_id: String,
    partition: Partition,
    worker: Option<String>,
    epoch: Epoch,
    /// Everything up to here is acknowledged.
    last_processed_position: Position,
    /// The position of the last event of the claim.
    claimed_to: Position,
    #[schema(format = DateTime)]
    claimed_until: String,
    /// The parked stream that is tried again; null for new events.
    retry: Option<RetryOut>,
}

/// The parked stream that a claim tries again.
#[derive(Serialize, ToSchema)]
#[schema(as = ClaimRetry)]
pub struct RetryOut {
    aggregate_type: String,
    aggregate_id: String,
    /// The number of times that the event has failed.
    attempts: i32,
    reason: String,
}

/// A parked stream.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedStream)]
pub struct ParkedStreamOut {
    aggregate_type: String,
    aggregate_id: String,
    /// Every event of the stream up to here was processed.
    last_processed_position: Position,
    #[schema(value_type = String, format = Uuid)]
    event_id: Uuid,
    event_type: String,
    version: Version,
    global_position: Position,
    /// The number of times that the event has failed.
    attempts: i32,
    reason: String,
    #[schema(format = DateTime)]
    parked_at: String,
    #[schema(format = DateTime)]
    failed_at: String,
    /// When the event is tried again; null: an operator decides.
    #[schema(format = DateTime)]
    retry_at: Option<String>,
    /// The number of events of the stream behind the failed one.
    waiting: Version,
}

/// Opens a group.
pub async fn open(app: &App, name: &str) -> ApiResult<Arc<ActiveGroup>> {
    app.groups.open(name).await.map_err(|error| of_group(error, name))
}

/// Opens a group whose events the caller may read.
pub async fn open_readable(app: &App, caller: &Caller, name: &str) -> ApiResult<Arc<ActiveGroup>> {
    let group = open(app, name).await?;
    check_filter(caller, Scope::Read, &group.filter())?;
    Ok(group)
}

/// Opens a group that the caller may administer.
pub async fn open_managed(app: &App, caller: &Caller, name: &str) -> ApiResult<Arc<ActiveGroup>> {
    let group = open(app, name).await?;
    check_filter(caller, Scope::Admin, &group.filter())?;
    Ok(group)
}

/// Fails unless the caller has a scope on all types of a filter. A key never filters a group silently.
pub fn check_filter(caller: &Caller, scope: Scope, filter: &GroupFilter) -> ApiResult<()> {
    if filter.aggregate_type.is_empty() {
        return caller.check_all(scope);
    }
    filter.aggregate_type.iter().try_for_each(|aggregate_type| caller.check(scope, aggregate_type))
}

/// Returns a number in the body if it is in a range.
pub fn in_range(pointer: impl Into<String>, number: i64, min: i64, max: i64) -> ApiResult<i32> {
    ApiError::check_range(pointer, number, min, max)?;
    i32::try_from(number).map_err(ApiError::internal)
}

/// Returns the problem of an operation on a group.
pub fn of_group(error: GroupError, name: &str) -> ApiError {
    match error {
        GroupError::GroupNotFound => ApiError::group_not_found(name),
        error => error.into(),
    }
}

/// Returns the problem of a request about a claim of a group that does not exist. Claims of deleted groups are lost.
pub async fn claim_of_missing_group(app: &App, claim_id: ClaimId, name: &str) -> ApiResult<ApiError> {
    let is_of_deleted_group = claim_id.number <= app.primary.claim_step_bound().await?;
    Ok(if is_of_deleted_group { ApiError::claim_lost(None, None) } else { ApiError::group_not_found(name) })
}

impl GroupOut {
    /// Describes a group. Its stored position follows first.
    pub async fn read(app: &App, group: &ActiveGroup) -> ApiResult<Self> {
        let name = group.name();
        group.follow(std::time::Duration::ZERO).await.map_err(|error| of_group(error, name))?;
        let projection = app.primary.projection(name).await?.ok_or_else(|| ApiError::group_not_found(name))?;
        let head = app.primary.log_head().await?.global_position;
        let Group { group_no, filter, settings, .. } = group.group();
        let counts = app.primary.count_parked(&[group_no]).await?;
        let (parked_streams, parked_for_good) = counts.first().map_or((0, 0), |(_, all, for_good)| (*all, *for_good));
        let partitions = group.partitions();
        Ok(Self {
            group_name: name.to_owned(),
            filter,
            partitions: settings.partitions,
            lease_seconds: settings.lease_seconds,
            retry_after: settings.retry_after,
            paused: settings.paused,
            lag: projection.lag(head),
            lag_seconds: projection.waiting_seconds.unwrap_or(0.0).max(0.0),
            last_processed_position: projection.last_processed_position,
            last_processed_at: format_time(projection.last_processed_at),
            open_claims: partitions.iter().filter(|(step, _)| step.claim.number.is_some()).count(),
            parked_streams,
            parked_for_good,
            partition_states: partitions.into_iter().map(PartitionOut::from).collect(),
        })
    }
}

impl From<(Step, Position)> for PartitionOut {
    fn from((step, position): (Step, Position)) -> Self {
        let claim_id = step.claim_id();
        Self {
            partition: step.partition,
            last_processed_position: position,
            claim_id: claim_id.map(|id| id.to_string()),
            claimed_until: claim_id.and(step.claim.claimed_until).map(format_time),
            worker: step.claim.worker.filter(|_| claim_id.is_some()),
            not_before: step.not_before.map(format_time),
            parked_streams: step.parked,
        }
    }
}

impl ClaimHead {
    /// Describes the open claim of a partition; `None` if it has none.
    pub fn from_step(step: &Step, retry: Option<&ParkedStream>) -> Option<Self> {
        Some(Self {
            claim_id: step.claim_id()?.to_string(),
            partition: step.partition,
            worker: step.claim.worker.clone(),
            epoch: step.epoch,
            last_processed_position: step.acknowledged_position(),
            claimed_to: step.claim.claimed_to?,
            claimed_until: format_time(step.claim.claimed_until?),
            retry: retry.map(|parked| RetryOut {
                aggregate_type: parked.aggregate_type.clone(),
                aggregate_id: parked.aggregate_id.clone(),
                attempts: parked.attempts,
                reason: parked.reason.clone(),
            }),
        })
    }
}

/// Writes a claim as a JSON object.
pub fn write_claim(out: &mut Vec<u8>, claim: &Claim) -> ApiResult<()> {
    // The group has read the events of the claim after all erasures that it knew.
    begin_again();
    let head = ClaimHead::from_step(&claim.step, claim.retry.as_ref());
    let head = head.ok_or_else(|| ApiError::internal("a claim has no lease"))?;
    serde_json::to_writer(&mut *out, &head).map_err(ApiError::internal)?;
    // The events are JSON already, so they are not serialized again.
    out.pop();
    out.extend_from_slice(b",\"events\":[");
    for (index, event) in claim.events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&event.json);
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// Returns a body that completes the delivery of a claim when it is sent. If it is dropped before, the claim is released.
pub fn delivered_body(bytes: Vec<u8>, delivery: Delivery) -> Body {
    let pieces = stream::unfold((Bytes::from(bytes), delivery), |(mut rest, mut delivery)| async move {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        if rest.is_empty() {
            delivery.complete();
        }
        Some((Ok::<_, Infallible>(piece), (rest, delivery)))
    });
    // The compression polls again after the end, which an unfold does not allow.
    Body::from_stream(pieces.fuse())
}

impl ParkedStreamOut {
    /// Describes a parked stream whose stream has a version.
    pub fn new(parked: ParkedStream, version: Version) -> Self {
        Self {
            waiting: (version - parked.event.version).max(0),
            aggregate_type: parked.aggregate_type,
            aggregate_id: parked.aggregate_id,
            last_processed_position: parked.last_processed_position,
            event_id: parked.event.event_id,
            event_type: parked.event.event_type,
            version: parked.event.version,
            global_position: parked.event.global_position,
            attempts: parked.attempts,
            reason: parked.reason,
            parked_at: format_time(parked.parked_at),
            failed_at: format_time(parked.failed_at),
            retry_at: parked.retry_at.map(format_time),
        }
    }

    /// Describes parked streams.
    pub async fn read_all(app: &App, parked: Vec<ParkedStream>) -> ApiResult<Vec<Self>> {
        let names = parked.iter().map(|parked| (parked.aggregate_type.clone(), parked.aggregate_id.clone()));
        let (types, ids): (Vec<_>, Vec<_>) = names.unzip();
        let versions = app.primary.stream_versions(&types, &ids).await?;
        Ok(parked.into_iter().zip(versions).map(|(parked, version)| Self::new(parked, version)).collect())
    }
}
