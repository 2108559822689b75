//! `GET /projections/{projection_name}/history`: the position of a projection over the last day.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::ProjectionPath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::ProjectionParams;
use crate::http::openapi::responses::{ProjectionNotFound, ReadProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::representation::response::json;
use crate::jobs::samples::Sample;
use crate::wire::time::format_time;

/// The position of a projection over time.
#[derive(Serialize, ToSchema)]
#[schema(as = ProjectionHistory)]
pub struct ProjectionHistoryOut {
    /// The time from which on this process has samples: its start, or a day ago.
    #[schema(format = DateTime)]
    since: String,
    /// Every 10 seconds of the last hour, and every minute of the 23 hours before, in order. Empty until the projection
    /// is first sampled.
    samples: Vec<ProjectionSampleOut>,
}

/// A projection and the log at one time.
#[derive(Serialize, ToSchema)]
#[schema(as = ProjectionSample)]
pub struct ProjectionSampleOut {
    #[schema(format = DateTime)]
    at: String,
    /// The position of the last event of the log.
    head: Position,
    last_processed_position: Position,
}

impl From<Sample> for ProjectionSampleOut {
    fn from(sample: Sample) -> Self {
        Self { at: format_time(sample.at), head: sample.head, last_processed_position: sample.position }
    }
}

/// Read the position of a projection over the last day
///
/// From the memory of the process that serves the request.
#[utoipa::path(get, path = "/projections/{projection_name}/history", operation_id = "read_projection_history",
    tag = "projections",
    params(ProjectionParams),
    responses(
        (status = 200, description = "The samples of the projection", body = ProjectionHistoryOut),
        ProjectionNotFound,
        ReadProblems,
    ))]
pub async fn read_projection_history(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    ProjectionPath(name): ProjectionPath,
    _: NoQuery,
) -> ApiResult<Response> {
    app.primary.projection(&name).await?.ok_or_else(|| ApiError::projection_not_found(&name))?;
    let (since, samples) = app.projection_history.of(&name);
    let samples = samples.into_iter().map(ProjectionSampleOut::from).collect();
    Ok(json(ProjectionHistoryOut { since: format_time(since), samples }))
}
