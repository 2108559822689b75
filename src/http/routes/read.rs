//! Reads of single events, and of the streams of a type.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::stream::not_found as stream_not_found;
use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::name::check_path_name;
use crate::domain::version::{VERSION_MAX, Version};
use crate::http::access::Caller;
use crate::http::conditional::NO_CACHE;
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::ReadProblems;
use crate::http::path::{PathParams, link, segment};
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::{Query, no_parameters};
use crate::http::representation::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::wire;
use crate::http::wire::EventSchema;
use crate::store::read::{Direction, Pace, VersionRange};

/// An event never changes, but it may be erased on purpose: a day, and only for the client that was allowed to read it.
const EVENT_CACHE: HeaderValue = HeaderValue::from_static("private, max-age=86400, immutable");

/// A page of the streams of a type.
#[derive(Serialize, ToSchema)]
pub struct StreamList {
    aggregate_type: String,
    streams: Vec<ListedStreamOut>,
    /// The rest; null at the end.
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct ListedStreamOut {
    aggregate_id: String,
    version: Version,
    #[schema(format = DateTime)]
    first_occurred_at: String,
    #[schema(format = DateTime)]
    last_occurred_at: String,
}

/// Read one event of a stream, by version
#[utoipa::path(get, path = "/streams/{aggregate_type}/{aggregate_id}/{version}", tag = "streams",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("version" = u64, Path, description = "1, 2, 3 …", minimum = 1),
    ),
    responses(
        (status = 200, description = "The event", body = EventSchema),
        (status = 404, description = "The stream, or this version of it, does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_version(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let stream = path.stream()?;
    let version = path_version(path.get("version")?)?;
    no_parameters(&uri)?;
    let head = app.store.stream_head(&stream).await?.ok_or_else(|| stream_not_found(&stream))?;
    let missing = || Problem::new(Code::EventNotFound, format!("the stream {stream} is at version {}", head.version));
    let version = Version::try_from(version).ok().filter(|version| *version <= head.version).ok_or_else(missing)?;
    let range = VersionRange { from: version, to: version, direction: Direction::Forward };
    let mut body = Vec::new();
    app.store
        .read_stream(&stream, &head, range, 1, &mut Pace::default(), |event| {
            wire::write_event(&mut body, event);
            ControlFlow::Continue(())
        })
        .await?;
    Ok(event_response(body))
}

/// Read one event, by its id
#[utoipa::path(get, path = "/events/{event_id}", tag = "streams",
    params(("event_id" = String, Path, description = "A UUID", format = Uuid)),
    responses(
        (status = 200, description = "The event", body = EventSchema),
        (status = 404, description = "No event has this id", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_event(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let event_id = Uuid::try_parse(path.get("event_id")?)
        .map_err(|_| Problem::invalid(FieldError::path("event_id", "must be a UUID")))?;
    no_parameters(&uri)?;
    let written = app.store.read_event(event_id, |event| {
        // Whoever may not read it is not told that it is there.
        caller.may(Scope::Read, event.aggregate_type).then(|| {
            let mut body = Vec::new();
            wire::write_event(&mut body, event);
            body
        })
    });
    let body = written
        .await?
        .flatten()
        .ok_or_else(|| Problem::new(Code::EventNotFound, format!("no event has the id {event_id}")))?;
    Ok(event_response(body))
}

/// List the streams of a type, in byte order of their ids
#[utoipa::path(get, path = "/streams/{aggregate_type}", tag = "streams",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("after" = Option<String>, Query, description = "Begins after this aggregate id"),
        ("limit" = Option<u64>, Query, description = "1 to 1000, 100 if absent", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page of streams; empty for a type that nobody has used", body = StreamList),
        ReadProblems,
    ))]
pub async fn list_streams(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let aggregate_type = path.name("aggregate_type")?;
    let mut query = Query::of(&uri)?;
    let after = query.take("after")?;
    if let Some(after) = &after {
        check_path_name(after).map_err(|fault| Problem::invalid(FieldError::parameter("after", fault.to_string())))?;
    }
    let limit = query.take_number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    query.finish()?;

    // One more than asked for tells whether there is a next page.
    let mut streams = app.store.list_streams(aggregate_type, after.as_deref().unwrap_or(""), limit + 1).await?;
    let more = streams.len() > limit;
    streams.truncate(limit);
    let next = streams.last().filter(|_| more).map(|last| {
        let parameters = [("after", last.aggregate_id.clone()), ("limit", limit.to_string())];
        link(&format!("/streams/{}", segment(aggregate_type)), &parameters)
    });
    let streams = streams
        .into_iter()
        .map(|listed| ListedStreamOut {
            aggregate_id: listed.aggregate_id,
            version: listed.head.version,
            first_occurred_at: wire::time(listed.head.first_occurred_at),
            last_occurred_at: wire::time(listed.head.last_occurred_at),
        })
        .collect();
    let list = StreamList { aggregate_type: aggregate_type.to_owned(), streams, next };
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], axum::Json(list)).into_response())
}

fn path_version(text: &str) -> Result<u64, Box<Problem>> {
    // One spelling a version: each is a URL that may be cached.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let version = text.parse().ok().filter(|version| digits && (1..=VERSION_MAX).contains(version));
    version.ok_or_else(|| Problem::invalid(FieldError::path("version", "must be a version: 1, 2, 3 …")))
}

fn event_response(body: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(JSON)), (header::CACHE_CONTROL, EVENT_CACHE)];
    (headers, body).into_response()
}
