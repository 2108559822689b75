//! `GET /projections/{projection_name}/history` and `GET /groups/{group_name}/history`: the position of a projection, or
//! of a consumer group, over the last day.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::{GroupPath, ProjectionPath};
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::{GroupParams, ProjectionParams};
use crate::http::openapi::responses::{GroupNotFound, ProjectionNotFound, ReadProblems};
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

impl ProjectionHistoryOut {
    fn of(app: &App, name: &str) -> Self {
        let (since, samples) = app.projection_history.of(name);
        Self { since: format_time(since), samples: samples.into_iter().map(ProjectionSampleOut::from).collect() }
    }
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
    Ok(json(ProjectionHistoryOut::of(&app, &name)))
}

/// Read the position of a consumer group over the last day
///
/// From the memory of the process that serves the request.
#[utoipa::path(get, path = "/groups/{group_name}/history", operation_id = "read_group_history", tag = "groups",
    params(GroupParams),
    responses(
        (status = 200, description = "The samples of the group", body = ProjectionHistoryOut),
        GroupNotFound,
        ReadProblems,
    ))]
pub async fn read_group_history(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    GroupPath(name): GroupPath,
    _: NoQuery,
) -> ApiResult<Response> {
    app.primary.group(&name).await?.ok_or_else(|| ApiError::group_not_found(&name))?;
    Ok(json(ProjectionHistoryOut::of(&app, &name)))
}
