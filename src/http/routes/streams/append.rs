//! `POST /streams/{aggregate_type}/{aggregate_id}`: append events to a stream.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::app::App;
use crate::append::service::Submitted;
use crate::domain::access::Scope;
use crate::domain::append::{Append, AppendRequest, Outcome};
use crate::domain::event::StoredEvent;
use crate::domain::version::Version;
use crate::http::base_path;
use crate::http::cache::etag;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::append_headers::AppendHeaders;
use crate::http::extract::conditional::Precondition;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::path::WritableStreamPath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::{AppendParams, StreamParams};
use crate::http::openapi::request_bodies::StreamAppendSchema;
use crate::http::openapi::responses::{UnsupportedJson, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::appended::{Appended, Written, append_response, incomplete_result, write_appended};
use crate::store::fetch_size::FetchSize;
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;
use crate::wire::event::write_event;
use crate::wire::object::objects;
use crate::wire::path::stream_path;
use crate::wire::validation::{EventIn, EventValidator};

/// The largest number of missed events that a conflict returns, and their approximate largest size.
const MISSED_EVENTS_MAX: usize = 100;
const MISSED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The smallest body.
const EXAMPLE: &str = r#"{"events": [{"event_type": "OrderPlaced", "event_data": {"total": 42}}]}"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamAppendIn<'b> {
    #[serde(borrow, deserialize_with = "objects")]
    events: Vec<EventIn<'b>>,
}

type Request = JsonRequest<(NoQuery, WritableStreamPath, Precondition, AppendHeaders)>;

/// Append events to a stream
///
/// Either all events are written or none. The expected version is a precondition: `If-Match: "41"`, `If-None-Match: *`
/// (the stream does not exist), `If-Match: *` (the stream exists), or none. A request with the same event ids, or with
/// the same `Idempotency-Key`, can be repeated safely: it returns the first result, with status 200.
#[utoipa::path(post, path = "/streams/{aggregate_type}/{aggregate_id}", operation_id = "append_to_stream",
    tag = "streams",
    params(
        StreamParams,
        ("If-Match" = Option<String>, Header,
            description = "The expected version, `\"41\"`, or `*`: the stream exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the stream does not exist"),
        AppendParams,
        ("Prefer" = Option<String>, Header,
            description = "`return=representation`: a conflict returns the missed events"),
    ),
    request_body(content = StreamAppendSchema, content_type = "application/json"),
    responses(
        (status = 201, description = "Written and durable", body = Appended),
        (status = 200, description = "All events were written before (`Idempotent-Replayed: true`)", body = Appended),
        (status = 409, description = "An event id is known already", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 412, description = "The stream is at another version", body = ProblemSchema,
            content_type = "application/problem+json"),
        UnsupportedJson,
        WriteProblems,
    ))]
pub async fn append_to_stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: Request,
) -> ApiResult<Response> {
    let JsonRequest { parts: (NoQuery, WritableStreamPath(stream), Precondition(expected), headers), body } = request;
    let sent: StreamAppendIn<'_> = body.parse(EXAMPLE)?;
    let mut validator = EventValidator::new(app.settings.max_body_bytes);
    let new_id = |index| headers.event_id(&app, &stream, index);
    let events = validator.validate("/events", &sent.events, headers.default_ids, new_id)?;
    validator.validate_payloads("/events", &sent.events)?;
    caller.count_events(events.len())?;
    let request = Arc::new(AppendRequest { appends: vec![Append { stream, expected, events }] });

    let Submitted { outcome, snapshot_due } = app.append().submit(&request).await?;
    let append = request.appends.first().ok_or_else(incomplete_result)?;
    let (written, places) = match outcome {
        Outcome::Written(places) => (Written::Now, places),
        Outcome::Replayed(places) => (Written::Before, places),
        Outcome::VersionConflict(current) => {
            let current = current.first().copied().ok_or_else(incomplete_result)?;
            let conflict = ApiError::version_conflict(append, current);
            // A caller that may only append gets the current version, and no events.
            if headers.prefers_missed_events && caller.may(Scope::Read, append.stream.aggregate_type()) {
                // In a box: otherwise the future of every append would have the size of this read.
                return Err(Box::pin(add_missed_events(conflict, &app, append, current)).await?);
            }
            return Err(conflict);
        }
        Outcome::EventIdReused(known) => {
            let known = caller.may_read_all().then_some(known.as_slice());
            return Err(ApiError::event_id_reused(&request, known));
        }
        Outcome::EventPartlyKnown(known) => {
            let known = caller.may_read_streams(&request).then_some(known.as_slice());
            return Err(ApiError::event_partly_known(&request, known));
        }
    };

    let recorded = places.appends.first().ok_or_else(incomplete_result)?;
    let (first, last) = recorded.first().zip(recorded.last()).ok_or_else(incomplete_result)?;
    let mut body = Vec::with_capacity(512);
    write_appended(&mut body, append, places.epoch, recorded, snapshot_due.first().copied().unwrap_or(false));
    let mut response = append_response(written, body);
    let stream = stream_path(append.stream.aggregate_type(), append.stream.aggregate_id());
    let location = HeaderValue::try_from(format!("{}{stream}/{}", base_path::current(), first.version))
        .map_err(ApiError::internal)?;
    response.headers_mut().insert(header::ETAG, etag(last.version));
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Adds the events after the expected version to a conflict, up to the version that the stream had.
async fn add_missed_events(conflict: ApiError, app: &App, append: &Append, current: Version) -> ApiResult<ApiError> {
    let (events, is_truncated) = missed_events(app, append, current).await?;
    Ok(conflict
        .with_raw("missed_events", events)
        .with("missed_events_truncated", &is_truncated)
        .with_header(HeaderName::from_static("preference-applied"), HeaderValue::from_static("return=representation")))
}

/// Returns the missed events as a JSON list, and whether there are more.
async fn missed_events(app: &App, append: &Append, current: Version) -> ApiResult<(Box<RawValue>, bool)> {
    let mut list = vec![b'['];
    let mut is_truncated = false;
    if let Some(range) = missed_versions(append, current)
        && let Some(head) = app.primary.stream_head(&append.stream).await?
    {
        let read = StreamRead { stream: &append.stream, head: &head, range, limit: MISSED_EVENTS_MAX };
        let push = |event: &StoredEvent<'_>| {
            if list.len() > 1 {
                list.push(b',');
            }
            write_event(&mut list, event);
            if list.len() < MISSED_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        is_truncated = !app.primary.read_stream(read, &mut FetchSize::default(), push).await?.is_empty();
    }
    list.push(b']');
    let list = String::from_utf8(list).map_err(ApiError::internal)?;
    Ok((RawValue::from_string(list).map_err(ApiError::internal)?, is_truncated))
}

/// Returns the versions after the expected one; `None` if the stream has none.
fn missed_versions(append: &Append, current: Version) -> Option<VersionRange> {
    let expected = Version::try_from(append.expected.missed_after()).ok()?;
    Some(VersionRange::forward(expected.saturating_add(1), current)).filter(|range| !range.is_empty())
}
