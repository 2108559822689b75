//! Append: `POST /streams/{type}/{id}`, and `POST /appends` for several streams in one atomic step.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::append::{Append, AppendRequest, Outcome, REQUEST_STREAMS_MAX};
use crate::domain::event::Recorded;
use crate::domain::name::StreamId;
use crate::domain::version::{ExpectedVersion, Version};
use crate::http::conditional::{self, etag};
use crate::http::event_in::{Defaults, Door, EventIn};
use crate::http::negotiate::{self, JSON};
use crate::http::path::{PathParams, stream_path};
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::{body, query, wire};
use crate::store::error::StoreError;
use crate::store::read::{Direction, VersionRange};

/// Missed events that a conflict brings along, at most.
const MISSED_EVENTS_MAX: usize = 100;
const MISSED_BYTES_MAX: usize = 8 * 1024 * 1024;
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Namespace of the event ids that an Idempotency-Key makes (UUIDv5 of the stream, the key and the event's index).
const IDEMPOTENCY_NAMESPACE: Uuid = Uuid::from_u128(0x6a09_e667_f3bc_5c90_8bb6_7ae8_584c_aa73);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamAppendIn<'b> {
    #[serde(borrow)]
    events: Vec<EventIn<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendsIn<'b> {
    #[serde(borrow)]
    appends: Vec<AppendIn<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendIn<'b> {
    aggregate_type: String,
    aggregate_id: String,
    expected_version: Option<ExpectedIn>,
    #[serde(borrow)]
    events: Vec<EventIn<'b>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a version (0 or more), \"none\" or \"exists\"")]
enum ExpectedIn {
    Exact(u64),
    Word(ExpectedWord),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectedWord {
    None,
    Exists,
}

impl From<Option<ExpectedIn>> for ExpectedVersion {
    fn from(expected: Option<ExpectedIn>) -> Self {
        match expected {
            None => Self::Any,
            Some(ExpectedIn::Exact(version)) => Self::Exact(version),
            Some(ExpectedIn::Word(ExpectedWord::None)) => Self::None,
            Some(ExpectedIn::Word(ExpectedWord::Exists)) => Self::Exists,
        }
    }
}

/// An expected version in the words of the request: a number, `"none"` or `"exists"`; null if there was none.
struct InWords(ExpectedVersion);

impl Serialize for InWords {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ExpectedVersion::Any => serializer.serialize_none(),
            ExpectedVersion::None => serializer.serialize_str("none"),
            ExpectedVersion::Exists => serializer.serialize_str("exists"),
            ExpectedVersion::Exact(version) => serializer.serialize_u64(version),
        }
    }
}

/// What an append answers for one stream.
#[derive(Serialize, ToSchema)]
pub struct Appended {
    aggregate_type: String,
    aggregate_id: String,
    /// Version of the last event of this append.
    version: Version,
    first_version: Version,
    /// Position of the last event of this append.
    global_position: i64,
    /// This append crossed a multiple of the snapshot interval, and only the client can make the snapshot.
    snapshot_due: bool,
    events: Vec<RecordedOut>,
}

/// Where an event stands.
#[derive(Serialize, ToSchema)]
pub struct RecordedOut {
    #[schema(format = Uuid)]
    event_id: String,
    version: Version,
    global_position: i64,
    #[schema(format = DateTime)]
    occurred_at: String,
}

/// What an append to several streams answers.
#[derive(Serialize, ToSchema)]
pub struct AllAppended {
    appends: Vec<Appended>,
}

#[derive(Serialize)]
struct Conflict<'r> {
    aggregate_type: &'r str,
    aggregate_id: &'r str,
    expected_version: InWords,
    current_version: Version,
}

/// Append events to a stream
///
/// All or nothing. The expected version is a precondition: `If-Match: "41"`, `If-None-Match: *` (no event yet),
/// `If-Match: *` (at least one), or none. A request with the same event ids, or the same `Idempotency-Key`, can be
/// repeated safely: the answer is the first one's, with status 200.
#[utoipa::path(post, path = "/streams/{aggregate_type}/{aggregate_id}", tag = "streams",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("If-Match" = Option<String>, Header, description = "Expected version, `\"41\"`, or `*`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the stream does not exist"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the ids of events without one, 1 to 255 characters"),
        ("X-Correlation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
        ("X-Causation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
        ("Prefer" = Option<String>, Header, description = "`return=representation`: a conflict brings the missed events"),
    ),
    request_body(content = crate::http::openapi::StreamAppendSchema, content_type = "application/json"),
    responses(
        (status = 201, description = "Written and durable", body = Appended),
        (status = 200, description = "All of it was written before (`Idempotent-Replayed: true`)", body = Appended),
        (status = 400, description = "Not understood: `errors` says where", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 406, description = "`Accept` names nothing that is available", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "An event id is known already", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 412, description = "The stream is at another version", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 415, description = "Not declared as JSON", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "JSON that cannot be kept", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 503, description = "Not now: retry after `Retry-After`", body = ProblemSchema, content_type = "application/problem+json"),
    ))]
pub async fn append_to_stream(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let body = body::read_json(&headers, body, app.settings.max_body_bytes).await?;
    query::no_parameters(&uri)?;
    let stream = path.stream()?;
    let expected = conditional::expected_version(&headers)?;
    let options = Options::of(&headers)?;
    let sent: StreamAppendIn = body::parse(&body)?;

    let mut door = Door::new(app.settings.max_body_bytes);
    let events = door.let_in("/events", &sent.events, options.defaults, |n| options.event_id(&app, &stream, n))?;
    door.inspect("/events", &sent.events)?;
    let request = AppendRequest { appends: vec![Append { stream, expected, events }] };

    match submit(&app, &request).await? {
        Decision::Appended { status, replayed, appended } => {
            let mut appended = appended.into_iter();
            let (append, recorded) = request.appends.iter().zip(appended.by_ref()).next().ok_or_else(lost)?;
            let location = format!("{}/{}", stream_path(&append.stream), recorded.first_version);
            let mut response = answer(status, replayed, &recorded);
            response.headers_mut().insert(header::ETAG, etag(recorded.version));
            response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(location).map_err(|_| lost())?);
            Ok(response)
        }
        Decision::Conflict(current) => {
            let append = request.appends.first().ok_or_else(lost)?;
            let current = current.first().copied().ok_or_else(lost)?;
            Err(conflict(&app, append, current, options.wants_missed_events).await?.into())
        }
    }
}

/// Append events to several streams in one atomic step
///
/// At most 100 streams, each once, and 1,000 events in all. Where one precondition fails, nothing is written.
#[utoipa::path(post, path = "/appends", tag = "streams",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the ids of events without one, 1 to 255 characters"),
        ("X-Correlation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
        ("X-Causation-Id" = Option<String>, Header, description = "Default for events without one, a UUID"),
    ),
    request_body(content = crate::http::openapi::AppendsSchema, content_type = "application/json"),
    responses(
        (status = 201, description = "Written and durable", body = AllAppended),
        (status = 200, description = "All of it was written before (`Idempotent-Replayed: true`)", body = AllAppended),
        (status = 400, description = "Not understood: `errors` says where", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 406, description = "`Accept` names nothing that is available", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "A stream is at another version (`conflicts`), or an event id is known already", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 415, description = "Not declared as JSON", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "JSON that cannot be kept", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 503, description = "Not now: retry after `Retry-After`", body = ProblemSchema, content_type = "application/problem+json"),
    ))]
pub async fn append_to_streams(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let body = body::read_json(&headers, body, app.settings.max_body_bytes).await?;
    query::no_parameters(&uri)?;
    conditional::no_preconditions(&headers)?;
    let options = Options::of(&headers)?;
    let sent: AppendsIn = body::parse(&body)?;
    let request = AppendRequest { appends: appends(&app, sent, &options)? };

    match submit(&app, &request).await? {
        Decision::Appended { status, replayed, appended } => {
            Ok(answer(status, replayed, &AllAppended { appends: appended }))
        }
        Decision::Conflict(current) => {
            let conflicts: Vec<_> = request
                .appends
                .iter()
                .zip(current)
                .filter(|(append, current)| !append.expected.holds(*current))
                .map(|(append, current_version)| Conflict {
                    aggregate_type: append.stream.aggregate_type(),
                    aggregate_id: append.stream.aggregate_id(),
                    expected_version: InWords(append.expected),
                    current_version,
                })
                .collect();
            let detail = format!("{} of the streams are at another version; nothing was written", conflicts.len());
            Err(Problem::new(Code::VersionConflict, detail)
                .with_status(StatusCode::CONFLICT)
                .with("conflicts", &conflicts)
                .into())
        }
    }
}

/// Checks the appends of one request: everything that is not understood first, then what cannot be kept.
fn appends(app: &App, sent: AppendsIn<'_>, options: &Options) -> Result<Vec<Append>, Box<Problem>> {
    let invalid = |pointer: String, detail: String| Problem::invalid(FieldError::pointer(pointer, detail));
    if sent.appends.is_empty() || sent.appends.len() > REQUEST_STREAMS_MAX {
        let detail = format!("must have 1 to {REQUEST_STREAMS_MAX} streams");
        return Err(invalid("/appends".to_owned(), detail));
    }
    let mut door = Door::new(app.settings.max_body_bytes);
    let mut streams = std::collections::HashSet::new();
    let mut appends = Vec::with_capacity(sent.appends.len());
    let mut payloads = Vec::with_capacity(sent.appends.len());
    for (index, append) in sent.appends.into_iter().enumerate() {
        let at = format!("/appends/{index}");
        let stream = StreamId::parse(append.aggregate_type, append.aggregate_id)
            .map_err(|fault| invalid(format!("{at}/{}", fault.field), fault.fault.to_string()))?;
        if !streams.insert(stream.clone()) {
            return Err(invalid(
                at,
                "the stream stands twice in the request: put its events into one append".to_owned(),
            ));
        }
        let events = door
            .let_in(&format!("{at}/events"), &append.events, options.defaults, |n| options.event_id(app, &stream, n))?;
        payloads.push(append.events);
        appends.push(Append { stream, expected: append.expected_version.into(), events });
    }
    for (index, events) in payloads.iter().enumerate() {
        door.inspect(&format!("/appends/{index}/events"), events)?;
    }
    Ok(appends)
}

/// What the headers of an append say besides the precondition.
struct Options {
    idempotency_key: Option<String>,
    defaults: Defaults,
    wants_missed_events: bool,
}

impl Options {
    fn of(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        Ok(Self {
            idempotency_key: idempotency_key(headers)?,
            defaults: Defaults {
                correlation_id: uuid_header(headers, "X-Correlation-Id")?,
                causation_id: uuid_header(headers, "X-Causation-Id")?,
            },
            wants_missed_events: prefers_representation(headers),
        })
    }

    /// The id of the n-th event of a stream in this request, where the client sent none.
    fn event_id(&self, app: &App, stream: &StreamId, index: usize) -> Uuid {
        match &self.idempotency_key {
            // Names have no control characters, so the separator cannot stand in one.
            Some(key) => {
                let name = format!("{}\0{}\0{key}\0{index}", stream.aggregate_type(), stream.aggregate_id());
                Uuid::new_v5(&IDEMPOTENCY_NAMESPACE, name.as_bytes())
            }
            None => app.new_event_id(),
        }
    }
}

/// A structured-field string in quotes, or the bare characters.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Box<Problem>> {
    const NAME: &str = "Idempotency-Key";
    let invalid = |detail: &str| Problem::invalid(FieldError::header(NAME, detail));
    let Some(value) = single_header(headers, NAME)? else { return Ok(None) };
    let key = match value.strip_prefix('"') {
        None if value.contains('"') => return Err(invalid("has a quote inside: quote the whole key")),
        None => value.to_owned(),
        Some(quoted) => {
            let inside =
                quoted.strip_suffix('"').ok_or_else(|| invalid("begins with a quote and does not end with one"))?;
            unescape(inside).ok_or_else(|| invalid("is not a quoted string: escape \\ and \" by \\"))?
        }
    };
    if key.is_empty() || key.chars().count() > IDEMPOTENCY_KEY_CHARS_MAX {
        return Err(invalid(&format!("must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters")));
    }
    Ok(Some(key))
}

fn unescape(quoted: &str) -> Option<String> {
    let mut plain = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '"' => return None,
            '\\' => characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            other => other,
        });
    }
    Some(plain)
}

fn uuid_header(headers: &HeaderMap, name: &'static str) -> Result<Option<Uuid>, Box<Problem>> {
    let Some(value) = single_header(headers, name)? else { return Ok(None) };
    Uuid::try_parse(value).map(Some).map_err(|_| Problem::invalid(FieldError::header(name, "must be a UUID")))
}

fn single_header<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Box<Problem>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(FieldError::header(name, "is given more than once")));
    }
    let text = value.to_str().map_err(|_| Problem::invalid(FieldError::header(name, "must be visible ASCII")))?;
    Ok(Some(text.trim()))
}

/// `Prefer: return=representation` (RFC 7240); preferences that are not known are ignored, as it says.
fn prefers_representation(headers: &HeaderMap) -> bool {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim().replace('"', "").eq_ignore_ascii_case("return=representation"))
}

/// How a request that was decided is answered; what identifies known events is a [`Problem`] already.
enum Decision {
    Appended { status: StatusCode, replayed: bool, appended: Vec<Appended> },
    Conflict(Vec<Version>),
}

/// Has a request written and counts how it ended.
async fn submit(app: &App, request: &AppendRequest) -> Result<Decision, Box<Problem>> {
    let timer = app.metrics.append_duration_seconds.start_timer();
    let outcome = app.writer.submit(request.clone()).await;
    timer.observe_duration();
    app.metrics.appends.with_label_values(&[result_label(&outcome)]).inc();

    match outcome? {
        Outcome::Written(recorded) => {
            for append in &request.appends {
                app.metrics.count_inserted(append.stream.aggregate_type(), append.events.len() as u64);
            }
            let appended = appended(app, request, &recorded);
            Ok(Decision::Appended { status: StatusCode::CREATED, replayed: false, appended })
        }
        Outcome::Replayed(recorded) => {
            let appended = appended(app, request, &recorded);
            Ok(Decision::Appended { status: StatusCode::OK, replayed: true, appended })
        }
        Outcome::VersionConflict(current) => Ok(Decision::Conflict(current)),
        Outcome::EventIdReused(known) => Err(known_events(
            Code::EventIdReused,
            "an event with this id was written before, with other content or in another stream; nothing was written",
            request,
            &known,
        )),
        Outcome::EventPartlyKnown(known) => Err(known_events(
            Code::EventPartlyKnown,
            "some of these events were written before, but not as this request; nothing was written",
            request,
            &known,
        )),
    }
}

fn known_events(code: Code, detail: &str, request: &AppendRequest, known: &[Uuid]) -> Box<Problem> {
    let known: Vec<String> = known.iter().map(Uuid::to_string).collect();
    let problem = Problem::new(code, detail).with("known_event_ids", &known);
    match request.appends.as_slice() {
        [append] if append.expected != ExpectedVersion::Any => {
            problem.with("expected_version", &InWords(append.expected))
        }
        _ => problem,
    }
}

fn result_label(outcome: &Result<Outcome, StoreError>) -> &'static str {
    match outcome {
        Ok(Outcome::Written(_)) => "written",
        Ok(Outcome::Replayed(_)) => "replayed",
        Ok(Outcome::VersionConflict(_)) => "version_conflict",
        Ok(Outcome::EventIdReused(_)) => "event_id_reused",
        Ok(Outcome::EventPartlyKnown(_)) => "event_partly_known",
        Err(StoreError::Overloaded) => "overloaded",
        Err(StoreError::ShuttingDown) => "shutting_down",
        Err(StoreError::Unavailable(_)) => "database_unavailable",
        Err(StoreError::OutcomeUnknown) => "outcome_unknown",
        Err(StoreError::Internal(_)) => "internal",
    }
}

fn appended(app: &App, request: &AppendRequest, recorded: &[Vec<Recorded>]) -> Vec<Appended> {
    let every = i64::from(app.settings.snapshot_every);
    request
        .appends
        .iter()
        .zip(recorded)
        .filter_map(|(append, recorded)| {
            let (first, last) = (recorded.first()?, recorded.last()?);
            Some(Appended {
                aggregate_type: append.stream.aggregate_type().to_owned(),
                aggregate_id: append.stream.aggregate_id().to_owned(),
                version: last.version,
                first_version: first.version,
                global_position: last.global_position,
                snapshot_due: i64::from(last.version) / every > i64::from(first.version - 1) / every,
                events: recorded.iter().map(RecordedOut::from).collect(),
            })
        })
        .collect()
}

impl From<&Recorded> for RecordedOut {
    fn from(event: &Recorded) -> Self {
        Self {
            event_id: event.event_id.to_string(),
            version: event.version,
            global_position: event.global_position,
            occurred_at: wire::time(event.occurred_at),
        }
    }
}

fn answer(status: StatusCode, replayed: bool, body: &impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// The answer to a failed precondition, with the missed events where the client prefers to have them.
async fn conflict(
    app: &App,
    append: &Append,
    current: Version,
    with_missed: bool,
) -> Result<Box<Problem>, Box<Problem>> {
    let detail = match append.expected {
        ExpectedVersion::Exact(expected) => {
            format!("the stream is at version {current}, and the request expects {expected}")
        }
        ExpectedVersion::None => {
            format!("the stream exists, at version {current}, and the request expects that it does not")
        }
        ExpectedVersion::Exists | ExpectedVersion::Any => {
            "the stream does not exist, and the request expects that it does".to_owned()
        }
    };
    let problem = Problem::new(Code::VersionConflict, detail)
        .with("expected_version", &InWords(append.expected))
        .with("current_version", &current)
        .with_header(header::ETAG, etag(current));
    if !with_missed {
        return Ok(problem);
    }
    let (missed, truncated) = missed_events(app, append, current).await?;
    Ok(problem
        .with_raw("missed_events", missed)
        .with("missed_events_truncated", &truncated)
        .with_header(HeaderName::from_static("preference-applied"), HeaderValue::from_static("return=representation")))
}

/// The events after the expected version, up to the one that the stream was at, and whether there are more.
async fn missed_events(app: &App, append: &Append, current: Version) -> Result<(Box<RawValue>, bool), Box<Problem>> {
    let none = || to_raw_value::<[u8]>(&[]).map(|list| (list, false)).map_err(|_| lost());
    let Ok(after) = Version::try_from(append.expected.missed_after()) else { return none() };
    let range = VersionRange { from: after.saturating_add(1), to: current, direction: Direction::Forward };
    if range.is_empty() {
        return none();
    }
    let Some(head) = app.store.stream_head(&append.stream).await? else { return none() };
    let mut list = vec![b'['];
    let left = app
        .store
        .read_stream(&append.stream, &head, range, MISSED_EVENTS_MAX, |event| {
            if list.len() > 1 {
                list.push(b',');
            }
            wire::write_event(&mut list, event);
            if list.len() < MISSED_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
    list.push(b']');
    let list = String::from_utf8(list).ok().and_then(|list| RawValue::from_string(list).ok()).ok_or_else(lost)?;
    Ok((list, !left.is_empty()))
}

fn lost() -> Box<Problem> {
    Problem::new(Code::Internal, "the answer of the store is incomplete; this is a defect")
}
