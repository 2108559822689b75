//! The constructors of all problems except the conflicts of appends.

use axum::http::{HeaderValue, header};
use uuid::Uuid;

use crate::domain::access::Scope;
use crate::domain::cursor::Epoch;
use crate::domain::erasure::{ERASED_EVENTS_MAX, ErasureNo};
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::{ExpectedVersion, Version};
use crate::http::cache::etag;
use crate::http::problem::appends::ExpectedVersionJson;
use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;
use crate::keyring::QuotaExceeded;

/// The detail of every internal error: its cause is for operators only.
const UNEXPECTED: &str = "an unexpected error; the service's log has the cause under this request id";

/// Requests and keys.
impl ApiError {
    /// `Accept` names none of the media types that the route offers.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let detail = format!("the header Accept names none of the available media types: {}", offered.join(", "));
        Self::new(Code::NotAcceptable, detail)
    }

    /// The body exceeds the limit.
    pub fn payload_too_large(bytes_max: usize) -> Self {
        let detail = format!("the body is larger than {bytes_max} bytes");
        Self::new(Code::PayloadTooLarge, detail).with("max_bytes", &bytes_max)
    }

    /// The request names a host that a service without API keys does not serve.
    pub fn host_refused(host: &str) -> Self {
        let detail = format!(
            "the service requires no API keys, and therefore refuses requests for the host {host:?}: use an IP address \
             or localhost, or add the name to ANNALS_HOSTS"
        );
        Self::new(Code::HostRefused, detail)
    }

    /// The request has no valid key.
    pub fn unauthenticated(detail: &str) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"annals\"");
        Self::new(Code::Unauthenticated, detail).with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// The key has no grant of this scope on `object`, which is one type or projection, all types or any type.
    pub fn forbidden(scope: Scope, object: &str) -> Self {
        let verb = match scope {
            Scope::Read => "read",
            Scope::Append => "append to",
            Scope::Admin => "administer",
            Scope::Project => "move, delete or work on",
        };
        Self::new(Code::Forbidden, format!("the key has no grant to {verb} {object}"))
    }

    /// The request exceeds a quota of its key. One that exceeds the quota of a whole minute is too large.
    pub fn quota_exceeded(exceeded: QuotaExceeded) -> Self {
        match exceeded {
            QuotaExceeded::Wait(wait) => {
                let seconds = wait.as_secs() + 1;
                let detail = format!("the key has reached its rate limit: retry after {seconds} s");
                Self::new(Code::QuotaExceeded, detail).with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
            }
            QuotaExceeded::TooLarge { unit, per_minute } => {
                let detail = format!("the key may send {per_minute} {unit} a minute: send fewer in one request");
                Self::new(Code::PayloadTooLarge, detail)
            }
        }
    }

    /// The store, or the key, has the largest number of projections.
    pub fn too_many_projections(limit: i64, holder: &str) -> Self {
        let detail =
            format!("{holder} has {limit} projections, the largest number: DELETE those that are no longer used");
        let a_minute = HeaderValue::from_static("60");
        Self::new(Code::QuotaExceeded, detail).with("limit", &limit).with_header(header::RETRY_AFTER, a_minute)
    }

    /// An unexpected error. Its cause is logged, and not sent.
    pub fn internal(cause: impl ToString) -> Self {
        Self::new(Code::Internal, UNEXPECTED).with_cause(cause)
    }

    /// The process is shutting down.
    pub fn shutting_down() -> Self {
        Self::new(Code::ShuttingDown, "this process is shutting down and accepts no new requests; nothing was written")
    }

    /// `/problems/<code>` was requested with an unknown code.
    pub fn problem_not_found(code: &str) -> Self {
        Self::new(Code::ProblemNotFound, format!("no problem has the code {code:?}"))
    }
}

/// Streams and the log.
impl ApiError {
    /// The stream does not exist.
    pub fn stream_not_found(stream: &StreamId) -> Self {
        Self::new(Code::StreamNotFound, format!("the stream {stream} has no event"))
    }

    /// The stream of one event does not exist. A client that meant an id with a slash gets a hint.
    pub fn stream_of_event_not_found(stream: &StreamId, version: u64) -> Self {
        let detail = format!(
            "the stream {stream} has no event; this path names its version {version}, because an aggregate id cannot \
             contain a slash"
        );
        Self::new(Code::StreamNotFound, detail)
    }

    /// No event has this id, or the caller may not read it.
    pub fn event_not_found(event_id: Uuid) -> Self {
        Self::new(Code::EventNotFound, format!("no event has the id {event_id}"))
    }

    /// A stream does not have the requested version.
    pub fn version_not_found(stream: &StreamId, head: Version, version: u64) -> Self {
        Self::new(Code::EventNotFound, format!("the stream {stream} is at version {head}: it has no version {version}"))
    }

    /// A stream did not have the requested version, or had no event at the requested time.
    pub fn state_not_found(stream: &StreamId, head: Version) -> Self {
        let detail = format!(
            "the stream {stream} is at version {head}: it has no such version, or it had no event at the requested time"
        );
        Self::new(Code::EventNotFound, detail)
    }

    /// The cursor of the client belongs to a part of the log that was lost.
    pub fn epoch_changed(epoch: Epoch, last_common_position: Position) -> Self {
        let detail = format!(
            "the log is in epoch {epoch} and is unchanged up to position {last_common_position}; \
             later events may be lost"
        );
        Self::new(Code::EpochChanged, detail).with("rewind_to", &last_common_position).with("epoch", &epoch)
    }

    /// A client has received a version that the stream does not have: the end of the stream was lost.
    pub fn stream_was_rewound(head: Version, received: u64) -> Self {
        let detail = format!(
            "the stream is at version {head}, and the client has received {received}; later events may be lost"
        );
        Self::new(Code::EpochChanged, detail).with("rewind_to", &head)
    }

    /// The log did not reach a requested position in time.
    pub fn position_not_reached(head: Position, requested: Position) -> Self {
        let detail = format!("the database that serves this request is at position {head}, not yet at {requested}");
        Self::new(Code::ReplicaBehind, detail).with("head", &head)
    }

    /// The database that serves the request does not have the client's position or epoch yet.
    pub fn replica_behind(head: Position) -> Self {
        let detail =
            format!("the read replica that serves this request is at position {head}, behind the client's cursor");
        Self::new(Code::ReplicaBehind, detail).with("head", &head)
    }
}

/// Snapshots and reducers.
impl ApiError {
    /// The aggregate has no snapshot.
    pub fn snapshot_not_found(stream: &StreamId) -> Self {
        Self::new(Code::SnapshotNotFound, format!("the stream {stream} has no snapshot"))
    }

    /// The stored snapshot has a later version than the one in the request; `None`: none is stored, and the state in the
    /// request is from before an erasure.
    pub fn snapshot_stale(stored: Option<Version>) -> Self {
        let detail = match stored {
            Some(_) => "a snapshot of a later version is stored for the same revision",
            None => "events of the stream were erased since this version: load the aggregate again",
        };
        Self::new(Code::SnapshotStale, detail).with("snapshot_version", &stored)
    }

    /// The snapshot in the request has a version that the stream does not have.
    pub fn version_beyond_head(stream: &StreamId, head: Version, version: i64) -> Self {
        let detail = format!("the stream {stream} is at version {head}: it has no version {version}");
        Self::new(Code::VersionBeyondHead, detail).with("current_version", &head)
    }

    /// The type has no reducer to read or delete.
    pub fn reducer_not_found(aggregate_type: &str) -> Self {
        Self::new(Code::ReducerNotFound, format!("the type {aggregate_type:?} has no reducer"))
    }

    /// A state is requested, and the type has no reducer.
    pub fn no_reducer(aggregate_type: &str) -> Self {
        let detail = format!("the type {aggregate_type:?} has no reducer: register one, or load the events");
        Self::new(Code::NoReducer, detail)
    }

    /// A client stores a snapshot, and the type has a reducer.
    pub fn reducer_exists(aggregate_type: &str) -> Self {
        let detail = format!("the type {aggregate_type:?} has a reducer: Annals makes its snapshots");
        Self::new(Code::ReducerExists, detail)
    }

    /// A source that cannot be used, and the place of the fault in it.
    pub fn invalid_reducer(detail: impl Into<String>, line: u32, column: u32) -> Self {
        Self::new(Code::InvalidReducer, detail).with("line", &line).with("column", &column)
    }
}

/// Projections.
impl ApiError {
    /// The projection does not exist.
    pub fn projection_not_found(name: &str) -> Self {
        Self::new(Code::ProjectionNotFound, format!("no projection has the name {name:?}"))
    }

    /// The projection did not process the requested position in time.
    pub fn projection_behind(position: Position, lag: Position) -> Self {
        let detail = format!("the projection has processed position {position}, and did not reach wait_for in time");
        Self::new(Code::ProjectionBehind, detail).with("last_processed_position", &position).with("lag", &lag)
    }

    /// The position in the request is beyond the head of the log.
    pub fn position_beyond_head(head: Position) -> Self {
        let detail =
            format!("the head of the log is at position {head}: no position beyond it can have been read or processed");
        Self::new(Code::PositionBeyondHead, detail).with("head", &head)
    }

    /// The position in the request is before the current one.
    pub fn position_regressed(current: Position) -> Self {
        let detail = format!("the projection is at position {current}; to move it backwards, send reset=true");
        Self::new(Code::PositionRegressed, detail).with("current_position", &current)
    }

    /// The projection is not at the expected position; `None`: it does not exist.
    pub fn position_conflict(current: Option<Position>) -> Self {
        let detail = match current {
            Some(current) => {
                format!("the projection is at position {current}: read it again, and continue from there")
            }
            None => "the projection does not exist, and the request expects that it exists".to_owned(),
        };
        let error = Self::new(Code::PositionConflict, detail).with("current_position", &current);
        match current {
            Some(current) => error.with_header(header::ETAG, etag(current)),
            None => error,
        }
    }
}

/// Erasures.
impl ApiError {
    /// No erasure has this number.
    pub fn erasure_not_found(erasure: ErasureNo) -> Self {
        Self::new(Code::ErasureNotFound, format!("no erasure has the number {erasure}"))
    }

    /// The request names more events with content than one request may erase.
    pub fn erasure_too_large(events: usize) -> Self {
        let detail = format!(
            "the request names {events} events whose content is not erased yet, and may name {ERASED_EVENTS_MAX}: \
             narrow it by from_version and to_version, and send several requests"
        );
        Self::new(Code::ErasureTooLarge, detail).with("events", &events).with("limit", &ERASED_EVENTS_MAX)
    }
}

/// Consumer groups.
impl ApiError {
    /// The group does not exist.
    pub fn group_not_found(name: &str) -> Self {
        Self::new(Code::GroupNotFound, format!("no consumer group has the name {name:?}"))
    }

    /// The group is another one than the request describes.
    pub fn group_differs(detail: &str) -> Self {
        Self::new(Code::GroupDiffers, detail)
    }

    /// The group has another revision than expected; `None`: it does not exist.
    pub fn revision_conflict(expected: ExpectedVersion, revision: Option<i64>) -> Self {
        let detail = match revision {
            Some(revision) => format!("the group has the revision {revision}: read it again"),
            None => "the group does not exist, and the request expects that it exists".to_owned(),
        };
        let error = Self::new(Code::VersionConflict, detail)
            .with("expected_version", &ExpectedVersionJson(expected))
            .with("current_version", &revision.unwrap_or(0));
        match revision {
            Some(revision) => error.with_header(header::ETAG, etag(revision)),
            None => error,
        }
    }

    /// Leases prevent the change for a number of seconds.
    pub fn claims_open(seconds: f64) -> Self {
        // A lease has at most an hour.
        let seconds = seconds.ceil().clamp(1.0, 3_600.0) as u16;
        let detail = format!(
            "claims of the group are open, and the last lease ends in {seconds} s: pause the group, and retry then"
        );
        Self::new(Code::ClaimsOpen, detail).with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The claim has ended, and the acknowledgement was not accepted.
    pub fn claim_lost(last_processed_position: Option<Position>, claimed_by: Option<&str>) -> Self {
        let detail = "the claim has ended: its lease expired and the partition was claimed again, or the claim was \
                      released, or the group was reset or deleted. Nothing was acknowledged";
        Self::new(Code::ClaimLost, detail)
            .with("last_processed_position", &last_processed_position)
            .with("claimed_by", &claimed_by)
    }

    /// The position in the request is beyond the claim, or beyond the position of the group.
    pub fn position_beyond_claim(last: Position) -> Self {
        let detail = format!("the last position that can be acknowledged or skipped is {last}");
        Self::new(Code::PositionBeyondClaim, detail).with("last_position", &last)
    }

    /// A group moves the projection.
    pub fn moved_by_group(name: &str) -> Self {
        let detail = format!(
            "the consumer group {name:?} moves this projection: acknowledge claims, or change /groups/{name} instead"
        );
        Self::new(Code::MovedByGroup, detail)
    }
}
