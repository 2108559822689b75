//! Loads: an aggregate as its snapshot and the events after it, in one request.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use super::stream::not_found;
use crate::app::App;
use crate::domain::event::Position;
use crate::domain::name::{StreamId, check_name};
use crate::domain::version::Version;
use crate::http::conditional::{etag, not_modified};
use crate::http::min_position;
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::ReadProblems;
use crate::http::path::{PathParams, link, stream_path};
use crate::http::problem::{FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::Query;
use crate::http::representation::{LIMIT_MAX, PageEvents, Representation, link_to_next, next_member, without_body};
use crate::http::wire::{self, EventSchema};
use crate::store::read::Pace;
use crate::store::snapshots::{LoadHead, LoadRow, SnapshotUse};

/// Events of one load; the rest is read from the stream.
const EVENTS_MAX: usize = 10_000;

/// An aggregate, ready to be folded.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_load's output, for the OpenAPI document")]
pub struct Load {
    aggregate_type: String,
    aggregate_id: String,
    /// Where the stream stands.
    version: Version,
    /// Null if there is none that may be used.
    snapshot: Option<LoadedSnapshot>,
    /// Those after the snapshot, oldest first.
    events: Vec<EventSchema>,
    /// The rest of the events, in the stream; null at the end.
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

/// Load an aggregate
///
/// Its snapshot and the events after it, in one answer. A snapshot that does not fit is passed over: the result is the same
/// with it and without it. `HEAD` gives the version in `ETag`.
#[utoipa::path(get, path = "/aggregates/{aggregate_type}/{aggregate_id}", tag = "aggregates",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("snapshot" = Option<String>, Query, description = "`ignore`: all events, from the first"),
        ("revision" = Option<String>, Query, description = "Uses a snapshot only if its revision is this one"),
        ("min_position" = Option<u64>, Query, description = "Answers only once the log has this position, which it waits for up to a second"),
        ("If-None-Match" = Option<String>, Header, description = "The version that the client has: 304 if it is still that"),
    ),
    responses(
        (status = 200, description = "The snapshot and what came after it", body = Load),
        (status = 304, description = "The stream is still at this version"),
        (status = 404, description = "The stream does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn load(
    State(app): State<Arc<App>>,
    method: Method,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let stream = path.stream()?;
    let read = LoadRead::of(&uri)?;
    min_position::reached(&app, &app.reads, read.min_position).await?;
    let mut common = Representation::Page.headers();
    common.remove(header::VARY);
    if method == Method::HEAD || headers.contains_key(header::IF_NONE_MATCH) {
        let head = app.reads.stream_head(&stream).await?.ok_or_else(|| not_found(&stream))?;
        common.insert(header::ETAG, etag(head.version));
        if let Some(answer) = without_body(&method, not_modified(&headers, head.version)?, &common) {
            return Ok(answer);
        }
    }

    let started = Instant::now();
    let (page, head, next) = write_load(&app, &stream, read.may_use()).await?.ok_or_else(|| not_found(&stream))?;
    app.metrics.count_load(head.snapshot.is_some(), head.misfit, started.elapsed());
    let after = head.snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
    let events = usize::try_from(head.stream.version - after).unwrap_or(0);
    if !read.ignore_snapshot {
        app.snapshotter.loaded(&stream, events, head.misfit);
    }
    common.insert(header::ETAG, etag(head.stream.version));
    if let Some(next) = next {
        common.insert(header::LINK, link_to_next(&next));
    }
    Ok((common, page).into_response())
}

/// What a load asks for.
struct LoadRead {
    ignore_snapshot: bool,
    revision: Option<String>,
    min_position: Option<Position>,
}

impl LoadRead {
    fn of(uri: &Uri) -> Result<Self, Box<Problem>> {
        let mut query = Query::of(uri)?;
        let ignore_snapshot = match query.take("snapshot")?.as_deref() {
            None => false,
            Some("ignore") => true,
            Some(_) => return Err(Problem::invalid(FieldError::parameter("snapshot", "can only be ignore"))),
        };
        let revision = query.take("revision")?;
        if let Some(Err(fault)) = revision.as_deref().map(check_name) {
            return Err(Problem::invalid(FieldError::parameter("revision", fault.to_string())));
        }
        let min_position = min_position::take(&mut query)?;
        query.finish()?;
        Ok(Self { ignore_snapshot, revision, min_position })
    }

    fn may_use(&self) -> SnapshotUse<'_> {
        match &self.revision {
            _ if self.ignore_snapshot => SnapshotUse::None,
            Some(revision) => SnapshotUse::Revision(revision),
            None => SnapshotUse::Any,
        }
    }
}

/// The answer to a load, what it began with, and the link to the rest; `None` if there is no such stream.
async fn write_load(
    app: &App,
    stream: &StreamId,
    may_use: SnapshotUse<'_>,
) -> Result<Option<(Vec<u8>, LoadHead, Option<String>)>, Refusal> {
    // The page begins with the head, which is the first row.
    let mut page = None;
    let loaded = app.reads.load_aggregate(stream, may_use, Version::MAX, |row| match (row, &mut page) {
        (LoadRow::Head(head), page) => {
            let begun = page.insert(begin(stream, head));
            if begun.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        (LoadRow::Event(event), Some(page)) => page.take(event),
        (LoadRow::Event(_), None) => ControlFlow::Break(()),
    });
    let (Some((head, mut left)), Some(mut page)) = (loaded.await?, page) else { return Ok(None) };
    let mut pace = Pace::default();
    while !left.is_empty() && !page.is_full() && page.count() < EVENTS_MAX {
        let room = EVENTS_MAX - page.count();
        left = app.reads.read_stream(stream, &head.stream, left, room, &mut pace, |event| page.take(event)).await?;
    }
    let next = (!left.is_empty()).then(|| {
        let parameters = [("from_version", left.from.to_string()), ("limit", LIMIT_MAX.to_string())];
        link(&stream_path(stream), &parameters)
    });
    Ok(Some((page.finish(&next_member(next.as_deref())), head, next)))
}

/// A load up to its events.
fn begin(stream: &StreamId, head: &LoadHead) -> PageEvents {
    let mut out = Vec::new();
    wire::write_stream_head(&mut out, stream, head.stream.version);
    out.extend_from_slice(b",\"snapshot\":");
    match &head.snapshot {
        None => out.extend_from_slice(b"null"),
        Some(snapshot) => {
            out.extend_from_slice(format!("{{\"version\":{},\"state\":", snapshot.version).as_bytes());
            out.extend_from_slice(snapshot.state.as_bytes());
            out.extend_from_slice(format!(",\"created_at\":\"{}\"}}", wire::time(snapshot.created_at)).as_bytes());
        }
    }
    out.extend_from_slice(b",\"events\":");
    PageEvents::after(&out, Representation::Page)
}
