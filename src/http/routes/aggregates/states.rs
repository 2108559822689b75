//! `GET /aggregates/{aggregate_type}/{aggregate_id}/states`: the state of an aggregate after each of several events.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::cursor::Cursor;
use crate::domain::name::StreamId;
use crate::domain::version::{VERSION_MAX, Version};
use crate::http::base_path::link;
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
use crate::reducers::states::{StateAfter, fold_states};
use crate::store::required_position::RequiredPosition;
use crate::wire::path::segment;
use crate::wire::time::format_time;

/// A page of the states of an aggregate.
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateStates)]
pub struct StatesOut {
    aggregate_type: String,
    aggregate_id: String,
    states: Vec<StateAfterEventOut>,
    /// The path of the next page; null at the end.
    next: Option<String>,
}

/// An event, and the state after it.
#[derive(Serialize, ToSchema)]
#[schema(as = StateAfterEvent)]
pub struct StateAfterEventOut {
    version: Version,
    #[schema(format = Uuid)]
    event_id: String,
    event_type: String,
    #[schema(format = DateTime)]
    occurred_at: String,
    #[schema(value_type = serde_json::Value)]
    state: Box<RawValue>,
}

impl StateAfterEventOut {
    fn new(after: StateAfter) -> ApiResult<Self> {
        Ok(Self {
            version: after.version,
            event_id: after.event_id.to_string(),
            event_type: after.event_type,
            occurred_at: format_time(after.occurred_at),
            state: stored_json(after.state)?,
        })
    }
}

/// The query parameters.
pub struct StatesParameters {
    from_version: Option<u64>,
    to_version: Option<u64>,
    min_position: Option<Cursor>,
}

impl FromQuery for StatesParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let from_version = query.take_number("from_version", 1, VERSION_MAX)?;
        let to_version = query.take_number("to_version", 1, VERSION_MAX)?;
        let min_position = take_min_position(&mut query)?;
        query.finish()?;
        if let (Some(from), Some(to)) = (from_version, to_version)
            && from > to
        {
            let detail = format!("must not be above to_version ({from} > {to})");
            return Err(ApiError::invalid(FieldError::parameter("from_version", detail)));
        }
        Ok(Self { from_version, to_version, min_position })
    }
}

impl StatesParameters {
    /// Returns the link to the states from a version on.
    fn link_to(&self, stream: &StreamId, from: Version) -> String {
        let mut parameters = vec![("from_version", from.to_string())];
        parameters.extend(self.to_version.map(|to| ("to_version", to.to_string())));
        let (aggregate_type, aggregate_id) = (segment(stream.aggregate_type()), segment(stream.aggregate_id()));
        link(&format!("/aggregates/{aggregate_type}/{aggregate_id}/states"), &parameters)
    }
}

/// Get the state of an aggregate after each event
///
/// The type's reducer folds the events. Each state is the one that `/state` returns for its version. A page has at most
/// 1000 states, and ends at 8 MiB.
#[utoipa::path(get, path = "/aggregates/{aggregate_type}/{aggregate_id}/states", operation_id = "read_states",
    tag = "aggregates",
    params(
        StreamParams,
        ("from_version" = Option<u64>, Query, description = "The first version, default 1", minimum = 1),
        ("to_version" = Option<u64>, Query, description = "The last version, default the head", minimum = 1),
        MinPositionParams,
    ),
    responses(
        (status = 200, description = "A page of states", body = StatesOut),
        (status = 404, description = "The stream does not exist, or does not have `from_version`",
            body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "The type has no reducer, or `min_position` was lost", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 422, description = "The reducer failed", body = ProblemSchema,
            content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_states(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    StreamPath(stream): StreamPath,
    Parameters(parameters): Parameters<StatesParameters>,
) -> ApiResult<Response> {
    RequiredPosition::scope(parameters.min_position, respond(&app, &stream, &parameters)).await
}

async fn respond(app: &App, stream: &StreamId, parameters: &StatesParameters) -> ApiResult<Response> {
    let reducer = reducer_of(app, stream).await?;
    let version = |version: u64| Version::try_from(version).unwrap_or(Version::MAX);
    let from = parameters.from_version.map_or(1, version);
    let to = parameters.to_version.map_or(Version::MAX, version);
    let folded = fold_states(&app.reader(), &app.workers, &reducer, stream, from, to).await.inspect_err(|error| {
        if matches!(error, FoldError::Failed(_)) {
            app.metrics.reducer_failures.inc();
        }
    })?;
    Ok(json(StatesOut {
        aggregate_type: stream.aggregate_type().to_owned(),
        aggregate_id: stream.aggregate_id().to_owned(),
        states: folded.states.into_iter().map(StateAfterEventOut::new).collect::<ApiResult<_>>()?,
        next: folded.next.map(|next| parameters.link_to(stream, next)),
    }))
}
