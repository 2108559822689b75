//! `GET /aggregates/{aggregate_type}/{aggregate_id}/state`: the state of an aggregate, folded by its reducer.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use chrono::SubsecRound;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::cursor::Cursor;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::min_position::take_min_position;
use crate::http::extract::path::StreamPath;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::parameters::{MinPositionParams, StreamParams};
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::response::{json, stored_json};
use crate::http::routes::aggregates::reducer::reducer_of;
use crate::reducers::error::FoldError;
use crate::reducers::fold::{AsOf, fold};
use crate::store::required_position::RequiredPosition;
use crate::wire::time::format_time;

/// The state of an aggregate, and how it was computed.
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateState)]
pub struct StateOut {
    aggregate_type: String,
    aggregate_id: String,
    /// The version of the last event in the state.
    version: Version,
    #[schema(format = DateTime)]
    occurred_at: String,
    #[schema(value_type = serde_json::Value)]
    state: Box<RawValue>,
    /// The version of the snapshot with which the computation began; null if it began with the first event.
    snapshot_version: Option<Version>,
    events_folded: usize,
}

/// The query parameters.
pub struct StateParameters {
    as_of: AsOf,
    min_position: Option<Cursor>,
}

impl FromQuery for StateParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let version = query.take_number("version", 1, EXACT_INTEGER_MAX)?;
        let at = query.take_time("at")?;
        let min_position = take_min_position(&mut query)?;
        query.finish()?;
        let as_of = match (version, at) {
            (None, None) => AsOf::Now,
            (Some(version), None) => AsOf::Version(Version::try_from(version).unwrap_or(Version::MAX)),
            (None, Some(at)) => AsOf::Time(at.trunc_subsecs(6)),
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(FieldError::parameter("at", "must not be sent together with version")));
            }
        };
        Ok(Self { as_of, min_position })
    }
}

/// Get the state of an aggregate
///
/// The type's reducer folds the events, beginning with the latest usable snapshot. The state does not depend on the
/// snapshot.
#[utoipa::path(get, path = "/aggregates/{aggregate_type}/{aggregate_id}/state", operation_id = "read_state",
    tag = "aggregates",
    params(
        StreamParams,
        ("version" = Option<u64>, Query, description = "The state after this version", minimum = 1),
        ("at" = Option<String>, Query, description = "The state at this time, inclusive (RFC 3339)"),
        MinPositionParams,
    ),
    responses(
        (status = 200, description = "The state", body = StateOut),
        (status = 404, description = "The stream does not exist, has no such version, or had no event at this time",
            body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "The type has no reducer, or `min_position` was lost", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 422, description = "The reducer failed", body = ProblemSchema,
            content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_state(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    StreamPath(stream): StreamPath,
    Parameters(StateParameters { as_of, min_position }): Parameters<StateParameters>,
) -> ApiResult<Response> {
    RequiredPosition::scope(min_position, respond(&app, &stream, as_of)).await
}

async fn respond(app: &App, stream: &StreamId, as_of: AsOf) -> ApiResult<Response> {
    let reducer = reducer_of(app, stream).await?;

    let started = Instant::now();
    let folded = fold(&app.reader(), &app.workers, &reducer, stream, as_of).await.inspect_err(|error| {
        if matches!(error, FoldError::Failed(_)) {
            app.metrics.reducer_failures.inc();
        }
    })?;
    app.metrics.count_load(folded.snapshot_version.is_some(), folded.unusable_snapshot, started.elapsed());
    app.snapshotter.on_load(stream, folded.events, folded.unusable_snapshot);
    Ok(json(StateOut {
        aggregate_type: stream.aggregate_type().to_owned(),
        aggregate_id: stream.aggregate_id().to_owned(),
        version: folded.version,
        occurred_at: format_time(folded.occurred_at),
        state: stored_json(folded.state)?,
        snapshot_version: folded.snapshot_version,
        events_folded: folded.events,
    }))
}
