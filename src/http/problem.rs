//! Errors on the wire: RFC 9457 problems with a stable code.
//!
//! Handlers return a [`Problem`]; it becomes a response in one place, [`super::middleware`], which knows the request id.
//! What is said to the client is `detail`; what only operators should read is the `cause`, in the log.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use crate::store::error::StoreError;
use crate::subscriptions::TooManySubscribers;

/// The closed list of codes: status, title, and what a person should know and do.
macro_rules! codes {
    ($($variant:ident $code:literal $status:ident $title:literal $advice:literal;)*) => {
        /// A stable code: part of the contract, documented at `/problems/<code>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($variant),* }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code),* }
            }

            /// The status that the code usually comes with.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status),* }
            }

            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title),* }
            }

            /// What it means and what to do, for `/problems/<code>`.
            pub fn advice(self) -> &'static str {
                match self { $(Code::$variant => $advice),* }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" BAD_REQUEST "The request is not understood"
        "A header, a parameter, a name in the path or a member of the body is wrong. The member `errors` says which one, \
         and what is expected. Unknown members and parameters are refused, so that a misspelt one is never ignored. \
         Correct the request; repeating it as it is will fail again.";
    Unauthenticated "unauthenticated" UNAUTHORIZED "The request has no key that is good"
        "Send `Authorization: Bearer <key>`. Whoever runs Annals makes keys with `annals keys create`; a key may have expired or \
         been revoked since.";
    Forbidden "forbidden" FORBIDDEN "The key does not go so far"
        "The key is good, and has no grant for this: `detail` says which scope (read, append, admin) it needs, and on which \
         aggregate types. Ask for a key with that grant.";
    QuotaExceeded "quota_exceeded" TOO_MANY_REQUESTS "The key's quota is used up"
        "The key may send so many requests a minute, and has. Nothing was done. Retry after `Retry-After` seconds, and send \
         several events in one request.";
    RouteNotFound "route_not_found" NOT_FOUND "There is nothing at this path"
        "No route has this path. The routes are listed at /docs and in /openapi.json.";
    StreamNotFound "stream_not_found" NOT_FOUND "The stream does not exist"
        "No event was ever appended to this stream. A stream begins with its first event: append one with \
         `If-None-Match: *` or `If-Match: \"0\"`.";
    EventNotFound "event_not_found" NOT_FOUND "The event does not exist"
        "The stream has no such version, or no event has this id.";
    SnapshotNotFound "snapshot_not_found" NOT_FOUND "The aggregate has no snapshot"
        "None is stored. A load gives the same without one, only later.";
    ReducerNotFound "reducer_not_found" NOT_FOUND "The type has no reducer"
        "None is registered for this aggregate type. PUT one at /reducers/<type>.";
    ProjectionNotFound "projection_not_found" NOT_FOUND "The projection does not exist"
        "No position was ever put for a projection of this name, or it was deleted. The first PUT makes it.";
    ProblemNotFound "problem_not_found" NOT_FOUND "There is no such problem code"
        "The codes are listed in the documentation and at /problems/<code>, one by one.";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The path does not take this method"
        "The header `Allow` lists the methods of this path.";
    NotAcceptable "not_acceptable" NOT_ACCEPTABLE "None of the accepted media types is available"
        "The header `Accept` names no representation that this resource has. Leave it out, or send `*/*`, for JSON.";
    EventIdReused "event_id_reused" CONFLICT "An event id was used again for something else"
        "An event with this id was written before, with other content or in another stream (`known_event_ids` lists them). \
         Nothing was written. An event id names one event for ever: make a new one for a new event.";
    EventPartlyKnown "event_partly_known" CONFLICT "Some of the events were written before, and some were not"
        "A retry repeats a request as it was: the same events, in the same order. Here some ids are known \
         (`known_event_ids`) and others are new, or they stand elsewhere. Nothing was written. Read the stream to see what \
         is there, and append the rest.";
    EpochChanged "epoch_changed" CONFLICT "The cursor is of an epoch that is over"
        "PostgreSQL was restored, or failed over to a standby that had not got everything: what the log had beyond \
         `rewind_to` may be lost, and other events stand at those positions now. Undo what was derived from events after \
         `rewind_to`, and go on with `after=<epoch>:<rewind_to>`; `epoch` is the current one.";
    SnapshotStale "snapshot_stale" CONFLICT "A later snapshot is stored"
        "A snapshot of a later version (`snapshot_version`) and of the same revision is stored. Nothing was changed, and there \
         is nothing to do. To replace it on purpose, DELETE it first.";
    ReducerExists "reducer_exists" CONFLICT "The type has a reducer"
        "Annals makes the snapshots of this type itself; a client puts none. DELETE the reducer to put them again.";
    NoReducer "no_reducer" CONFLICT "The type has no reducer"
        "Annals can tell a state only if it knows how to fold the type's events: register a reducer at /reducers/<type>, or \
         load the events (/aggregates/<type>/<id>) and fold them yourself.";
    PositionRegressed "position_regressed" CONFLICT "The position is before the current one"
        "A projection's position moves forward only (`current_position` is where it is). To process again what it has seen, \
         send `reset=true`.";
    PositionConflict "position_conflict" PRECONDITION_FAILED "The projection is at another position"
        "The position is not the one that `If-Match` expects (`current_position`): another instance of the projection has \
         moved it. Read it, and go on from there.";
    VersionConflict "version_conflict" PRECONDITION_FAILED "Optimistic concurrency check failed"
        "The stream is not at the version that the request expects: somebody else has appended in the meantime. Nothing was \
         written. Load the stream again, decide again, and retry with exponential backoff. With \
         `Prefer: return=representation` the answer brings the missed events along. On /appends the status is 409.";
    PayloadTooLarge "payload_too_large" PAYLOAD_TOO_LARGE "The request is too large"
        "The body is larger than the server takes (`ANNALS_MAX_BODY_BYTES`, 1 MiB unless configured). Send fewer events a \
         request, or keep large documents elsewhere and refer to them.";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The body is not JSON"
        "Send `Content-Type: application/json`.";
    InvalidEventData "invalid_event_data" UNPROCESSABLE_ENTITY "JSON that cannot be kept"
        "The document is JSON, but PostgreSQL could not keep it or hand it back unchanged: nested deeper than 64 levels, a \
         key twice in one object, U+0000, a lone surrogate, a number of more than 40 digits or beyond 10^308, or documents that \
         print larger than twice the largest body, because numbers with exponents are written out. `pointer` says where. \
         Nothing was written.";
    InvalidReducer "invalid_reducer" UNPROCESSABLE_ENTITY "The reducer is not understood"
        "Its source cannot be used; `line` and `column` say where. Nothing was registered.";
    ReducerFailed "reducer_failed" UNPROCESSABLE_ENTITY "The reducer failed"
        "It could not fold an event (`version`, `global_position`): the state became too large, or the reducer went wrong. No \
         snapshot was made, and appends are not affected. Try it out at /reducers/<type>/test, and replace it.";
    VersionBeyondHead "version_beyond_head" UNPROCESSABLE_ENTITY "The stream has no such version"
        "The snapshot is of a version that the stream has not reached (`current_version` is where it is). Is it of another \
         stream, or of an append that failed?";
    PositionBeyondHead "position_beyond_head" UNPROCESSABLE_ENTITY "The position is beyond the head of the log"
        "No event has this position yet (`head` is the last one), so it cannot have been processed. Is the position of \
         another store?";
    Internal "internal" INTERNAL_SERVER_ERROR "Something went wrong in Annals"
        "A defect. The log has the details under the request id in `instance`. Whether an append was written is told by \
         repeating it with the same event ids.";
    Overloaded "overloaded" SERVICE_UNAVAILABLE "Too much to do"
        "The append queue is full, or the append lock could not be had in time, and nothing was written; or no worker had time \
         to fold an aggregate. Retry after `Retry-After` seconds, with exponential backoff.";
    DatabaseUnavailable "database_unavailable" SERVICE_UNAVAILABLE "The database, or the archive, cannot be reached"
        "PostgreSQL does not answer, or takes no writes now; or what is asked for lies in the archive, which does not answer. \
         Nothing was written. Retry after `Retry-After` seconds.";
    OutcomeUnknown "outcome_unknown" SERVICE_UNAVAILABLE "The append was sent, and its answer was lost"
        "The events are written, or they are not. Repeat the request with the same event ids, or the same \
         `Idempotency-Key`: if it was written, the answer is the first one's.";
    TooManySubscribers "too_many_subscribers" SERVICE_UNAVAILABLE "Too many follow the log"
        "As many event streams and long polls are open as this process allows (`ANNALS_MAX_SUBSCRIBERS`). Close those that \
         nobody reads, ask another replica, or retry after `Retry-After` seconds.";
    ReplicaBehind "replica_behind" SERVICE_UNAVAILABLE "The database that answers has not come that far"
        "`min_position` asks for a position that the log did not reach within a second (`head` is where it stands). Repeat the \
         request, or leave `min_position` out if older is good enough.";
    ProjectionBehind "projection_behind" GATEWAY_TIMEOUT "The projection has not come that far"
        "The projection did not process the position of `wait_for` within `timeout` seconds; `lag` says how many events it \
         is behind the head. Ask again, or look whether it still runs.";
    ShuttingDown "shutting_down" SERVICE_UNAVAILABLE "This process is shutting down"
        "Nothing was written. Retry: another replica, or the next process, will answer.";
}

impl Code {
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == code)
    }
}

/// Where a fault of the request is, and what to do about it: an element of `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Name of a query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Name of a segment of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub detail: String,
}

impl FieldError {
    fn new(detail: impl Into<String>) -> Self {
        Self { pointer: None, header: None, parameter: None, path: None, detail: detail.into() }
    }

    pub fn pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::new(detail) }
    }

    pub fn header(header: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { header: Some(header.into()), ..Self::new(detail) }
    }

    pub fn parameter(parameter: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { parameter: Some(parameter.into()), ..Self::new(detail) }
    }

    pub fn path(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::new(detail) }
    }

    fn place(&self) -> String {
        let named = [("", &self.pointer), ("header ", &self.header), ("parameter ", &self.parameter), ("", &self.path)];
        named.iter().find_map(|(kind, name)| Some(format!("{kind}{}", name.as_ref()?))).unwrap_or_default()
    }
}

/// An error answer.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Code,
    pub status: StatusCode,
    pub detail: String,
    /// What only operators should read, in the log.
    cause: Option<String>,
    extras: Vec<(&'static str, Box<RawValue>)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Box<Self> {
        let mut problem = Box::new(Self {
            code,
            status: code.status(),
            detail: detail.into(),
            cause: None,
            extras: Vec::new(),
            headers: Vec::new(),
        });
        if problem.status == StatusCode::SERVICE_UNAVAILABLE {
            problem.headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        problem
    }

    /// A request that is not understood, and where.
    pub fn invalid(error: FieldError) -> Box<Self> {
        let place = error.place();
        let detail = if place.is_empty() { error.detail.clone() } else { format!("{place}: {}", error.detail) };
        Self::new(Code::InvalidRequest, detail).with("errors", &[error])
    }

    pub fn with_status(mut self: Box<Self>, status: StatusCode) -> Box<Self> {
        self.status = status;
        self
    }

    /// Adds a member.
    pub fn with(self: Box<Self>, name: &'static str, value: &(impl Serialize + ?Sized)) -> Box<Self> {
        let value = serde_json::value::to_raw_value(value).expect("members of problems are plain data");
        self.with_raw(name, value)
    }

    pub fn with_raw(mut self: Box<Self>, name: &'static str, value: Box<RawValue>) -> Box<Self> {
        self.extras.push((name, value));
        self
    }

    pub fn with_header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.push((name, value));
        self
    }

    /// Says in the log, and not to the client, what is behind it.
    pub fn because(mut self: Box<Self>, cause: impl ToString) -> Box<Self> {
        self.cause = Some(cause.to_string());
        self
    }

    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The body, which names the request as `instance`.
    pub fn body(&self, instance: &str) -> Vec<u8> {
        serde_json::to_vec(&Body { problem: self, instance }).expect("a problem is plain data")
    }
}

struct Body<'p> {
    problem: &'p Problem,
    instance: &'p str,
}

impl Serialize for Body<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Problem { code, status, detail, extras, .. } = self.problem;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format!("/problems/{}", code.as_str()))?;
        map.serialize_entry("title", code.title())?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("instance", self.instance)?;
        map.serialize_entry("code", code.as_str())?;
        for (name, value) in extras {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Leaves the problem in the response's extensions; the middleware writes the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        for (name, value) in self.headers.clone() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// A handler's error; boxed, since it is large and rare.
pub struct Refusal(pub Box<Problem>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<Box<Problem>> for Refusal {
    fn from(problem: Box<Problem>) -> Self {
        Self(problem)
    }
}

impl From<TooManySubscribers> for Refusal {
    fn from(error: TooManySubscribers) -> Self {
        let detail = format!("this process serves {} event streams and long polls at most", error.limit);
        Self(Problem::new(Code::TooManySubscribers, detail))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

impl From<StoreError> for Box<Problem> {
    fn from(error: StoreError) -> Self {
        let (code, detail) = match &error {
            StoreError::EpochChanged { epoch, kept } => {
                let detail = format!(
                    "the log is in epoch {epoch}, and up to position {kept} it is what it was: what followed may be lost"
                );
                return Problem::new(Code::EpochChanged, detail).with("rewind_to", kept).with("epoch", epoch);
            }
            StoreError::Behind(head) => {
                let detail = format!("the database that answers is at position {head}, behind what was seen before");
                return Problem::new(Code::ReplicaBehind, detail).with("head", head);
            }
            StoreError::Overloaded => (Code::Overloaded, "too many appends are waiting; nothing was written"),
            StoreError::NotFolded => {
                (Code::Overloaded, "no worker had time to fold this aggregate; retry, or load its events")
            }
            StoreError::ShuttingDown => {
                (Code::ShuttingDown, "this process takes no more requests; nothing was written")
            }
            StoreError::Unavailable(_) => {
                (Code::DatabaseUnavailable, "the database cannot be reached, or is not ready")
            }
            StoreError::ArchiveUnavailable(_) => {
                (Code::DatabaseUnavailable, "this lies in the archive, which cannot be read now")
            }
            StoreError::OutcomeUnknown => (
                Code::OutcomeUnknown,
                "the connection to the database broke before its answer came: repeat the request with the same event ids",
            ),
            StoreError::Internal(_) | StoreError::ArchiveDamaged(_) => {
                (Code::Internal, "an unexpected error; the log has it under this request's id")
            }
        };
        Problem::new(code, detail).because(error)
    }
}

/// The members that every problem has; some codes add more.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemSchema {
    /// `/problems/<code>`: a page that explains the code.
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// The id of the request, which is also in the log.
    instance: String,
    /// Stable, and one of a closed list.
    code: String,
    /// Where the request is wrong (`invalid_request`).
    errors: Option<Vec<FieldError>>,
    /// JSON pointer into the body (`invalid_event_data`).
    pointer: Option<String>,
    /// What the request expected (`version_conflict`).
    #[schema(value_type = Option<serde_json::Value>)]
    expected_version: Option<String>,
    /// Where the stream stands (`version_conflict`).
    current_version: Option<u64>,
    /// Where the projection stands (`position_conflict`, `position_regressed`).
    current_position: Option<u64>,
    /// Up to here the log is still the one that was read (`epoch_changed`).
    rewind_to: Option<u64>,
    /// The epoch of the log (`epoch_changed`).
    epoch: Option<u64>,
    /// Where the log stands (`position_beyond_head`, `replica_behind`).
    head: Option<u64>,
    /// Ids that were written before (`event_id_reused`, `event_partly_known`).
    known_event_ids: Option<Vec<String>>,
}
