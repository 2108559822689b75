//! `GET /streams/{aggregate_type}/{aggregate_id}`: read a stream, as a page, as lines, as an event stream, or as
//! CloudEvents.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::http::cache::etag;
use crate::http::event_stream::{EventIdFormat, event_stream};
use crate::http::openapi::parameters::{IfNoneMatchParams, LastEventIdParams, MinPositionParams, StreamParams};
use crate::http::openapi::responses::{ReadProblems, StreamNotFound};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::format::{LIMIT_DEFAULT, Representation};
use crate::http::representation::lines::{LastLine, LineBuffer, LineSource, lines};
use crate::http::representation::page::{PageEvents, link_to_next, next_member};
use crate::http::representation::response::without_body;
use crate::http::request_id::RequestId;
use crate::http::routes::streams::read_request::StreamReadRequest;
use crate::store::error::StoreError;
use crate::store::fetch_size::FetchSize;
use crate::store::required_position::RequiredPosition;
use crate::store::streams::events::StreamRead;
use crate::store::streams::head::StreamHead;
use crate::store::streams::range::VersionRange;
use crate::subscriptions::subscription::{StartFrom, Subscription};
use crate::wire::event::{CloudEventSchema, EventSchema, write_stream_head};

/// A page of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_page's output, for the OpenAPI document")]
pub struct StreamPage {
    aggregate_type: String,
    aggregate_id: String,
    /// The head of the stream.
    version: Version,
    events: Vec<EventSchema>,
    /// The path of the next page; null at the end.
    next: Option<String>,
}

/// Read a stream
///
/// As a page (`application/json`), or as lines up to the head (`application/x-ndjson`): a response without an end line
/// is incomplete. As `text/event-stream`, it continues with new events, and resumes after the version in
/// `Last-Event-ID`. `HEAD` returns the version in `ETag`.
#[utoipa::path(get, path = "/streams/{aggregate_type}/{aggregate_id}", operation_id = "read_stream", tag = "streams",
    params(
        StreamParams,
        ("from_version" = Option<u64>, Query, description = "The lowest version to return, in both directions",
            minimum = 1),
        ("to_version" = Option<u64>, Query,
            description = "The highest version to return, default the head. Not for event streams", minimum = 1),
        ("limit" = Option<u64>, Query,
            description = "1 to 1000, default 100; for NDJSON any number, default all. Not for event streams",
            minimum = 1),
        ("direction" = Option<String>, Query,
            description = "`forward`, or `backward` from the highest version. Event streams only go forward"),
        MinPositionParams,
        IfNoneMatchParams,
        ("Last-Event-ID" = Option<String>, Header,
            description = "The last version that an event stream has sent: it resumes after this version"),
        LastEventIdParams,
    ),
    responses(
        (status = 200, description = "A page, the lines, or the event stream", content(
            (StreamPage = "application/json"), (String = "application/x-ndjson"), (String = "text/event-stream"),
            (Vec<CloudEventSchema> = "application/cloudevents-batch+json"))),
        (status = 304, description = "The stream is still at this version"),
        StreamNotFound,
        (status = 409, description = "`Last-Event-ID` is beyond the head of the stream, or `min_position` was lost: \
            continue from `rewind_to`",
            body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_stream(
    State(app): State<Arc<App>>,
    method: Method,
    Extension(request_id): Extension<RequestId>,
    request: StreamReadRequest,
) -> ApiResult<Response> {
    RequiredPosition::scope(request.min_position, respond(&app, &method, request_id, &request)).await
}

async fn respond(
    app: &Arc<App>,
    method: &Method,
    request_id: RequestId,
    request: &StreamReadRequest,
) -> ApiResult<Response> {
    let (representation, stream) = (request.representation, &request.stream);
    let is_event_stream = representation == Representation::EventStream;
    // The head of the log is read before that of the stream: a subscriber has caught up when it has the events up to
    // it.
    let log_head = if is_event_stream { Some(app.primary.log_head().await?) } else { None };
    let head = app.primary.stream_head(stream).await?.ok_or_else(|| ApiError::stream_not_found(stream))?;
    if let Some(received) = request.last_version.filter(|version| *version > u64::try_from(head.version).unwrap_or(0)) {
        return Err(ApiError::stream_was_rewound(head.version, received));
    }

    let mut headers = representation.headers();
    headers.insert(header::ETAG, etag(head.version));
    let is_unchanged = !is_event_stream && request.if_none_match.matches(head.version)?;
    if let Some(response) = without_body(method, is_unchanged, &headers) {
        return Ok(response);
    }
    if let Some(log_head) = log_head {
        // The ids of the events are versions. A tag would only be the version at the start.
        headers.remove(header::ETAG);
        let from = request.range().from;
        let start_from = StartFrom::Stream { stream: stream.clone(), from };
        let subscription = Subscription::start(&app.feed, start_from, &log_head)?;
        // An id beyond the head would be refused when the client resumes with it.
        let last_version = (from - 1).min(head.version);
        let body = event_stream(app, subscription, EventIdFormat::Version(last_version), 0, &log_head);
        return Ok((headers, body).into_response());
    }
    if representation == Representation::Lines {
        let (stream, left) = (stream.clone(), request.range());
        let source = StreamLines { app: app.clone(), stream, head, left, fetch_size: FetchSize::default() };
        let body = lines(app, source, request.limit.unwrap_or(usize::MAX), request_id);
        return Ok((headers, body).into_response());
    }
    let (page, next) = write_page(app, request, &head).await?;
    if let Some(next) = next {
        headers.insert(header::LINK, link_to_next(&next));
    }
    Ok((headers, page).into_response())
}

/// Writes a page. Returns it, and the link to the next one.
async fn write_page(app: &App, request: &StreamReadRequest, head: &StreamHead) -> ApiResult<(Vec<u8>, Option<String>)> {
    let mut first_members = Vec::new();
    write_stream_head(&mut first_members, &request.stream, head.version);
    first_members.extend_from_slice(b",\"events\":");
    let mut events = PageEvents::new(&first_members, request.representation);
    let limit = request.limit.unwrap_or(LIMIT_DEFAULT);
    let read = StreamRead { stream: &request.stream, head, range: request.range(), limit };
    let rest = app.primary.read_stream(read, &mut FetchSize::default(), |event| events.push(event)).await?;
    let next = (!rest.is_empty()).then(|| request.link_to(rest));
    Ok((events.finish(&next_member(next.as_deref())), next))
}

/// The lines of a stream, up to the version that it had when the read began.
#[derive(Clone)]
struct StreamLines {
    app: Arc<App>,
    stream: StreamId,
    head: StreamHead,
    left: VersionRange,
    fetch_size: FetchSize,
}

impl LineSource for StreamLines {
    async fn read(&mut self, lines: &mut LineBuffer) -> Result<Option<String>, StoreError> {
        let Self { app, stream, head, left, fetch_size } = self;
        let _permit = app.primary.bulk_read_permit().await;
        fetch_size.set_page_bytes(lines.piece_bytes());
        let read = StreamRead { stream, head, range: *left, limit: lines.left() };
        *left = app.primary.read_stream(read, fetch_size, |event| lines.push(event)).await?;
        let is_complete = left.is_empty() || lines.left() == 0;
        Ok(is_complete.then(|| format!("\"version\":{}", head.version)))
    }

    fn rewind_to(&mut self, last: LastLine) {
        self.left = self.left.after(last.version);
    }
}
