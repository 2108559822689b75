//! Reads of one stream: as a page, as lines, as an event stream, as CloudEvents.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::{VERSION_MAX, Version};
use crate::http::conditional::{etag, not_modified};
use crate::http::headers::single;
use crate::http::middleware::RequestId;
use crate::http::min_position;
use crate::http::openapi::ReadProblems;
use crate::http::path::{PathParams, link, stream_path};
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::Query;
use crate::http::representation::{
    LIMIT_DEFAULT, LineSource, PageEvents, Piece, Representation, lines, link_to_next, next_member, refuse,
    without_body,
};
use crate::http::sse::{Ids, event_stream};
use crate::http::wire;
use crate::http::wire::{CloudEventSchema, EventSchema};
use crate::store::error::StoreError;
use crate::store::read::{Direction, Pace, StreamHead, VersionRange};
use crate::subscriptions::Origin;

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

/// Read a stream
///
/// As a page (`application/json`), or all of it line by line (`application/x-ndjson`) with an end line: a client that
/// sees no end line has not got everything. As `text/event-stream` it goes on with what is appended, and resumes after
/// `Last-Event-ID`, a version. `HEAD` gives the version in `ETag`.
#[utoipa::path(get, path = "/streams/{aggregate_type}/{aggregate_id}", tag = "streams",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("from_version" = Option<u64>, Query, description = "Lowest version to read, in both directions", minimum = 1),
        ("to_version" = Option<u64>, Query, description = "Highest version to read; backward begins there, or at the head. Not for an event stream", minimum = 1),
        ("limit" = Option<u64>, Query, description = "1 to 1000, 100 if absent; for NDJSON any, all if absent. Not for an event stream", minimum = 1),
        ("direction" = Option<String>, Query, description = "`forward` or `backward`; an event stream goes forward"),
        ("min_position" = Option<u64>, Query, description = "Answers only once the log has this position, which it waits for up to a second"),
        ("If-None-Match" = Option<String>, Header, description = "The version that the client has: 304 if it is still that"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last version that an event stream has brought: it goes on after it"),
    ),
    responses(
        (status = 200, description = "A page, the lines, or the event stream", content(
            (StreamPage = "application/json"), (String = "application/x-ndjson"), (String = "text/event-stream"),
            (Vec<CloudEventSchema> = "application/cloudevents-batch+json"))),
        (status = 304, description = "The stream is still at this version"),
        (status = 404, description = "The stream does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "`Last-Event-ID` is a version that the stream has not reached: go on from `rewind_to`", body = ProblemSchema, content_type = "application/problem+json"),
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
    let representation = Representation::of(&headers)?;
    let stream = path.stream()?;
    let read = StreamRead::of(&uri, &headers, representation)?;
    let following = representation == Representation::EventStream;
    let unchanged = |version| if following { Ok(false) } else { not_modified(&headers, version) };
    min_position::reached(&app, &app.store, read.min_position).await?;
    // The log's head first: whoever follows has caught up when everything up to it was read.
    let log_head = if following { Some(app.store.log_head().await?) } else { None };
    let head = app.store.stream_head(&stream).await?.ok_or_else(|| not_found(&stream))?;
    if let Some(last) = read.last_version.filter(|last| *last > u64::try_from(head.version).unwrap_or(0)) {
        // It has seen what is not there: the end of the stream was lost.
        let detail = format!("the stream is at version {}, and version {last} was seen before", head.version);
        return Err(Problem::new(Code::EpochChanged, detail).with("rewind_to", &head.version).into());
    }

    let mut common = representation.headers();
    common.insert(header::ETAG, etag(head.version));
    if let Some(answer) = without_body(&method, unchanged(head.version)?, &common) {
        return Ok(answer);
    }
    let limit = read.limit;
    if let Some(log_head) = log_head {
        // Its versions are its ids; a tag would only tell where it began.
        common.remove(header::ETAG);
        let from = read.range().from;
        let subscription = app.feed.subscribe(Origin::Stream { stream, from }, &log_head)?;
        let ids = Ids::Versions(from - 1);
        let body = event_stream(subscription, *app.feed.limits(), ids, 0, &log_head);
        return Ok((common, body).into_response());
    }
    if representation == Representation::Lines {
        let source = StreamLines { left: read.range(), app, stream, head, pace: Pace::default() };
        return Ok((common, lines(source, limit.unwrap_or(usize::MAX), request_id)).into_response());
    }
    let (page, next) = write_page(&app, &stream, &head, &read, representation).await?;
    if let Some(next) = next {
        common.insert(header::LINK, link_to_next(&next));
    }
    Ok((common, page).into_response())
}

pub fn not_found(stream: &StreamId) -> Box<Problem> {
    Problem::new(Code::StreamNotFound, format!("the stream {stream} has no event"))
}

/// What a read of a stream asks for.
struct StreamRead {
    from_version: Option<u64>,
    to_version: Option<u64>,
    limit: Option<usize>,
    direction: Direction,
    min_position: Option<Position>,
    /// The last version that an event stream has brought.
    last_version: Option<u64>,
}

impl StreamRead {
    fn of(uri: &Uri, headers: &HeaderMap, representation: Representation) -> Result<Self, Box<Problem>> {
        let mut query = Query::of(uri)?;
        let following = representation == Representation::EventStream;
        if following {
            refuse(&mut query, &["to_version"], "is not for an event stream, which has no end")?;
        }
        let mut from_version = query.take_number("from_version", 1, VERSION_MAX)?;
        let to_version = query.take_number("to_version", 1, VERSION_MAX)?;
        let limit = representation.take_limit(&mut query)?;
        let direction = match query.take("direction")?.as_deref() {
            None | Some("forward") => Direction::Forward,
            Some("backward") if following => {
                return Err(Problem::invalid(FieldError::parameter("direction", "of an event stream is forward")));
            }
            Some("backward") => Direction::Backward,
            Some(_) => return Err(Problem::invalid(FieldError::parameter("direction", "must be forward or backward"))),
        };
        let min_position = min_position::take(&mut query)?;
        query.finish()?;
        if let (Some(from), Some(to)) = (from_version, to_version)
            && from > to
        {
            let detail = format!("is above to_version ({from} > {to}): it is the lower bound in both directions");
            return Err(Problem::invalid(FieldError::parameter("from_version", detail)));
        }
        // One that is not understood is told before anything is looked for.
        not_modified(headers, 0)?;
        let last_version = if following { last_version(headers)? } else { None };
        if let Some(last) = last_version {
            from_version = Some(last + 1);
        }
        Ok(Self { from_version, to_version, limit, direction, min_position, last_version })
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
        let mut parameters = Vec::new();
        parameters.extend(from_version.map(|version| ("from_version", version.to_string())));
        parameters.extend(to_version.map(|version| ("to_version", version.to_string())));
        parameters.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        parameters.extend(direction.map(|direction| ("direction", direction)));
        link(&stream_path(stream), &parameters)
    }
}

/// The version after which an event stream resumes.
fn last_version(headers: &HeaderMap) -> Result<Option<u64>, Box<Problem>> {
    const LAST_EVENT_ID: &str = "Last-Event-ID";
    let Some(value) = single(headers, LAST_EVENT_ID)?.filter(|value| !value.is_empty()) else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let version = digits.and_then(|digits| digits.parse().ok()).filter(|version| *version < VERSION_MAX);
    version.map(Some).ok_or_else(|| Problem::invalid(FieldError::header(LAST_EVENT_ID, "must be a version, like 42")))
}

/// A page, and the link to the next one.
async fn write_page(
    app: &App,
    stream: &StreamId,
    head: &StreamHead,
    read: &StreamRead,
    representation: Representation,
) -> Result<(Vec<u8>, Option<String>), Refusal> {
    let mut begin = Vec::new();
    wire::write_stream_head(&mut begin, stream, head.version);
    begin.extend_from_slice(b",\"events\":");
    let mut events = PageEvents::after(&begin, representation);
    let limit = read.limit.unwrap_or(LIMIT_DEFAULT);
    let left = app
        .store
        .read_stream(stream, head, read.range(), limit, &mut Pace::default(), |event| events.take(event))
        .await?;
    let next = (!left.is_empty()).then(|| read.next(stream, left));
    Ok((events.finish(&next_member(next.as_deref())), next))
}

/// A stream as lines: its version is the one that it had when the read began.
struct StreamLines {
    app: Arc<App>,
    stream: StreamId,
    head: StreamHead,
    left: VersionRange,
    pace: Pace,
}

impl LineSource for StreamLines {
    async fn read(&mut self, piece: &mut Piece) -> Result<Option<String>, StoreError> {
        let Self { app, stream, head, left, pace } = self;
        let _few = app.store.bulk().await;
        *left = app.store.read_stream(stream, head, *left, piece.left(), pace, |event| piece.take(event)).await?;
        let last = left.is_empty() || piece.left() == 0;
        Ok(last.then(|| format!("\"version\":{}", head.version)))
    }
}
