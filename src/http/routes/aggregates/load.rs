//! `GET /aggregates/{aggregate_type}/{aggregate_id}`: load an aggregate, with its snapshot and the events after it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::cursor::Cursor;
use crate::domain::name::{StreamId, check_name};
use crate::domain::version::Version;
use crate::http::base_path::link;
use crate::http::cache::etag;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::conditional::IfNoneMatch;
use crate::http::extract::min_position::take_min_position;
use crate::http::extract::path::StreamPath;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::parameters::{IfNoneMatchParams, MinPositionParams, StreamParams};
use crate::http::openapi::responses::{ReadProblems, StreamNotFound};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::format::{LIMIT_MAX, Representation};
use crate::http::representation::page::{PageEvents, link_to_next, next_member};
use crate::http::representation::response::without_body;
use crate::store::fetch_size::FetchSize;
use crate::store::required_position::RequiredPosition;
use crate::store::streams::events::StreamRead;
use crate::store::streams::load::{LoadHead, LoadRow, SnapshotUse};
use crate::wire::event::{EventSchema, write_stream_head};
use crate::wire::path::stream_path;
use crate::wire::time::format_time;

/// The largest number of events in a load. A client reads the rest from the stream.
const EVENTS_MAX: usize = 10_000;

/// An aggregate: a state to begin with, and events to apply.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_load's output, for the OpenAPI document")]
pub struct Load {
    aggregate_type: String,
    aggregate_id: String,
    /// The head of the stream.
    version: Version,
    /// Null if no snapshot can be used.
    snapshot: Option<LoadedSnapshot>,
    /// The events after the snapshot, oldest first.
    events: Vec<EventSchema>,
    /// The path of the rest of the events, in the stream; null at the end.
    next: Option<String>,
}

/// The state to begin with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_load's output, for the OpenAPI document")]
pub struct LoadedSnapshot {
    version: Version,
    state: serde_json::Value,
    #[schema(format = DateTime)]
    created_at: String,
}

/// The query parameters.
pub struct LoadParameters {
    ignores_snapshot: bool,
    revision: Option<String>,
    min_position: Option<Cursor>,
}

impl FromQuery for LoadParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let ignores_snapshot = match query.take("snapshot")?.as_deref() {
            None => false,
            Some("ignore") => true,
            Some(_) => {
                return Err(ApiError::invalid(FieldError::parameter(
                    "snapshot",
                    "must be absent, or have the value ignore",
                )));
            }
        };
        let revision = query.take("revision")?;
        if let Some(Err(fault)) = revision.as_deref().map(check_name) {
            return Err(ApiError::invalid(FieldError::parameter("revision", fault.to_string())));
        }
        let min_position = take_min_position(&mut query)?;
        query.finish()?;
        Ok(Self { ignores_snapshot, revision, min_position })
    }
}

impl LoadParameters {
    fn snapshot_use(&self) -> SnapshotUse<'_> {
        match &self.revision {
            _ if self.ignores_snapshot => SnapshotUse::None,
            Some(revision) => SnapshotUse::Revision(revision),
            None => SnapshotUse::Any,
        }
    }
}

/// Load an aggregate
///
/// Returns the snapshot and the events after it. A snapshot that is not usable is ignored: the aggregate is the same
/// with and without it. `HEAD` returns the version in `ETag`.
#[utoipa::path(get, path = "/aggregates/{aggregate_type}/{aggregate_id}", operation_id = "load_aggregate",
    tag = "aggregates",
    params(
        StreamParams,
        ("snapshot" = Option<String>, Query, description = "`ignore`: returns all events, from the first"),
        ("revision" = Option<String>, Query, description = "Uses a snapshot only if it has this revision"),
        MinPositionParams,
        IfNoneMatchParams,
    ),
    responses(
        (status = 200, description = "The snapshot, and the events after it", body = Load),
        (status = 304, description = "The stream is still at this version"),
        (status = 409, description = "`min_position` was lost in a failover or a restore", body = ProblemSchema,
            content_type = "application/problem+json"),
        StreamNotFound,
        ReadProblems,
    ))]
pub async fn load_aggregate(
    State(app): State<Arc<App>>,
    method: Method,
    _: AcceptsJson,
    StreamPath(stream): StreamPath,
    Parameters(parameters): Parameters<LoadParameters>,
    if_none_match: IfNoneMatch,
) -> ApiResult<Response> {
    let load = respond(&app, &method, &stream, &parameters, &if_none_match);
    RequiredPosition::scope(parameters.min_position, load).await
}

async fn respond(
    app: &Arc<App>,
    method: &Method,
    stream: &StreamId,
    parameters: &LoadParameters,
    if_none_match: &IfNoneMatch,
) -> ApiResult<Response> {
    let not_found = || ApiError::stream_not_found(stream);
    let mut headers = Representation::Page.headers();
    headers.remove(header::VARY);
    if *method == Method::HEAD || if_none_match.is_present() {
        let head = app.reader().stream_head(stream).await?.ok_or_else(not_found)?;
        headers.insert(header::ETAG, etag(head.version));
        if let Some(response) = without_body(method, if_none_match.matches(head.version)?, &headers) {
            return Ok(response);
        }
    }

    let started = Instant::now();
    let LoadedPage { page, head, next } =
        write_load(app, stream, parameters.snapshot_use()).await?.ok_or_else(not_found)?;
    app.metrics.count_load(head.snapshot.is_some(), head.unusable_snapshot, started.elapsed());
    let snapshot_version = head.snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
    let events = usize::try_from(head.stream.version - snapshot_version).unwrap_or(0);
    if !parameters.ignores_snapshot {
        app.snapshotter.on_load(stream, events, head.unusable_snapshot);
    }
    headers.insert(header::ETAG, etag(head.stream.version));
    if let Some(next) = next {
        headers.insert(header::LINK, link_to_next(&next));
    }
    Ok((headers, page).into_response())
}

struct LoadedPage {
    page: Vec<u8>,
    head: LoadHead,
    /// The link to the rest of the events.
    next: Option<String>,
}

/// Writes a load; `None` if the stream does not exist.
async fn write_load(app: &App, stream: &StreamId, snapshot_use: SnapshotUse<'_>) -> ApiResult<Option<LoadedPage>> {
    // The page begins with the head, which is the first row.
    let mut page = None;
    let reader = app.reader();
    let loaded = reader.load_aggregate(stream, snapshot_use, Version::MAX, |row| match (row, &mut page) {
        (LoadRow::Head(head), page) => {
            let page = page.insert(begin_page(stream, head));
            if page.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        (LoadRow::Event(event), Some(page)) => page.push(event),
        (LoadRow::Event(_), None) => ControlFlow::Break(()),
    });
    let (Some((head, mut left)), Some(mut page)) = (loaded.await?, page) else { return Ok(None) };
    let mut fetch_size = FetchSize::default();
    while !left.is_empty() && !page.is_full() && page.count() < EVENTS_MAX {
        let read = StreamRead { stream, head: &head.stream, range: left, limit: EVENTS_MAX - page.count() };
        left = reader.read_stream(read, &mut fetch_size, |event| page.push(event)).await?;
    }
    let next = (!left.is_empty()).then(|| {
        let parameters = [("from_version", left.from.to_string()), ("limit", LIMIT_MAX.to_string())];
        link(&stream_path(stream.aggregate_type(), stream.aggregate_id()), &parameters)
    });
    Ok(Some(LoadedPage { page: page.finish(&next_member(next.as_deref())), head, next }))
}

/// Writes the members of a load that precede its events.
fn begin_page(stream: &StreamId, head: &LoadHead) -> PageEvents {
    let mut first_members = Vec::new();
    write_stream_head(&mut first_members, stream, head.stream.version);
    first_members.extend_from_slice(b",\"snapshot\":");
    match &head.snapshot {
        None => first_members.extend_from_slice(b"null"),
        Some(snapshot) => {
            first_members.extend_from_slice(format!("{{\"version\":{},\"state\":", snapshot.version).as_bytes());
            first_members.extend_from_slice(snapshot.state.as_bytes());
            let created_at = format_time(snapshot.created_at);
            first_members.extend_from_slice(format!(",\"created_at\":\"{created_at}\"}}").as_bytes());
        }
    }
    first_members.extend_from_slice(b",\"events\":");
    PageEvents::new(&first_members, Representation::Page)
}
