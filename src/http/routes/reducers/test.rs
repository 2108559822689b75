//! `POST /reducers/{aggregate_type}/test`: test a reducer without storing anything.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::domain::event::{EventId, StoredEvent};
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::path::TypePath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::TypeParams;
use crate::http::openapi::request_bodies::ReducerTestSchema;
use crate::http::openapi::responses::{StreamNotFound, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::response::stored_json;
use crate::http::routes::reducers::shared::{validate_interval, validate_source};
use crate::reducers::canonical::canonical;
use crate::reducers::error::FoldError;
use crate::reducers::trial::Trial;
use crate::store::fetch_size::FetchSize;
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;
use crate::wire::object::optional_objects;
use crate::wire::validation::{DefaultIds, EventIn, EventValidator};

/// The smallest body.
const EXAMPLE: &str = r#"{"language": "merge-patch", "aggregate_id": "ord-1"}"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrialIn<'b> {
    language: Cow<'b, str>,
    source: Option<String>,
    aggregate_id: Option<String>,
    #[serde(borrow, default, deserialize_with = "optional_objects")]
    events: Option<Vec<EventIn<'b>>>,
    snapshot_every: Option<u32>,
}

/// The states that a reducer computed.
#[derive(Serialize, ToSchema)]
#[schema(as = ReducerTestResult)]
pub struct TestOut {
    aggregate_type: String,
    states: Vec<StateAfter>,
}

/// The state after an event.
#[derive(Serialize, ToSchema)]
pub struct StateAfter {
    version: Version,
    event_type: String,
    #[schema(value_type = serde_json::Value)]
    state: Box<RawValue>,
}

/// Test a reducer without storing anything
///
/// With the events of an aggregate, or with events in the request. Returns the state after each event.
#[utoipa::path(post, path = "/reducers/{aggregate_type}/test", operation_id = "test_reducer", tag = "aggregates",
    params(TypeParams),
    request_body(content = ReducerTestSchema, content_type = "application/json"),
    responses(
        (status = 200, description = "The state after each event", body = TestOut),
        StreamNotFound,
        (status = 422, description = "The source cannot be used, or the reducer failed", body = ProblemSchema,
            content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn test_reducer(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    request: JsonRequest<(TypePath, NoQuery)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (TypePath(aggregate_type), NoQuery), body } = request;
    let sent: TrialIn<'_> = body.parse(EXAMPLE)?;
    let snapshot_every = match sent.snapshot_every {
        Some(snapshot_every) => validate_interval(snapshot_every)?,
        None => {
            let registered = app.primary.reducer(&aggregate_type).await?;
            registered.map_or(app.settings.snapshot_every, |reducer| reducer.source.snapshot_every)
        }
    };
    let source = validate_source(&sent.language, sent.source, snapshot_every)?;
    let mut run = TrialRun::new(Trial::start(&app.workers, &aggregate_type, &source).await?);
    match (sent.aggregate_id, sent.events) {
        (Some(aggregate_id), None) => {
            let stream = StreamId::parse(aggregate_type.clone(), aggregate_id).map_err(|fault| {
                ApiError::invalid(FieldError::pointer(format!("/{}", fault.field), fault.fault.to_string()))
            })?;
            run.push_stream(&app, &stream).await?;
        }
        (None, Some(events)) => run.push_sent(&app, &aggregate_type, &events)?,
        _ => return Err(ApiError::invalid(FieldError::pointer("/events", "send either events or aggregate_id"))),
    }
    let states = run.finish().await?;
    Ok(Json(TestOut { aggregate_type, states }).into_response())
}

/// A trial, and the events that were passed to it.
struct TrialRun {
    trial: Trial,
    events: Vec<(Version, String)>,
    failed: Option<FoldError>,
}

impl TrialRun {
    fn new(trial: Trial) -> Self {
        Self { trial, events: Vec::new(), failed: None }
    }

    /// The number of events that may still be passed.
    fn room(&self) -> usize {
        if self.failed.is_some() { 0 } else { self.trial.room() }
    }

    fn push(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        match self.trial.push(event) {
            Ok(()) => self.events.push((event.version, event.event_type.to_owned())),
            Err(error) => self.failed = Some(error),
        }
        if self.room() > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Passes the events of a stream.
    async fn push_stream(&mut self, app: &App, stream: &StreamId) -> ApiResult<()> {
        let head = app.primary.stream_head(stream).await?.ok_or_else(|| ApiError::stream_not_found(stream))?;
        let mut left = VersionRange::forward(1, head.version);
        let mut fetch_size = FetchSize::default();
        while !left.is_empty() && self.room() > 0 {
            let read = StreamRead { stream, head: &head, range: left, limit: self.room() };
            left = app.primary.read_stream(read, &mut fetch_size, |event| self.push(event)).await?;
        }
        Ok(())
    }

    /// Validates and passes the events of the request.
    fn push_sent(&mut self, app: &App, aggregate_type: &str, events: &[EventIn<'_>]) -> ApiResult<()> {
        let mut validator = EventValidator::new(app.settings.max_body_bytes);
        let new_id = |_| EventId::Generated(app.new_event_id());
        validator.validate("/events", events, DefaultIds::default(), new_id)?;
        validator.validate_payloads("/events", events)?;
        for (version, event) in (1..).zip(events) {
            let event = SentEvent::new(event)?;
            if self.push(&event.as_stored(aggregate_type, version)).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Returns the state after each event, or the error with which the reducer failed.
    async fn finish(self) -> ApiResult<Vec<StateAfter>> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let states = self.trial.finish().await?;
        let events = self.events.into_iter().zip(states);
        events
            .map(|((version, event_type), state)| Ok(StateAfter { version, event_type, state: stored_json(state)? }))
            .collect()
    }
}

/// An event of the request. The keys in its documents have the order in which the database would return them.
struct SentEvent<'e> {
    event_type: &'e str,
    event_data: String,
    metadata: Option<String>,
}

impl<'e> SentEvent<'e> {
    fn new(event: &'e EventIn<'_>) -> ApiResult<Self> {
        let ordered = |document: &RawValue| {
            let mut text = String::new();
            canonical(document, &mut text).map(|()| text).map_err(ApiError::internal)
        };
        Ok(Self {
            event_type: event.event_type.as_deref().unwrap_or_default(),
            event_data: event.event_data.map_or(Ok("null".to_owned()), ordered)?,
            metadata: event.metadata.map(ordered).transpose()?,
        })
    }

    /// Returns the event as if it were stored.
    fn as_stored<'s>(&'s self, aggregate_type: &'s str, version: Version) -> StoredEvent<'s> {
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
