//! Reads of the log: everything that ever happened, in one order; page by page, line by line, or as it happens.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::access::{Pattern, Scope};
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::domain::name::{NameFault, check_name, check_path_name};
use crate::http::access::Caller;
use crate::http::headers::single;
use crate::http::middleware::RequestId;
use crate::http::min_position;
use crate::http::openapi::ReadProblems;
use crate::http::path::link;
use crate::http::problem::{FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::Query;
use crate::http::representation::{
    LIMIT_DEFAULT, LineSource, PageEvents, Piece, Representation, lines, link_to_next, refuse, without_body,
};
use crate::http::sse::{Ids, event_stream};
use crate::http::wire;
use crate::http::wire::{CloudEventSchema, EventSchema};
use crate::store::error::StoreError;
use crate::store::log::{LogHead, LogScan};
use crate::subscriptions::{LongPoll, Origin};

type Fallible<T> = Result<T, Box<Problem>>;

const WAIT_SECONDS_MAX: u64 = 60;
/// Values of one filter.
const VALUES_MAX: usize = 100;
const LINK_BYTES_MAX: usize = 2_000;

/// A page of the log.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_page's output, for the OpenAPI document")]
pub struct LogPage {
    events: Vec<EventSchema>,
    /// Everything up to here was looked at, whether it matched or not.
    next_after: Position,
    /// Where the log stands.
    head: Position,
    /// Whether nothing was left to look at.
    at_head: bool,
    /// Positions are unique within an epoch; a failover or a restore begins a new one.
    epoch: Epoch,
    /// What comes next; the log has no end.
    next: String,
}

/// Read the log
///
/// All events of all streams in one order, or those that match the filters; a filter may be repeated, and different ones
/// are and-ed. As a page, which a filtered read may end early: `next_after` moves even if nothing matched. As lines up to
/// the head, with an end line. As `text/event-stream`: everything after the position, and then what happens.
#[utoipa::path(get, path = "/events", tag = "log",
    params(
        ("after" = Option<String>, Query, description = "Begins after this position: `1042`, or `1:1042` with its epoch; `head` for what is new. 0 if absent"),
        ("limit" = Option<u64>, Query, description = "1 to 1000, 100 if absent; for NDJSON any, all if absent. Not for an event stream", minimum = 1),
        ("wait" = Option<u64>, Query, description = "Holds a page that would be empty for up to so many seconds, until there is something new", minimum = 0, maximum = 60),
        ("aggregate_type" = Option<Vec<String>>, Query, description = "One of these"),
        ("aggregate_id" = Option<Vec<String>>, Query, description = "One of these; only with exactly one `aggregate_type`"),
        ("event_type" = Option<Vec<String>>, Query, description = "One of these"),
        ("correlation_id" = Option<Vec<String>>, Query, description = "One of these"),
        ("occurred_from" = Option<String>, Query, description = "Not before this time (RFC 3339)"),
        ("occurred_to" = Option<String>, Query, description = "Before this time (RFC 3339)"),
        ("min_position" = Option<u64>, Query, description = "Answers only once the log has this position, which it waits for up to a second"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last id that an event stream has brought: it goes on after it, whatever `after` says"),
    ),
    responses(
        (status = 200, description = "A page, the lines, or the event stream", content(
            (LogPage = "application/json"), (String = "application/x-ndjson"), (String = "text/event-stream"),
            (Vec<CloudEventSchema> = "application/cloudevents-batch+json"))),
        (status = 409, description = "The cursor is of an epoch that ended before it: go on from `rewind_to`", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_log(
    State(app): State<Arc<App>>,
    caller: Caller,
    method: Method,
    Extension(request_id): Extension<RequestId>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let representation = Representation::of(&headers)?;
    let mut read = LogRead::of(&uri, &headers, representation)?;
    read.filter.readable = readable(&caller, &read.filter)?;
    min_position::reached(&app, &app.reads, read.min_position).await?;
    let (head, after) = read.after.resolve(&app).await?;

    let cursor = Cursor { epoch: Some(head.epoch), position: after };
    let mut common = representation.headers();
    if let Some(answer) = without_body(&method, false, &common) {
        return Ok(answer);
    }
    match representation {
        Representation::EventStream => {
            let subscription = app.feed.subscribe(Origin::Log { filter: read.filter, after }, &head)?;
            let body = event_stream(subscription, *app.feed.limits(), Ids::Positions, after, &head);
            Ok((common, body).into_response())
        }
        Representation::Lines => {
            let scan = LogScan::new(read.filter, cursor, app.feed.limits().scan);
            let source = LogLines { app, scan, to: head.global_position };
            Ok((common, lines(source, read.limit.unwrap_or(usize::MAX), request_id)).into_response())
        }
        Representation::Page | Representation::CloudEvents => {
            let (page, next) = write_page(&app, &read, cursor, representation).await?;
            // A batch of CloudEvents has no other cursor; the link in a page need not burst anybody's limit for headers.
            if next.len() <= LINK_BYTES_MAX || representation == Representation::CloudEvents {
                common.insert(header::LINK, link_to_next(&next));
            }
            Ok((common, page).into_response())
        }
    }
}

/// What a read of the log asks for.
struct LogRead {
    after: After,
    limit: Option<usize>,
    wait: Option<u64>,
    filter: EventFilter,
    min_position: Option<Position>,
}

/// Where it begins.
#[derive(Clone, Copy)]
enum After {
    Head,
    Cursor(Cursor),
}

impl LogRead {
    fn of(uri: &Uri, headers: &HeaderMap, representation: Representation) -> Fallible<Self> {
        let mut query = Query::of(uri)?;
        let after = query.take("after")?;
        let mut after = After::parse(after.as_deref()).map_err(|detail| parameter("after", detail))?;
        if representation == Representation::EventStream
            && let Some(last) = single(headers, "Last-Event-ID")?.filter(|value| !value.is_empty())
        {
            let last = last.to_str().ok().and_then(|last| last.parse().ok());
            let fault = || {
                Problem::invalid(FieldError::header("Last-Event-ID", "must be an epoch and a position, like 1:1042"))
            };
            after = After::Cursor(last.ok_or_else(fault)?);
        }
        let limit = representation.take_limit(&mut query)?;
        if matches!(representation, Representation::EventStream | Representation::Lines) {
            refuse(&mut query, &["wait"], "is for pages: an event stream waits by itself, and lines end at the head")?;
        }
        let wait = query.take_number("wait", 0, WAIT_SECONDS_MAX)?;
        let filter = take_filter(&mut query)?;
        let min_position = min_position::take(&mut query)?;
        query.finish()?;
        Ok(Self { after, limit, wait, filter, min_position })
    }

    /// The link to what comes after a cursor, with everything else as it was asked for.
    fn next(&self, cursor: Cursor) -> String {
        let filter = &self.filter;
        let mut parameters = vec![("after", cursor.to_string())];
        parameters.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        parameters.extend(self.wait.map(|wait| ("wait", wait.to_string())));
        parameters.extend(filter.aggregate_types.iter().map(|name| ("aggregate_type", name.clone())));
        parameters.extend(filter.aggregate_ids.iter().map(|name| ("aggregate_id", name.clone())));
        parameters.extend(filter.event_types.iter().map(|name| ("event_type", name.clone())));
        parameters.extend(filter.correlation_ids.iter().map(|id| ("correlation_id", id.to_string())));
        parameters.extend(filter.occurred_from.map(|time| ("occurred_from", wire::time(time))));
        parameters.extend(filter.occurred_to.map(|time| ("occurred_to", wire::time(time))));
        link("/events", &parameters)
    }
}

impl After {
    fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None => Ok(Self::Cursor(Cursor { epoch: None, position: 0 })),
            Some("head") => Ok(Self::Head),
            Some(cursor) => cursor.parse().map(Self::Cursor).map_err(|fault| format!("{fault}, or head")),
        }
    }

    /// Where the log stands, and the position to begin after, if that still means what it meant to whoever was given it.
    async fn resolve(self, app: &App) -> Result<(LogHead, Position), Refusal> {
        Ok(match self {
            Self::Head => {
                let head = app.reads.log_head().await?;
                (head, head.global_position)
            }
            Self::Cursor(cursor) => (app.reads.log_head_for(cursor).await?, cursor.position),
        })
    }
}

fn take_filter(query: &mut Query) -> Fallible<EventFilter> {
    let filter = EventFilter {
        aggregate_types: names(query, "aggregate_type", check_path_name)?,
        aggregate_ids: names(query, "aggregate_id", check_path_name)?,
        event_types: names(query, "event_type", check_name)?,
        correlation_ids: values(query, "correlation_id", |id| {
            Uuid::try_parse(id).map_err(|_| "must be a UUID".to_owned())
        })?,
        occurred_from: time(query, "occurred_from")?,
        occurred_to: time(query, "occurred_to")?,
        readable: None,
    };
    if !filter.aggregate_ids.is_empty() && filter.aggregate_types.len() != 1 {
        return Err(parameter("aggregate_id", "needs exactly one aggregate_type beside it"));
    }
    if let (Some(from), Some(to)) = (filter.occurred_from, filter.occurred_to)
        && from > to
    {
        return Err(parameter("occurred_from", "is later than occurred_to"));
    }
    Ok(filter)
}

/// The types that the caller may read, where the filter does not name types; those that it names have to be among them.
fn readable(caller: &Caller, filter: &EventFilter) -> Fallible<Option<Vec<Pattern>>> {
    filter.aggregate_types.iter().try_for_each(|aggregate_type| caller.check(Scope::Read, aggregate_type))?;
    Ok(if filter.aggregate_types.is_empty() { caller.readable() } else { None })
}

fn names(query: &mut Query, name: &'static str, check: fn(&str) -> Result<(), NameFault>) -> Fallible<Vec<String>> {
    values(query, name, |value| check(value).map(|()| value.to_owned()).map_err(|fault| fault.to_string()))
}

/// The values of a parameter that may be repeated, each once.
fn values<T: PartialEq>(
    query: &mut Query,
    name: &'static str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Fallible<Vec<T>> {
    let mut values = Vec::new();
    for text in query.take_all(name)? {
        let value = read(&text).map_err(|detail| parameter(name, detail))?;
        if !values.contains(&value) {
            values.push(value);
        }
    }
    if values.len() > VALUES_MAX {
        return Err(parameter(name, format!("is given more than {VALUES_MAX} times")));
    }
    Ok(values)
}

/// A time, rounded up to the microseconds that events have: it parts them as the finer one would.
fn time(query: &mut Query, name: &'static str) -> Fallible<Option<DateTime<Utc>>> {
    Ok(query.take_time(name)?.map(|time| {
        let floor = time.trunc_subsecs(6);
        if floor < time { floor + TimeDelta::microseconds(1) } else { floor }
    }))
}

fn parameter(name: &'static str, detail: impl Into<String>) -> Box<Problem> {
    Problem::invalid(FieldError::parameter(name, detail))
}

/// A page, and the link to the next one. With `wait` it is held until it is not empty, or the time is up.
async fn write_page(
    app: &App,
    read: &LogRead,
    after: Cursor,
    representation: Representation,
) -> Result<(Vec<u8>, String), Refusal> {
    let until = Instant::now() + Duration::from_secs(read.wait.unwrap_or(0));
    let limit = read.limit.unwrap_or(LIMIT_DEFAULT);
    let mut events = PageEvents::after(b"{\"events\":", representation);
    let mut scan = LogScan::new(read.filter.clone(), after, app.feed.limits().scan);
    let mut poll = None;
    let head = loop {
        let head = app.reads.read_log(&mut scan, Position::MAX, limit, |event| events.take(event)).await?;
        let at_head = scan.after() >= head.global_position;
        if events.count() > 0 || !at_head || Instant::now() >= until {
            break head;
        }
        let poll: &mut LongPoll = match &mut poll {
            None => poll.insert(app.feed.long_poll()?),
            // It has looked, and there was nothing for it.
            Some(poll) => {
                poll.rest(until).await;
                poll
            }
        };
        if !poll.wait(scan.after(), until).await {
            break head;
        }
    };
    let next_after = scan.after();
    let next = read.next(Cursor { epoch: Some(head.epoch), position: next_after });
    // A link has nothing that JSON would escape.
    let end = format!(
        ",\"next_after\":{next_after},\"head\":{},\"at_head\":{},\"epoch\":{},\"next\":\"{next}\"}}",
        head.global_position,
        next_after >= head.global_position,
        head.epoch
    );
    Ok((events.finish(&end), next))
}

/// The log as lines, up to the head as it was at the start.
struct LogLines {
    app: Arc<App>,
    scan: LogScan,
    to: Position,
}

impl LineSource for LogLines {
    async fn read(&mut self, piece: &mut Piece) -> Result<Option<String>, StoreError> {
        let Self { app, scan, to } = self;
        let _few = app.reads.bulk().await;
        let head = app.reads.read_log(scan, *to, piece.left(), |event| piece.take(event)).await?;
        if head.global_position < *to {
            return Err(StoreError::Behind(head.global_position));
        }
        let last = scan.after() >= *to || piece.left() == 0;
        Ok(last.then(|| format!("\"next_after\":{}", scan.after())))
    }
}
