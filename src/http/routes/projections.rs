//! `/projections`: positions of projections, compare-and-set, and waiting for a projection (read your own writes).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::version::ExpectedVersion;
use crate::groups::error::GroupError;
use crate::groups::group::ActiveGroup;
use crate::http::cache::{NO_CACHE, etag};
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::conditional::Precondition;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::path::ProjectionPath;
use crate::http::extract::query::{FromQuery, NoQuery, Parameters, Query};
use crate::http::openapi::parameters::ProjectionParams;
use crate::http::openapi::responses::{DeleteProblems, ProjectionNotFound, ReadProblems, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::response::json;
use crate::store::admin::projections::{
    ExpectedPosition, Movement, NewPosition, PROJECTIONS_MAX, PROJECTIONS_OF_KEY_MAX, Projection, SetProjectionResult,
};
use crate::store::error::StoreError;
use crate::subscriptions::projection_wait::ProjectionWait;
use crate::wire::time::format_time;

const TIMEOUT_SECONDS_DEFAULT: u64 = 5;
const TIMEOUT_SECONDS_MAX: u64 = 60;

/// The body of a PUT.
const EXAMPLE: &str = r#"{"last_processed_position": 1042}"#;

/// The position of a projection, to store.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPosition)]
pub struct PositionIn {
    /// The last position that the projection has processed, 0 for none.
    #[schema(value_type = u64, maximum = 9007199254740991_u64)]
    last_processed_position: i64,
}

/// A projection and its position.
#[derive(Serialize, ToSchema)]
#[schema(as = Projection)]
pub struct ProjectionOut {
    projection_name: String,
    last_processed_position: Position,
    #[schema(format = DateTime)]
    last_processed_at: String,
    /// The number of positions between it and the head of the log.
    lag: Position,
    /// The seconds since its first unprocessed event occurred; 0 if there is none.
    lag_seconds: f64,
}

/// All projections, in the order of their names.
#[derive(Serialize, ToSchema)]
pub struct ProjectionList {
    projections: Vec<ProjectionOut>,
}

impl ProjectionOut {
    fn new(projection: Projection, head: Position) -> Self {
        Self {
            lag: projection.lag(head),
            lag_seconds: projection.waiting_seconds.unwrap_or(0.0).max(0.0),
            projection_name: projection.projection_name,
            last_processed_position: projection.last_processed_position,
            last_processed_at: format_time(projection.last_processed_at),
        }
    }
}

/// The query parameters of a read.
pub struct WaitParameters {
    /// The position that the projection must have processed.
    wait_for: Option<Position>,
    timeout: Duration,
}

impl FromQuery for WaitParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let wait_for = query.take_number("wait_for", 0, EXACT_INTEGER_MAX)?;
        let timeout = query.take_number("timeout", 1, TIMEOUT_SECONDS_MAX)?.unwrap_or(TIMEOUT_SECONDS_DEFAULT);
        query.finish()?;
        Ok(Self { wait_for, timeout: Duration::from_secs(timeout) })
    }
}

/// `reset=true`: the position may move backwards.
impl FromQuery for Movement {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let movement = if query.take_flag("reset")? { Self::Any } else { Self::ForwardOnly };
        query.finish()?;
        Ok(movement)
    }
}

/// List the projections
#[utoipa::path(get, path = "/projections", operation_id = "list_projections", tag = "projections", responses(
    (status = 200, description = "All projections, in the byte order of their names", body = ProjectionList),
    ReadProblems,
))]
pub async fn list_projections(State(app): State<Arc<App>>, _: AcceptsJson, _: NoQuery) -> ApiResult<Response> {
    let projections = app.primary.projections().await?;
    let head = head(&app).await?;
    let projections = projections.into_iter().map(|projection| ProjectionOut::new(projection, head)).collect();
    Ok(json(ProjectionList { projections }))
}

/// Read the position of a projection
///
/// With `wait_for`, the service answers when the projection has processed this position.
#[utoipa::path(get, path = "/projections/{projection_name}", operation_id = "read_projection", tag = "projections",
    params(
        ProjectionParams,
        ("wait_for" = Option<u64>, Query, description = "Waits until the projection has processed this position"),
        ("timeout" = Option<u64>, Query, description = "The longest wait in seconds, 1 to 60, default 5", minimum = 1,
            maximum = 60),
    ),
    responses(
        (status = 200, description = "The projection and its position", body = ProjectionOut),
        ProjectionNotFound,
        (status = 422, description = "`wait_for` is beyond the head of the log", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 504, description = "The projection did not process the position in time", body = ProblemSchema,
            content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_projection(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    ProjectionPath(name): ProjectionPath,
    Parameters(WaitParameters { wait_for, timeout }): Parameters<WaitParameters>,
) -> ApiResult<Response> {
    let deadline = Instant::now() + timeout;
    let wait = match wait_for {
        Some(wanted) => Some((wanted, ProjectionWait::start(&app.awaited_projections, &name)?)),
        None => None,
    };
    let group = follow_group(&app, &name).await?;
    let mut projection = read_existing(&app, &name).await?;
    if let Some((wanted, mut wait)) = wait.filter(|(wanted, _)| projection.last_processed_position < *wanted) {
        // A client waits for an event that it knows. The head of the log never falls.
        let head = head(&app).await?;
        if wanted > head {
            return Err(ApiError::position_beyond_head(head));
        }
        match &group {
            // The position of a group follows its claims while a request waits for it.
            Some(group) => tokio::select! {
                waited = wait.wait(wanted, deadline) => waited?,
                followed = app.groups.follow(group) => followed?,
            },
            None => wait.wait(wanted, deadline).await?,
        }
        projection = read_existing(&app, &name).await?;
    }
    let (position, head) = (projection.last_processed_position, head(&app).await?);
    if wait_for.is_some_and(|wanted| position < wanted) {
        return Err(ApiError::projection_behind(position, projection.lag(head)));
    }
    let headers = [(header::CACHE_CONTROL, NO_CACHE), (header::ETAG, etag(position))];
    Ok((headers, Json(ProjectionOut::new(projection, head))).into_response())
}

/// Set the position of a projection
///
/// `If-Match: "1000"` makes it a compare-and-set. The position never moves backwards without `reset=true`, and never
/// beyond the head of the log.
#[utoipa::path(put, path = "/projections/{projection_name}", operation_id = "set_projection", tag = "projections",
    params(
        ProjectionParams,
        ("reset" = Option<bool>, Query, description = "`true`: the position may move backwards"),
        ("If-Match" = Option<String>, Header,
            description = "The expected position, `\"1000\"`, or `*`: the projection exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: the projection does not exist"),
    ),
    request_body(content = PositionIn, content_type = "application/json"),
    responses(
        (status = 200, description = "Updated", body = ProjectionOut),
        (status = 201, description = "Created", body = ProjectionOut),
        (status = 409, description = "The position is before the current one, or a consumer group moves the projection",
            body = ProblemSchema, content_type = "application/problem+json"),
        (status = 412, description = "The projection is at another position", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 422, description = "The position is beyond the head of the log", body = ProblemSchema,
            content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn set_projection(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: JsonRequest<(ProjectionPath, Parameters<Movement>, Precondition)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (ProjectionPath(name), Parameters(movement), Precondition(expected)), body } = request;
    let position = body.parse::<PositionIn>(EXAMPLE)?.last_processed_position;
    ApiError::check_range("/last_processed_position", position, 0, EXACT_INTEGER_MAX)?;

    let head = head(&app).await?;
    if position > head {
        return Err(ApiError::position_beyond_head(head));
    }
    let new = NewPosition {
        projection_name: &name,
        position,
        expected: expected_position(expected),
        movement,
        key_id: caller.key_id(),
    };
    let status = match app.primary.set_projection(new).await? {
        SetProjectionResult::Created => StatusCode::CREATED,
        SetProjectionResult::Updated => StatusCode::OK,
        SetProjectionResult::Regressed(current) => return Err(ApiError::position_regressed(current)),
        SetProjectionResult::Conflict(current) => return Err(ApiError::position_conflict(current)),
        SetProjectionResult::MovedByGroup => return Err(ApiError::moved_by_group(&name)),
        SetProjectionResult::TooMany => return Err(ApiError::too_many_projections(PROJECTIONS_MAX, "the store")),
        SetProjectionResult::TooManyOfKey => {
            return Err(ApiError::too_many_projections(PROJECTIONS_OF_KEY_MAX, "the key"));
        }
    };
    app.awaited_projections.report(&name, Some(position));
    // Another client may have moved the projection in between. Tag and body both have the position that is read here.
    let projection = read_existing(&app, &name).await?;
    let tag = etag(projection.last_processed_position);
    Ok((status, [(header::ETAG, tag)], Json(ProjectionOut::new(projection, head))).into_response())
}

/// Delete a projection
#[utoipa::path(delete, path = "/projections/{projection_name}", operation_id = "delete_projection",
    tag = "projections",
    params(ProjectionParams),
    responses(
        (status = 204, description = "Deleted"),
        ProjectionNotFound,
        (status = 409, description = "A consumer group moves the projection", body = ProblemSchema,
            content_type = "application/problem+json"),
        DeleteProblems,
    ))]
pub async fn delete_projection(
    State(app): State<Arc<App>>,
    ProjectionPath(name): ProjectionPath,
    _: NoQuery,
) -> ApiResult<StatusCode> {
    if app.primary.group(&name).await?.is_some() {
        return Err(ApiError::moved_by_group(&name));
    }
    let existed = app.primary.delete_projection(&name).await?;
    app.awaited_projections.report(&name, None);
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::projection_not_found(&name)) }
}

/// Stores the position of a group, if the projection is one.
async fn follow_group(app: &App, name: &str) -> ApiResult<Option<Arc<ActiveGroup>>> {
    match app.groups.open(name).await {
        Ok(group) => {
            group.follow(Duration::ZERO).await?;
            Ok(Some(group))
        }
        Err(GroupError::GroupNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn read_existing(app: &App, name: &str) -> ApiResult<Projection> {
    app.primary.projection(name).await?.ok_or_else(|| ApiError::projection_not_found(name))
}

async fn head(app: &App) -> Result<Position, StoreError> {
    Ok(app.primary.log_head().await?.global_position)
}

/// Returns the expectation about a position. Its headers are those of an append, with a position as the tag.
fn expected_position(expected: ExpectedVersion) -> ExpectedPosition {
    match expected {
        ExpectedVersion::Any => ExpectedPosition::Any,
        ExpectedVersion::None => ExpectedPosition::None,
        ExpectedVersion::Exists => ExpectedPosition::Exists,
        ExpectedVersion::Exact(position) => {
            ExpectedPosition::Exact(Position::try_from(position).unwrap_or(Position::MAX))
        }
    }
}
