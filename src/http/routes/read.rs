//! Reads: a stream, one event, the streams of a type.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::{StreamId, check_path_name};
use crate::domain::version::Version;
use crate::http::conditional::{NO_CACHE, etag, not_modified};
use crate::http::middleware::RequestId;
use crate::http::negotiate::{self, JSON, NDJSON};
use crate::http::openapi::ReadProblems;
use crate::http::path::{PathParams, link, segment, stream_path};
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::{Query, no_parameters};
use crate::http::wire;
use crate::http::wire::EventSchema;
use crate::store::read::{Direction, Pace, StreamHead, VersionRange};

/// Events of a page, and streams of a listing.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// A page ends here even if `limit` is not reached.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// NDJSON is sent in pieces of about this size, so that memory stays the same for a stream of any length.
const PIECE_BYTES: usize = 256 * 1024;
const VERSION_MAX: u64 = EXACT_INTEGER_MAX.unsigned_abs();

/// An event never changes, but it may be erased on purpose: a day, and only for the client that was allowed to read it.
const EVENT_CACHE: HeaderValue = HeaderValue::from_static("private, max-age=86400, immutable");

/// A page of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_page's output, for the OpenAPI document")]
pub struct StreamPage {
    aggregate_type: String,
    aggregate_id: String,
    /// Where the stream stands.
    version: Version,
    events: Vec<EventSchema>,
    /// The rest; null at the end.
    next: Option<String>,
}

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

/// Read a stream
///
/// As a page (`application/json`), or all of it line by line (`application/x-ndjson`) with an end line: a client that
/// sees no end line has not got everything. `HEAD` gives the version in `ETag`.
#[utoipa::path(get, path = "/streams/{aggregate_type}/{aggregate_id}", tag = "streams",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("from_version" = Option<u64>, Query, description = "Lowest version to read, in both directions", minimum = 1),
        ("to_version" = Option<u64>, Query, description = "Highest version to read; backward begins there, or at the head", minimum = 1),
        ("limit" = Option<u64>, Query, description = "1 to 1000, 100 if absent; for NDJSON any, all if absent", minimum = 1),
        ("direction" = Option<String>, Query, description = "`forward` or `backward`"),
        ("If-None-Match" = Option<String>, Header, description = "The version that the client has: 304 if it is still that"),
    ),
    responses(
        (status = 200, description = "A page, or the lines", content(
            (StreamPage = "application/json"), (String = "application/x-ndjson"))),
        (status = 304, description = "The stream is still at this version"),
        (status = 404, description = "The stream does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_stream(
    State(app): State<Arc<App>>,
    method: Method,
    Extension(request_id): Extension<RequestId>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let media_type = negotiate::accepted(&headers, &[JSON, NDJSON])?;
    let stream = path.stream()?;
    let read = StreamRead::of(&uri, media_type)?;
    let head = app.store.stream_head(&stream).await?.ok_or_else(|| stream_not_found(&stream))?;

    let common = [
        (header::ETAG, etag(head.version)),
        (header::CACHE_CONTROL, NO_CACHE),
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    if not_modified(&headers, head.version)? {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(media_type))];
    if method == Method::HEAD {
        // A body of unknown length: no Content-Length may say that the page is empty (RFC 9110 section 8.6).
        let no_body = Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
        return Ok((common, content_type, no_body).into_response());
    }
    if media_type == NDJSON {
        let limit = read.limit.unwrap_or(usize::MAX);
        let lines = Lines { app, stream, head, left: read.range(), limit, pace: Pace::default(), count: 0, request_id };
        return Ok((common, content_type, lines.into_body()).into_response());
    }
    let (page, next) = write_page(&app, &stream, &head, &read).await?;
    let mut response = (common, content_type, page).into_response();
    if let Some(next) = next {
        let value = HeaderValue::try_from(format!("<{next}>; rel=\"next\""))
            .map_err(|_| Problem::new(Code::Internal, "a link is no header value"))?;
        response.headers_mut().insert(header::LINK, value);
    }
    Ok(response)
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
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let event_id = Uuid::try_parse(path.get("event_id")?)
        .map_err(|_| Problem::invalid(FieldError::path("event_id", "must be a UUID")))?;
    no_parameters(&uri)?;
    let written = app.store.read_event(event_id, |event| {
        let mut body = Vec::new();
        wire::write_event(&mut body, event);
        body
    });
    let body =
        written.await?.ok_or_else(|| Problem::new(Code::EventNotFound, format!("no event has the id {event_id}")))?;
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
        let parameters = [("after", Some(last.aggregate_id.clone())), ("limit", Some(limit.to_string()))];
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

/// What a read of a stream asks for.
struct StreamRead {
    from_version: Option<u64>,
    to_version: Option<u64>,
    limit: Option<usize>,
    direction: Direction,
}

impl StreamRead {
    fn of(uri: &Uri, media_type: &str) -> Result<Self, Box<Problem>> {
        let mut query = Query::of(uri)?;
        let from_version = query.take_number("from_version", 1, VERSION_MAX)?;
        let to_version = query.take_number("to_version", 1, VERSION_MAX)?;
        let limit_max = if media_type == NDJSON { usize::MAX } else { LIMIT_MAX };
        let limit = query.take_number("limit", 1, limit_max)?;
        let direction = match query.take("direction")?.as_deref() {
            None | Some("forward") => Direction::Forward,
            Some("backward") => Direction::Backward,
            Some(_) => return Err(Problem::invalid(FieldError::parameter("direction", "must be forward or backward"))),
        };
        query.finish()?;
        if let (Some(from), Some(to)) = (from_version, to_version)
            && from > to
        {
            let detail = format!("is above to_version ({from} > {to}): it is the lower bound in both directions");
            return Err(Problem::invalid(FieldError::parameter("from_version", detail)));
        }
        Ok(Self { from_version, to_version, limit, direction })
    }

    /// The bounds as versions; those beyond what a stream can reach read nothing.
    fn range(&self) -> VersionRange {
        let version = |version: u64| Version::try_from(version).unwrap_or(Version::MAX);
        VersionRange {
            from: version(self.from_version.unwrap_or(1)),
            to: version(self.to_version.unwrap_or(VERSION_MAX)),
            direction: self.direction,
        }
    }

    /// The link to what is left.
    fn next(&self, stream: &StreamId, left: VersionRange) -> String {
        let direction = match self.direction {
            Direction::Forward => None,
            Direction::Backward => Some("backward".to_owned()),
        };
        let (from_version, to_version) = match self.direction {
            Direction::Forward => (Some(u64::try_from(left.from).unwrap_or(1)), self.to_version),
            Direction::Backward => (self.from_version, Some(u64::try_from(left.to).unwrap_or(1))),
        };
        link(
            &stream_path(stream),
            &[
                ("from_version", from_version.map(|version| version.to_string())),
                ("to_version", to_version.map(|version| version.to_string())),
                ("limit", self.limit.map(|limit| limit.to_string())),
                ("direction", direction),
            ],
        )
    }
}

/// A page as JSON, and the link to the next one.
async fn write_page(
    app: &App,
    stream: &StreamId,
    head: &StreamHead,
    read: &StreamRead,
) -> Result<(Vec<u8>, Option<String>), Refusal> {
    let mut page = Vec::with_capacity(4 * 1024);
    page.extend_from_slice(b"{\"aggregate_type\":");
    wire::write_string(&mut page, stream.aggregate_type());
    page.extend_from_slice(b",\"aggregate_id\":");
    wire::write_string(&mut page, stream.aggregate_id());
    page.extend_from_slice(format!(",\"version\":{},\"events\":[", head.version).as_bytes());
    let mut first = true;
    let left = app
        .store
        .read_stream(stream, head, read.range(), read.limit.unwrap_or(LIMIT_DEFAULT), &mut Pace::default(), |event| {
            if !first {
                page.push(b',');
            }
            first = false;
            wire::write_event(&mut page, event);
            if page.len() < PAGE_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
    let next = (!left.is_empty()).then(|| read.next(stream, left));
    page.extend_from_slice(b"],\"next\":");
    match &next {
        Some(next) => wire::write_string(&mut page, next),
        None => page.extend_from_slice(b"null"),
    }
    page.push(b'}');
    Ok((page, next))
}

/// A stream as lines: read and sent piece by piece.
struct Lines {
    app: Arc<App>,
    stream: StreamId,
    head: StreamHead,
    left: VersionRange,
    limit: usize,
    pace: Pace,
    count: usize,
    request_id: RequestId,
}

impl Lines {
    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), |lines| async {
            let mut lines = lines?;
            match lines.piece().await {
                Ok((piece, true)) => Some((Ok::<_, Infallible>(piece), None)),
                Ok((piece, false)) => Some((Ok(piece), Some(lines))),
                Err(problem) => Some((Ok(broken_off(&problem, &lines.request_id)), None)),
            }
        }))
    }

    /// The next lines, and whether they are the last: then with the end line.
    async fn piece(&mut self) -> Result<(Bytes, bool), Box<Problem>> {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let before = self.count;
        let limit = self.limit - self.count;
        let read = self.app.store.read_stream(&self.stream, &self.head, self.left, limit, &mut self.pace, |event| {
            wire::write_event(&mut piece, event);
            piece.push(b'\n');
            self.count += 1;
            if piece.len() < PIECE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.left = read.await?;
        debug_assert!(self.count > before || self.left.is_empty());
        let last = self.left.is_empty() || self.count >= self.limit;
        if last {
            let end = format!("{{\"end\":{{\"count\":{},\"version\":{}}}}}\n", self.count, self.head.version);
            piece.extend_from_slice(end.as_bytes());
        }
        Ok((piece.into(), last))
    }
}

/// The line that says that what was sent is not everything.
fn broken_off(problem: &Problem, request_id: &RequestId) -> Bytes {
    let mut line = b"{\"error\":".to_vec();
    line.extend_from_slice(&problem.body(&request_id.0));
    line.extend_from_slice(b"}\n");
    line.into()
}

fn path_version(text: &str) -> Result<u64, Box<Problem>> {
    // One spelling a version: each is a URL that may be cached.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    let version = text.parse().ok().filter(|version| digits && (1..=VERSION_MAX).contains(version));
    version.ok_or_else(|| Problem::invalid(FieldError::path("version", "must be a version: 1, 2, 3 …")))
}

fn stream_not_found(stream: &StreamId) -> Box<Problem> {
    Problem::new(Code::StreamNotFound, format!("the stream {stream} has no event"))
}

fn event_response(body: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(JSON)), (header::CACHE_CONTROL, EVENT_CACHE)];
    (headers, body).into_response()
}
