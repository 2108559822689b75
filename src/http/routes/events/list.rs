//! `GET /events`: read the log, as a page, as lines, as an event stream, or as CloudEvents.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::{Pattern, Scope};
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::http::caller::Caller;
use crate::http::erasure_guard;
use crate::http::event_stream::{EventIdFormat, event_stream};
use crate::http::extract::min_position::head_for_cursor;
use crate::http::openapi::parameters::{LastEventIdParams, MinPositionParams};
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::format::{LIMIT_DEFAULT, Representation};
use crate::http::representation::lines::{LastLine, LineBuffer, LineSource, lines};
use crate::http::representation::page::{LOG_LINK_BYTES_MAX, PageEvents, link_to_next};
use crate::http::representation::response::without_body;
use crate::http::request_id::RequestId;
use crate::http::routes::events::backward::{BackwardLogPage, read_backward};
use crate::http::routes::events::read_request::{After, LogReadRequest, Start};
use crate::store::error::StoreError;
use crate::store::log::head::LogHead;
use crate::store::log::scan::LogScan;
use crate::store::reader::Reader;
use crate::store::required_position::RequiredPosition;
use crate::subscriptions::long_poll::LongPoll;
use crate::subscriptions::subscription::{StartFrom, Subscription};
use crate::wire::event::{CloudEventSchema, EventSchema};

/// A page of the log, in one of the two directions.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = AnyLogPage)]
pub enum AnyLogPageSchema {
    Forward(LogPage),
    Backward(BackwardLogPage),
}

/// A page of the log, in order.
#[derive(Serialize, ToSchema)]
pub struct LogPage {
    events: Vec<EventSchema>,
    /// Every event up to this position was examined, whether it matched the filters or not.
    next_after: Position,
    /// The position of the last event of the log.
    head: Position,
    /// Nothing was left to examine.
    at_head: bool,
    /// Positions are unique within an epoch. A failover or a restore begins a new one.
    epoch: Epoch,
    /// The path of the next page. The log has no end.
    next: String,
}

/// Read the log
///
/// All events of all streams in one order, or those that match the filters. A filter may be repeated: an event must
/// match one of its values. Different filters are combined with *and*. A page of a filtered read may be empty although
/// more events follow: `next_after` increases even if no event matched. Lines end at the head, with an end line.
/// `text/event-stream` returns the events after the cursor, and then new events. `direction=backward` returns the
/// newest events first, as a page of JSON, whose `next` leads to older ones.
#[utoipa::path(get, path = "/events", operation_id = "read_log", tag = "log",
    params(
        ("after" = Option<String>, Query,
            description = "Begins after this cursor: `1042`, or `1:1042` with its epoch, or `head`. Default 0. Not \
                with `direction=backward`"),
        ("direction" = Option<String>, Query,
            description = "`forward`, or `backward` from `before` or the head. Only pages of JSON go backward"),
        ("before" = Option<String>, Query,
            description = "Begins before this cursor: `1042`, or `1:1042` with its epoch. Requires \
                `direction=backward`. Default: from the head"),
        ("limit" = Option<u64>, Query,
            description = "1 to 1000, default 100; for NDJSON any number, default all. Not for event streams",
            minimum = 1),
        ("wait" = Option<u64>, Query,
            description = "The seconds for which a page that would be empty is held, until there is a new event. Not \
                with `direction=backward`",
            minimum = 0, maximum = 60),
        ("aggregate_type" = Option<Vec<String>>, Query, description = "One of these"),
        ("aggregate_id" = Option<Vec<String>>, Query,
            description = "One of these. Requires exactly one `aggregate_type`"),
        ("event_type" = Option<Vec<String>>, Query, description = "One of these"),
        ("correlation_id" = Option<Vec<String>>, Query,
            description = "One of these: a UUID, or the text that was sent in `X-Correlation-Id`"),
        ("occurred_from" = Option<String>, Query, description = "At this time or later (RFC 3339)"),
        ("occurred_to" = Option<String>, Query, description = "Before this time (RFC 3339)"),
        ("partition" = Option<String>, Query,
            description = "Only streams of one of `n` partitions, as `i/n`: `n` is a power of two up to 256, and `i` the \
                first byte of SHA-256 of `<type>/<id>`, modulo `n`. So `n` workers read the log side by side, each stream \
                in order"),
        MinPositionParams,
        ("Last-Event-ID" = Option<String>, Header,
            description = "The last id that an event stream has sent: it resumes there, whatever `after` is"),
        LastEventIdParams,
    ),
    responses(
        (status = 200, description = "A page, the lines, or the event stream", content(
            (AnyLogPageSchema = "application/json"), (String = "application/x-ndjson"), (String = "text/event-stream"),
            (Vec<CloudEventSchema> = "application/cloudevents-batch+json"))),
        (status = 409, description = "The cursor is no longer valid: continue from `rewind_to`", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 422, description = "`after` or `before`, without an epoch, is beyond the head of the log",
            body = ProblemSchema,
            content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_log(
    State(app): State<Arc<App>>,
    caller: Caller,
    method: Method,
    Extension(request_id): Extension<RequestId>,
    mut request: LogReadRequest,
) -> ApiResult<Response> {
    request.filter.readable = readable(&caller, &request.filter)?;
    RequiredPosition::scope(request.min_position, respond(&app, &method, request_id, request)).await
}

async fn respond(
    app: &Arc<App>,
    method: &Method,
    request_id: RequestId,
    request: LogReadRequest,
) -> ApiResult<Response> {
    let after = match request.start {
        Start::Forward(after) => after,
        Start::Backward(before) => return read_backward(app, method, &request, before).await,
    };
    let representation = request.representation;
    let reader = reader_for(app, after, request.wait);
    let (head, position) = resolve(app, &reader, after, &request).await?;

    let cursor = Cursor { epoch: Some(head.epoch), position };
    let mut headers = representation.headers();
    if let Some(response) = without_body(method, false, &headers) {
        return Ok(response);
    }
    match representation {
        Representation::EventStream => {
            let start_from = StartFrom::Log { filter: request.filter, after: position };
            let subscription = Subscription::start(&app.feed, start_from, &head)?;
            let body = event_stream(app, subscription, EventIdFormat::Position, position, &head);
            Ok((headers, body).into_response())
        }
        Representation::Lines => {
            let scan = LogScan::new(request.filter, cursor, app.feed.limits().scan);
            let (to, min_position) = (head.global_position, request.min_position);
            let source = LogLines { reader, scan, to, min_position };
            let body = lines(app, source, request.limit.unwrap_or(usize::MAX), request_id);
            Ok((headers, body).into_response())
        }
        Representation::Page | Representation::CloudEvents => {
            let (page, next) = write_page(app, reader, &request, after, cursor).await?;
            // A batch of CloudEvents has its only cursor in this header. A page has the link in its body, so the header
            // is omitted if it could exceed the limits of clients and proxies.
            if next.len() <= LOG_LINK_BYTES_MAX || representation == Representation::CloudEvents {
                headers.insert(header::LINK, link_to_next(&next));
            }
            Ok((headers, page).into_response())
        }
    }
}

/// Returns the types that the caller may read; `None` for all types. Fails if the filter names a type that the caller may
/// not read.
fn readable(caller: &Caller, filter: &EventFilter) -> ApiResult<Option<Vec<Pattern>>> {
    filter.aggregate_types.iter().try_for_each(|aggregate_type| caller.check(Scope::Read, aggregate_type))?;
    Ok(caller.readable_types())
}

/// Returns the database that a page or the lines are read from, from their begin to their end.
fn reader_for(app: &App, after: After, wait: Option<u64>) -> Arc<Reader> {
    match (after, wait) {
        // The head is that of the primary, and a replica does not have it yet.
        (After::Head, _) => app.primary.reader(),
        (After::Cursor(_), Some(_)) => app.readers.for_subscribers(),
        (After::Cursor(_), None) => app.reader(),
    }
}

/// Returns the head of the log, and the position after which a read begins. Fails if the cursor is no longer valid.
async fn resolve(app: &App, reader: &Reader, after: After, request: &LogReadRequest) -> ApiResult<(LogHead, Position)> {
    match after {
        After::Head => {
            let head = app.primary.log_head().await?;
            Ok((head, head.global_position))
        }
        After::Cursor(cursor) if request.representation == Representation::EventStream => {
            Ok((head_for_subscription(app, cursor).await?, cursor.position))
        }
        After::Cursor(cursor) => Ok((head_for_cursor(app, reader, cursor).await?, cursor.position)),
    }
}

/// Returns the head at which a subscription has caught up: that of the primary. The subscription waits for the replica
/// itself.
async fn head_for_subscription(app: &App, cursor: Cursor) -> ApiResult<LogHead> {
    Ok(match app.primary.log_head_for(cursor).await {
        // Without the primary, only the replica knows the log.
        Err(StoreError::Unavailable(_)) => app.reader().log_head_for(cursor).await?,
        head => head?,
    })
}

/// Writes a page. Returns it, and the link to the next one. With `wait`, an empty page is held until there is a new
/// event, or the time is up.
async fn write_page(
    app: &App,
    mut reader: Arc<Reader>,
    request: &LogReadRequest,
    after: After,
    cursor: Cursor,
) -> ApiResult<(Vec<u8>, String)> {
    let deadline = Instant::now() + Duration::from_secs(request.wait.unwrap_or(0));
    let limit = request.limit.unwrap_or(LIMIT_DEFAULT);
    let mut events = PageEvents::new(b"{\"events\":", request.representation);
    let mut scan = LogScan::new(request.filter.clone(), cursor, app.feed.limits().scan);
    let mut poll = None;
    let head = loop {
        // What an earlier round has read is not in the response.
        erasure_guard::begin_again();
        let head = reader.read_log(&mut scan, Position::MAX, limit, |event| events.push(event)).await?;
        let at_head = scan.after() >= head.global_position;
        if events.count() > 0 || !at_head || Instant::now() >= deadline {
            break head;
        }
        let poll: &mut LongPoll = match &mut poll {
            None => poll.insert(LongPoll::start(&app.feed)?),
            Some(poll) => {
                // Events that did not match have woken the poll. It pauses, so that it does not scan after every
                // append.
                poll.pause(deadline).await;
                poll
            }
        };
        if !poll.wait(scan.after(), deadline).await {
            break head;
        }
        // The replica may have fallen behind meanwhile.
        reader = reader_for(app, after, request.wait);
    };
    let next_after = scan.after();
    let next = request.link_to(Cursor { epoch: Some(head.epoch), position: next_after });
    // Links are percent-encoded, so JSON needs no escapes.
    let last_members = format!(
        ",\"next_after\":{next_after},\"head\":{},\"at_head\":{},\"epoch\":{},\"next\":\"{next}\"}}",
        head.global_position,
        next_after >= head.global_position,
        head.epoch
    );
    Ok((events.finish(&last_members), next))
}

/// The lines of the log, up to the head that it had when the read began.
#[derive(Clone)]
struct LogLines {
    reader: Arc<Reader>,
    scan: LogScan,
    to: Position,
    min_position: Option<Cursor>,
}

impl LineSource for LogLines {
    async fn read(&mut self, lines: &mut LineBuffer) -> Result<Option<String>, StoreError> {
        let Self { reader, scan, to, min_position } = self;
        let _permit = reader.bulk_read_permit().await;
        scan.set_page_bytes(lines.piece_bytes());
        // The parts are read after the handler has returned, so the position is required again.
        let read = reader.read_log(scan, *to, lines.left(), |event| lines.push(event));
        let head = RequiredPosition::scope(*min_position, read).await?;
        if head.global_position < *to {
            return Err(StoreError::Behind(head.global_position));
        }
        let is_complete = scan.after() >= *to || lines.left() == 0;
        Ok(is_complete.then(|| format!("\"next_after\":{}", scan.after())))
    }

    fn rewind_to(&mut self, last: LastLine) {
        self.scan.rewind_to(last.global_position);
    }
}
