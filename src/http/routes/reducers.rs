//! Reducers: registered, read, forgotten, and tried out without storing anything.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::state::raw;
use super::stream::not_found as stream_not_found;
use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::name::StreamId;
use crate::domain::reducer::{Language, Reducer, ReducerSource, SNAPSHOT_EVERY_MAX, UnknownLanguage};
use crate::domain::version::Version;
use crate::http::access::Caller;
use crate::http::conditional::NO_CACHE;
use crate::http::event_in::{Defaults, Door, EventIn};
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::{NewEventSchema, ReadProblems, WriteProblems};
use crate::http::path::PathParams;
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::no_parameters;
use crate::http::{body, wire};
use crate::reducers::{FoldError, Trial, canonical};
use crate::store::StoredEvent;
use crate::store::read::{Direction, Pace, VersionRange};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewReducer)]
pub struct ReducerIn<'b> {
    /// `javascript` or `merge-patch`
    language: Cow<'b, str>,
    /// JavaScript: an object of handlers, one an event type, besides `init` and `$any`. None for merge-patch.
    source: Option<String>,
    /// Events between two snapshots, 1 to 10000; what `SNAPSHOT_EVERY` says if absent. 50 to 100 suits most.
    #[schema(minimum = 1, maximum = 10000)]
    snapshot_every: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestIn<'b> {
    language: Cow<'b, str>,
    source: Option<String>,
    aggregate_id: Option<String>,
    #[serde(borrow)]
    events: Option<Vec<EventIn<'b>>>,
    snapshot_every: Option<u32>,
}

/// A reducer to be tried out.
#[derive(ToSchema)]
#[schema(as = ReducerTest)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of TestIn, for the document")]
pub struct TestSchema {
    language: String,
    source: Option<String>,
    /// The first 1,000 events of this aggregate; or `events`.
    aggregate_id: Option<String>,
    #[schema(min_items = 1, max_items = 1000)]
    events: Option<Vec<NewEventSchema>>,
    /// As it would be registered; if absent, as the type's reducer has it.
    #[schema(minimum = 1, maximum = 10000)]
    snapshot_every: Option<u32>,
}

/// The reducer of a type.
#[derive(Serialize, ToSchema)]
#[schema(as = Reducer)]
pub struct ReducerOut {
    aggregate_type: String,
    /// A number that is never used again.
    revision: i64,
    language: &'static str,
    source: String,
    snapshot_every: u32,
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Serialize, ToSchema)]
pub struct ReducerList {
    reducers: Vec<ReducerOut>,
}

/// What a reducer made of each event.
#[derive(Serialize, ToSchema)]
pub struct TestOut {
    aggregate_type: String,
    states: Vec<StateAfter>,
}

#[derive(Serialize, ToSchema)]
pub struct StateAfter {
    version: Version,
    event_type: String,
    #[schema(value_type = serde_json::Value)]
    state: Box<RawValue>,
}

impl From<Reducer> for ReducerOut {
    fn from(reducer: Reducer) -> Self {
        Self {
            aggregate_type: reducer.aggregate_type,
            revision: reducer.revision,
            language: reducer.source.language.as_str(),
            source: reducer.source.source,
            snapshot_every: reducer.source.snapshot_every,
            created_at: wire::time(reducer.created_at),
        }
    }
}

/// List the reducers
#[utoipa::path(get, path = "/reducers", tag = "aggregates", responses(
    (status = 200, description = "All reducers, in byte order of their types", body = ReducerList),
    ReadProblems,
))]
pub async fn list_reducers(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    no_parameters(&uri)?;
    let reducers = app.store.reducers().await?.into_iter();
    let readable = reducers.filter(|reducer| caller.may(Scope::Read, &reducer.aggregate_type));
    let reducers = readable.map(ReducerOut::from).collect();
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], Json(ReducerList { reducers })).into_response())
}

/// Read a type's reducer
#[utoipa::path(get, path = "/reducers/{aggregate_type}", tag = "aggregates",
    params(("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255)),
    responses(
        (status = 200, description = "The reducer", body = ReducerOut),
        (status = 404, description = "The type has none", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_reducer(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let aggregate_type = path.name("aggregate_type")?;
    no_parameters(&uri)?;
    let reducer = app.store.reducer(aggregate_type).await?.ok_or_else(|| not_found(aggregate_type))?;
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], Json(ReducerOut::from(reducer))).into_response())
}

/// Register a type's reducer, or replace it
///
/// A new one makes the snapshots of the old one invisible at once. One that says the same keeps its revision.
#[utoipa::path(put, path = "/reducers/{aggregate_type}", tag = "aggregates",
    params(("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255)),
    request_body(content = ReducerIn, content_type = "application/json"),
    responses(
        (status = 200, description = "It replaces another one, or is the same", body = ReducerOut),
        (status = 201, description = "It is the type's first", body = ReducerOut),
        (status = 422, description = "It is not understood", body = ProblemSchema, content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn put_reducer(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let body = body::read_json(&headers, body, &app.settings).await?;
    let aggregate_type = path.name("aggregate_type")?;
    no_parameters(&uri)?;
    let reducer = body::parse::<ReducerIn>(&body)?;
    let snapshot_every = check_interval(reducer.snapshot_every.unwrap_or(app.settings.snapshot_every))?;
    let source = source(&reducer.language, reducer.source, snapshot_every)?;
    // One that does not even begin is refused here, and not at the first fold.
    Trial::begin(&app.workers, aggregate_type, &source).await?.finish().await?;
    let (reducer, created) = app.store.put_reducer(aggregate_type, source).await?;
    app.snapshotter.refresh().await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(ReducerOut::from(reducer))).into_response())
}

/// Forget a type's reducer, and with it the snapshots that it made
#[utoipa::path(delete, path = "/reducers/{aggregate_type}", tag = "aggregates",
    params(("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255)),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 400, description = "Not understood: `errors` says where", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 404, description = "The type has none", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 503, description = "Not now: retry after `Retry-After`", body = ProblemSchema, content_type = "application/problem+json"),
    ))]
pub async fn delete_reducer(State(app): State<Arc<App>>, path: PathParams, uri: Uri) -> Result<Response, Refusal> {
    let aggregate_type = path.name("aggregate_type")?;
    no_parameters(&uri)?;
    let existed = app.store.delete_reducer(aggregate_type).await?;
    app.snapshotter.refresh().await?;
    if existed { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(not_found(aggregate_type).into()) }
}

/// Try a reducer out, without storing anything
///
/// On the events of an aggregate, or on events that are sent along. Answers the state after each of them.
#[utoipa::path(post, path = "/reducers/{aggregate_type}/test", tag = "aggregates",
    params(("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255)),
    request_body(content = TestSchema, content_type = "application/json"),
    responses(
        (status = 200, description = "The state after each event", body = TestOut),
        (status = 404, description = "The stream does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "It is not understood, or it failed", body = ProblemSchema, content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn test_reducer(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let body = body::read_json(&headers, body, &app.settings).await?;
    let aggregate_type = path.name("aggregate_type")?.to_owned();
    no_parameters(&uri)?;
    let test = body::parse::<TestIn>(&body)?;
    let snapshot_every = match test.snapshot_every {
        Some(every) => check_interval(every)?,
        None => {
            let registered = app.store.reducer(&aggregate_type).await?;
            registered.map_or(app.settings.snapshot_every, |reducer| reducer.source.snapshot_every)
        }
    };
    let source = source(&test.language, test.source, snapshot_every)?;
    let mut trial = Trial::begin(&app.workers, &aggregate_type, &source).await?;
    let mut tried = Tried { trial: &mut trial, events: Vec::new(), fault: None };
    match (test.aggregate_id, test.events) {
        (Some(aggregate_id), None) => {
            let stream = StreamId::parse(aggregate_type.clone(), aggregate_id).map_err(|fault| {
                Problem::invalid(FieldError::pointer(format!("/{}", fault.field), fault.fault.to_string()))
            })?;
            let head = app.store.stream_head(&stream).await?.ok_or_else(|| stream_not_found(&stream))?;
            let mut left = VersionRange { from: 1, to: head.version, direction: Direction::Forward };
            let mut pace = Pace::default();
            while !left.is_empty() && tried.room() > 0 {
                let room = tried.room();
                left = app.store.read_stream(&stream, &head, left, room, &mut pace, |event| tried.take(event)).await?;
            }
        }
        (None, Some(events)) => {
            let mut door = Door::new(app.settings.max_body_bytes);
            door.let_in("/events", &events, Defaults::default(), |_| app.new_event_id())?;
            door.inspect("/events", &events)?;
            for (version, event) in (1..).zip(&events) {
                let sent = Sent::of(event)?;
                if tried.take(&sent.stored(&aggregate_type, version)).is_break() {
                    break;
                }
            }
        }
        _ => {
            let detail = "must stand there, or aggregate_id, and not both";
            return Err(Problem::invalid(FieldError::pointer("/events", detail)).into());
        }
    }
    let Tried { events, fault, .. } = tried;
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    let states = trial.finish().await?;
    let states = events
        .into_iter()
        .zip(states)
        .map(|((version, event_type), state)| Ok(StateAfter { version, event_type, state: raw(state)? }));
    let states = states.collect::<Result<_, Box<Problem>>>()?;
    Ok(Json(TestOut { aggregate_type, states }).into_response())
}

/// A trial that takes events as they are read.
struct Tried<'t> {
    trial: &'t mut Trial,
    events: Vec<(Version, String)>,
    fault: Option<FoldError>,
}

impl Tried<'_> {
    fn room(&self) -> usize {
        if self.fault.is_some() { 0 } else { self.trial.room() }
    }

    fn take(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        match self.trial.take(event) {
            Ok(()) => self.events.push((event.version, event.event_type.to_owned())),
            Err(fault) => self.fault = Some(fault),
        }
        if self.room() > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// An event that was sent along, with its documents in the order in which the database would give them back.
struct Sent<'e> {
    event_type: &'e str,
    event_data: String,
    metadata: Option<String>,
}

impl<'e> Sent<'e> {
    fn of(event: &'e EventIn<'_>) -> Result<Self, Box<Problem>> {
        let ordered = |document: &RawValue| {
            let mut text = String::new();
            canonical(document, &mut text).map(|()| text)
        };
        let not_json = |_| Problem::new(Code::Internal, "a document that was let in is not JSON");
        Ok(Self {
            event_type: event.event_type.as_deref().unwrap_or_default(),
            event_data: event.event_data.map_or(Ok("null".to_owned()), ordered).map_err(not_json)?,
            metadata: event.metadata.map(ordered).transpose().map_err(not_json)?,
        })
    }

    /// As if it were the stream's.
    fn stored<'s>(&'s self, aggregate_type: &'s str, version: Version) -> StoredEvent<'s> {
        StoredEvent {
            event_id: Uuid::nil(),
            aggregate_type,
            aggregate_id: "test",
            version,
            global_position: i64::from(version),
            event_type: self.event_type,
            event_data: &self.event_data,
            metadata: self.metadata.as_deref(),
            occurred_at: DateTime::UNIX_EPOCH,
            correlation_id: None,
            causation_id: None,
        }
    }
}

/// What a request says of a reducer, as far as it can be told without running it.
fn source(language: &str, source: Option<String>, snapshot_every: u32) -> Result<ReducerSource, Box<Problem>> {
    let language = language
        .parse()
        .map_err(|unknown: UnknownLanguage| Problem::invalid(FieldError::pointer("/language", unknown.to_string())))?;
    let source = match (language, source.filter(|source| !source.trim().is_empty())) {
        (Language::MergePatch, Some(_)) => {
            let detail = "merge-patch is complete as it is: it takes no source";
            return Err(Problem::new(Code::InvalidReducer, detail).with("line", &1).with("column", &1));
        }
        (Language::JavaScript, None) => {
            return Err(Problem::invalid(FieldError::pointer("/source", "is required: an object of handlers")));
        }
        (_, source) => source.unwrap_or_default(),
    };
    Ok(ReducerSource { language, source, snapshot_every })
}

fn check_interval(snapshot_every: u32) -> Result<u32, Box<Problem>> {
    if (1..=SNAPSHOT_EVERY_MAX).contains(&snapshot_every) {
        return Ok(snapshot_every);
    }
    let detail = format!("must be from 1 to {SNAPSHOT_EVERY_MAX}");
    Err(Problem::invalid(FieldError::pointer("/snapshot_every", detail)))
}

fn not_found(aggregate_type: &str) -> Box<Problem> {
    Problem::new(Code::ReducerNotFound, format!("the type {aggregate_type:?} has no reducer"))
}
