//! The state of an aggregate, folded by its reducer: now, as of a version, or as of a time.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::SubsecRound;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::stream::not_found;
use crate::app::App;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::http::conditional::NO_CACHE;
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::ReadProblems;
use crate::http::path::PathParams;
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::Query;
use crate::http::{min_position, wire};
use crate::reducers::javascript::message::Invalid;
use crate::reducers::{Failed, FoldError, Folded, Until, fold};

/// A state, and how it came about.
#[derive(Serialize, ToSchema)]
pub struct StateOut {
    aggregate_type: String,
    aggregate_id: String,
    /// The version that it is the state of.
    version: Version,
    #[schema(format = DateTime)]
    occurred_at: String,
    #[schema(value_type = serde_json::Value)]
    state: Box<RawValue>,
    /// The snapshot that the fold began with; null if it began with the first event.
    snapshot_version: Option<Version>,
    events_folded: usize,
}

/// What an aggregate is, or was
///
/// Folded by the type's reducer, from the latest snapshot that fits. The answer does not depend on which one that is.
#[utoipa::path(get, path = "/aggregates/{aggregate_type}/{aggregate_id}/state", tag = "aggregates",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("version" = Option<u64>, Query, description = "As of this version", minimum = 1),
        ("at" = Option<String>, Query, description = "As of this time, which is included (RFC 3339)"),
        ("min_position" = Option<u64>, Query, description = "Answers only once the log has this position, which it waits for up to a second"),
    ),
    responses(
        (status = 200, description = "The state", body = StateOut),
        (status = 404, description = "The stream does not exist, or had no event yet", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "The type has no reducer", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "The reducer failed", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_state(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let stream = path.stream()?;
    let (until, position) = parameters(&uri)?;
    min_position::reached(&app, &app.reads, position).await?;
    let Some(reducer) = app.reads.reducer(stream.aggregate_type()).await? else {
        app.reads.stream_head(&stream).await?.ok_or_else(|| not_found(&stream))?;
        let detail = format!("the type {:?} has no reducer: register one, or load the events", stream.aggregate_type());
        return Err(Problem::new(Code::NoReducer, detail).into());
    };

    let started = Instant::now();
    let folded = fold(&app.reads, &app.workers, &reducer, &stream, until).await.inspect_err(|error| {
        if matches!(error, FoldError::Failed(_)) {
            app.metrics.reducer_failures.inc();
        }
    })?;
    app.metrics.count_load(folded.snapshot_version.is_some(), folded.misfit, started.elapsed());
    app.snapshotter.loaded(&stream, folded.events, folded.misfit);
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], axum::Json(out(&stream, folded)?)).into_response())
}

fn parameters(uri: &Uri) -> Result<(Until, Option<Position>), Box<Problem>> {
    let mut query = Query::of(uri)?;
    let version = query.take_number("version", 1, EXACT_INTEGER_MAX)?;
    let at = query.take_time("at")?;
    let position = min_position::take(&mut query)?;
    query.finish()?;
    let until = match (version, at) {
        (None, None) => Until::Now,
        (Some(version), None) => Until::Version(Version::try_from(version).unwrap_or(Version::MAX)),
        (None, Some(at)) => Until::Time(at.trunc_subsecs(6)),
        (Some(_), Some(_)) => {
            return Err(Problem::invalid(FieldError::parameter(
                "at",
                "and version exclude each other: send one of them",
            )));
        }
    };
    Ok((until, position))
}

fn out(stream: &StreamId, folded: Folded) -> Result<StateOut, Box<Problem>> {
    Ok(StateOut {
        aggregate_type: stream.aggregate_type().to_owned(),
        aggregate_id: stream.aggregate_id().to_owned(),
        version: folded.version,
        occurred_at: wire::time(folded.occurred_at),
        state: raw(folded.state)?,
        snapshot_version: folded.snapshot_version,
        events_folded: folded.events,
    })
}

/// A state as it stands in an answer.
pub(super) fn raw(state: String) -> Result<Box<RawValue>, Box<Problem>> {
    RawValue::from_string(state).map_err(|_| Problem::new(Code::Internal, "the state is not JSON"))
}

impl From<FoldError> for Refusal {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::StreamNotFound(stream) => not_found(&stream).into(),
            FoldError::NoSuchVersion(stream, head) => {
                let detail =
                    format!("the stream {stream}, which is at version {head}, had no such version, or no event yet");
                Problem::new(Code::EventNotFound, detail).into()
            }
            FoldError::Invalid(invalid) => invalid_reducer(&invalid).into(),
            FoldError::Failed(failed) => reducer_failed(&failed).into(),
            FoldError::Store(error) => error.into(),
        }
    }
}

/// A source that cannot be used, and where.
fn invalid_reducer(invalid: &Invalid) -> Box<Problem> {
    let problem = Problem::new(Code::InvalidReducer, invalid.message.clone());
    problem.with("line", &invalid.line).with("column", &invalid.column)
}

/// What a person who wrote the reducer needs to find the event.
fn reducer_failed(failed: &Failed) -> Box<Problem> {
    let problem = Problem::new(Code::ReducerFailed, failed.to_string());
    problem.with("version", &failed.version).with("global_position", &failed.global_position)
}
