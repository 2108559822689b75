//! Conversions of the errors of other modules into problems.

use axum::http::header;

use crate::domain::access::Scope;
use crate::erasures::error::ErasureError;
use crate::groups::error::{GroupError, PARKED_MAX};
use crate::http::cache::etag;
use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;
use crate::http::problem::field_error::FieldError;
use crate::reducers::error::FoldError;
use crate::store::append::error::AppendError;
use crate::store::error::StoreError;
use crate::subscriptions::feed::TooManySubscribers;
use crate::wire::validation::ValidationError;

const LOG_MOVING: &str = "the log is moving to another database, and nothing was written: try again later";
const DATABASE_UNAVAILABLE: &str = "the database cannot be reached, or is not ready";

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::EpochChanged { epoch, last_common_position } => {
                Self::epoch_changed(*epoch, *last_common_position)
            }
            StoreError::BeyondHead(head) => Self::position_beyond_head(*head),
            StoreError::Behind(head) => Self::replica_behind(*head),
            StoreError::NotReached { head, requested } => Self::position_not_reached(*head, *requested),
            StoreError::ShuttingDown => Self::shutting_down().with_cause(error),
            StoreError::LogMoving => Self::new(Code::LogMoving, LOG_MOVING),
            StoreError::OutcomeUnknown(_) => {
                let detail = "the result of the database did not arrive in time: read what was to be changed, or repeat \
                              the request";
                Self::new(Code::OutcomeUnknown, detail).with_cause(error)
            }
            StoreError::Unavailable(_) => Self::new(Code::DatabaseUnavailable, DATABASE_UNAVAILABLE).with_cause(error),
            StoreError::ArchiveUnavailable(_) => {
                let detail = "the requested events are in the archive, which cannot be read at this time";
                Self::new(Code::DatabaseUnavailable, detail).with_cause(error)
            }
            StoreError::EventMissing(_) => Self::internal(error).mark_missing_event(),
            StoreError::ArchiveDamaged(_) | StoreError::Unreadable(_) | StoreError::Internal(_) => {
                Self::internal(error)
            }
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match &error {
            AppendError::Overloaded => {
                Self::new(Code::Overloaded, "too many appends are waiting; nothing was written").with_cause(error)
            }
            AppendError::ClockSkew => Self::new(Code::ClockSkew, format!("{error}; nothing was written")),
            AppendError::LogMoving => Self::new(Code::LogMoving, LOG_MOVING),
            AppendError::ShuttingDown => Self::shutting_down().with_cause(error),
            AppendError::Unavailable(_) => Self::new(Code::DatabaseUnavailable, DATABASE_UNAVAILABLE).with_cause(error),
            AppendError::OutcomeUnknown => {
                let detail = "the connection to the database was lost before the result arrived: repeat the request \
                              with the same event ids";
                Self::new(Code::OutcomeUnknown, detail).with_cause(error)
            }
            AppendError::Internal(_) => Self::internal(error),
        }
    }
}

impl From<ErasureError> for ApiError {
    fn from(error: ErasureError) -> Self {
        match error {
            ErasureError::Store(error) => error.into(),
            ErasureError::Forbidden => Self::forbidden(Scope::Admin, "the type of every event in event_ids"),
            ErasureError::StreamNotFound(stream) => Self::stream_not_found(&stream),
            ErasureError::EventNotFound(event_id) => Self::event_not_found(event_id),
            ErasureError::Announcement(index) => {
                let detail = "is the id of a $erased event, which has no personal data and cannot be erased";
                Self::invalid_member(format!("/event_ids/{index}"), detail)
            }
            ErasureError::TooLarge(events) => Self::erasure_too_large(events),
            ErasureError::NotAnnounced(error) => {
                let detail = "the content is erased, and the $erased events could not be appended yet: repeat the \
                              request to receive the receipt";
                Self::new(Code::OutcomeUnknown, detail).with_cause(error)
            }
        }
    }
}

impl From<GroupError> for ApiError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Store(error) => error.into(),
            GroupError::TooManySubscribers(error) => error.into(),
            GroupError::GroupNotFound => Self::new(Code::GroupNotFound, "the consumer group does not exist"),
            GroupError::ClaimNotFound => {
                Self::new(Code::ClaimNotFound, "the group has no open claim with this id: it is unknown or has ended")
            }
            GroupError::ClaimLost { last_processed_position, claimed_by } => {
                Self::claim_lost(last_processed_position, claimed_by.as_deref())
            }
            GroupError::PositionRegressed(current) => {
                let detail = format!("position {current} is acknowledged already");
                Self::new(Code::PositionRegressed, detail).with("current_position", &current)
            }
            GroupError::PositionBeyondClaim(last) => Self::position_beyond_claim(last),
            GroupError::NotInClaim(index) => {
                let detail = "the claim has no unprocessed event at this position";
                Self::invalid(FieldError::pointer(format!("/failed/{index}/global_position"), detail))
            }
            GroupError::TooManyParked => {
                let detail = format!(
                    "the group has {PARKED_MAX} parked streams, the largest number, and nothing was acknowledged: try \
                     parked streams again, or skip their events"
                );
                Self::new(Code::TooManyParked, detail)
            }
            GroupError::ParkedStreamNotFound => Self::new(Code::ParkedStreamNotFound, "the stream is not parked"),
            GroupError::PositionConflict(current) => {
                let detail = format!("the parked stream is at position {current}: read it again");
                Self::new(Code::PositionConflict, detail)
                    .with("current_position", &current)
                    .with_header(header::ETAG, etag(current))
            }
        }
    }
}

impl From<FoldError> for ApiError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::StreamNotFound(stream) => Self::stream_not_found(&stream),
            FoldError::NoSuchVersion(stream, head) => Self::state_not_found(&stream, head),
            FoldError::Invalid(invalid) => Self::invalid_reducer(invalid.message, invalid.line, invalid.column),
            FoldError::Failed(failure) => Self::new(Code::ReducerFailed, failure.to_string())
                .with("version", &failure.version)
                .with("global_position", &failure.global_position),
            FoldError::WorkersBusy => {
                let detail = "no worker process was free to run the reducer; retry, or load the events";
                Self::new(Code::Overloaded, detail).with_cause(error)
            }
            FoldError::Store(error) => error.into(),
        }
    }
}

impl From<ValidationError> for ApiError {
    fn from(error: ValidationError) -> Self {
        match error {
            ValidationError::Invalid { pointer, detail } => Self::invalid(FieldError::pointer(pointer, detail)),
            ValidationError::UnsupportedJson { pointer, reason } => {
                Self::new(Code::InvalidEventData, format!("{pointer}: {reason}")).with("pointer", &pointer)
            }
        }
    }
}

impl From<TooManySubscribers> for ApiError {
    fn from(error: TooManySubscribers) -> Self {
        let detail = match error {
            TooManySubscribers::LimitReached(limit) => {
                format!("this process has reached its limit of event streams and long polls: {limit}")
            }
            TooManySubscribers::ShareExceeded(limit) => format!(
                "the client holds as many event streams and long polls as remain free for others, of {limit}: close some"
            ),
        };
        Self::new(Code::TooManySubscribers, detail)
    }
}
