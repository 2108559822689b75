//! `POST /appends`: append events to several streams in one atomic step.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde::de::{self, Deserializer, Unexpected, Visitor};
use utoipa::ToSchema;

use crate::app::App;
use crate::append::service::Submitted;
use crate::domain::access::Scope;
use crate::domain::append::{Append, AppendRequest, Outcome, REQUEST_STREAMS_MAX};
use crate::domain::name::StreamId;
use crate::domain::version::ExpectedVersion;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::append_headers::AppendHeaders;
use crate::http::extract::conditional::NoPreconditions;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::AppendParams;
use crate::http::openapi::request_bodies::AppendsSchema;
use crate::http::openapi::responses::{UnsupportedJson, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::appended::{Appended, Written, append_response, write_appended};
use crate::wire::object::objects;
use crate::wire::validation::{EventIn, EventValidator};

/// The smallest body.
const EXAMPLE: &str = concat!(
    r#"{"appends": [{"aggregate_type": "Order", "aggregate_id": "ord-1", "#,
    r#""events": [{"event_type": "OrderPlaced", "event_data": {"total": 42}}]}]}"#
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendsIn<'b> {
    #[serde(borrow, deserialize_with = "objects")]
    appends: Vec<AppendIn<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendIn<'b> {
    aggregate_type: String,
    aggregate_id: String,
    expected_version: Option<ExpectedIn>,
    #[serde(borrow, deserialize_with = "objects")]
    events: Vec<EventIn<'b>>,
}

/// The member `expected_version`: a version, `none` or `exists`.
struct ExpectedIn(ExpectedVersion);

impl<'de> Deserialize<'de> for ExpectedIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExpectedVisitor).map(Self)
    }
}

struct ExpectedVisitor;

impl Visitor<'_> for ExpectedVisitor {
    type Value = ExpectedVersion;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a version (0 or more), \"none\" or \"exists\"")
    }

    fn visit_u64<E: de::Error>(self, version: u64) -> Result<ExpectedVersion, E> {
        Ok(ExpectedVersion::Exact(version))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<ExpectedVersion, E> {
        match word {
            "none" => Ok(ExpectedVersion::None),
            "exists" => Ok(ExpectedVersion::Exists),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }
}

/// The result of an append to several streams.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of the response, for the OpenAPI document")]
#[schema(as = MultiAppendResult)]
pub struct AllAppended {
    appends: Vec<Appended>,
}

/// Append events to several streams in one atomic step
///
/// At most 100 streams, each once, and 1,000 events in all. If one precondition fails, nothing is written.
#[utoipa::path(post, path = "/appends", operation_id = "append_to_streams", tag = "streams",
    params(AppendParams),
    request_body(content = AppendsSchema, content_type = "application/json"),
    responses(
        (status = 201, description = "Written and durable", body = AllAppended),
        (status = 200, description = "All events were written before (`Idempotent-Replayed: true`)",
            body = AllAppended),
        (status = 409, description = "A stream is at another version (`conflicts`), or an event id is known already",
            body = ProblemSchema, content_type = "application/problem+json"),
        UnsupportedJson,
        WriteProblems,
    ))]
pub async fn append_to_streams(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: JsonRequest<(NoQuery, NoPreconditions, AppendHeaders)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (NoQuery, NoPreconditions, headers), body } = request;
    let request = Arc::new(validate(&app, body.parse(EXAMPLE)?, &headers)?);
    request.appends.iter().try_for_each(|append| caller.check(Scope::Append, append.stream.aggregate_type()))?;
    caller.count_events(request.event_count())?;

    let Submitted { outcome, snapshot_due } = app.append().submit(&request).await?;
    let (written, places) = match outcome {
        Outcome::Written(places) => (Written::Now, places),
        Outcome::Replayed(places) => (Written::Before, places),
        Outcome::VersionConflict(current) => return Err(ApiError::version_conflicts(&request, &current)),
        Outcome::EventIdReused(known) => {
            let known = caller.may_read_all().then_some(known.as_slice());
            return Err(ApiError::event_id_reused(&request, known));
        }
        Outcome::EventPartlyKnown(known) => {
            let known = caller.may_read_streams(&request).then_some(known.as_slice());
            return Err(ApiError::event_partly_known(&request, known));
        }
    };
    let mut body = Vec::from(b"{\"appends\":[");
    for (n, (append, recorded)) in request.appends.iter().zip(&places.appends).enumerate() {
        if n > 0 {
            body.push(b',');
        }
        write_appended(&mut body, append, places.epoch, recorded, snapshot_due.get(n).copied().unwrap_or(false));
    }
    body.extend_from_slice(b"]}");
    Ok(append_response(written, body))
}

/// Validates the appends of a request: first everything but the documents (400), then the documents (422).
fn validate(app: &App, sent: AppendsIn<'_>, headers: &AppendHeaders) -> ApiResult<AppendRequest> {
    let invalid = |pointer: String, detail: String| ApiError::invalid(FieldError::pointer(pointer, detail));
    if sent.appends.is_empty() || sent.appends.len() > REQUEST_STREAMS_MAX {
        let detail = format!("must have 1 to {REQUEST_STREAMS_MAX} streams");
        return Err(invalid("/appends".to_owned(), detail));
    }
    let mut validator = EventValidator::new(app.settings.max_body_bytes);
    let mut streams = HashSet::new();
    let mut appends = Vec::with_capacity(sent.appends.len());
    let mut payloads = Vec::with_capacity(sent.appends.len());
    for (index, append) in sent.appends.into_iter().enumerate() {
        let pointer = format!("/appends/{index}");
        let stream = StreamId::parse_writable(append.aggregate_type, append.aggregate_id)
            .map_err(|fault| invalid(format!("{pointer}/{}", fault.field), fault.fault.to_string()))?;
        if !streams.insert(stream.clone()) {
            let detail = "the stream occurs twice in the request: send all of its events in one append";
            return Err(invalid(pointer, detail.to_owned()));
        }
        let new_id = |index| headers.event_id(app, &stream, index);
        let pointer = format!("{pointer}/events");
        let events = validator.validate(&pointer, &append.events, headers.default_ids, new_id)?;
        payloads.push(append.events);
        appends.push(Append {
            stream,
            expected: append.expected_version.map_or(ExpectedVersion::Any, |ExpectedIn(version)| version),
            events,
        });
    }
    for (index, events) in payloads.iter().enumerate() {
        validator.validate_payloads(&format!("/appends/{index}/events"), events)?;
    }
    Ok(AppendRequest { appends })
}
