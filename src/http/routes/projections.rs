//! Projections: where each stands, moving it by compare-and-set, and waiting for it (read your own writes).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::version::ExpectedVersion;
use crate::http::access::Caller;
use crate::http::conditional::{NO_CACHE, etag, expected_version};
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::{ReadProblems, WriteProblems};
use crate::http::path::PathParams;
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::{Query, no_parameters};
use crate::http::{body, wire};
use crate::store::error::StoreError;
use crate::store::projections::{ExpectedPosition, Moved, Projection};

const WAIT_SECONDS_DEFAULT: u64 = 5;
const WAIT_SECONDS_MAX: u64 = 60;
/// Between two looks at a projection that somebody waits for; doubled each time, up to the second one.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(250);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PositionIn {
    /// The last position that the projection has processed, 0 for none.
    #[schema(value_type = u64, maximum = 9007199254740991_u64)]
    last_processed_position: i64,
}

/// Where a projection stands.
#[derive(Serialize, ToSchema)]
pub struct ProjectionOut {
    projection_name: String,
    last_processed_position: Position,
    #[schema(format = DateTime)]
    last_processed_at: String,
    /// Events between it and the head of the log.
    lag: Position,
    /// How long its first unprocessed event has waited; 0 if there is none.
    lag_seconds: f64,
}

#[derive(Serialize, ToSchema)]
pub struct ProjectionList {
    projections: Vec<ProjectionOut>,
}

impl ProjectionOut {
    fn of(projection: Projection, head: Position) -> Self {
        Self {
            lag: projection.lag(head),
            lag_seconds: projection.waits_seconds.unwrap_or(0.0).max(0.0),
            projection_name: projection.projection_name,
            last_processed_position: projection.last_processed_position,
            last_processed_at: wire::time(projection.last_processed_at),
        }
    }
}

/// List the projections, with how far each is behind
#[utoipa::path(get, path = "/projections", tag = "projections", responses(
    (status = 200, description = "All projections, in byte order of their names", body = ProjectionList),
    ReadProblems,
))]
pub async fn list_projections(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    no_parameters(&uri)?;
    let projections = app.store.projections().await?;
    let head = head(&app).await?;
    let projections = projections.into_iter().map(|projection| ProjectionOut::of(projection, head)).collect();
    Ok(([(header::CACHE_CONTROL, NO_CACHE)], Json(ProjectionList { projections })).into_response())
}

/// Where a projection stands; with `wait_for`, once it has come that far
#[utoipa::path(get, path = "/projections/{projection_name}", tag = "projections",
    params(
        ("projection_name" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("wait_for" = Option<u64>, Query, description = "Answers when the projection has processed this position"),
        ("timeout" = Option<u64>, Query, description = "Seconds to wait, 1 to 60, 5 if absent", minimum = 1, maximum = 60),
    ),
    responses(
        (status = 200, description = "Where it stands", body = ProjectionOut),
        (status = 404, description = "The projection does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 504, description = "It has not come that far in time", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_projection(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let name = path.name("projection_name")?;
    let mut query = Query::of(&uri)?;
    let wait_for = query.take_number("wait_for", 0, EXACT_INTEGER_MAX)?;
    let timeout = query.take_number("timeout", 1, WAIT_SECONDS_MAX)?.unwrap_or(WAIT_SECONDS_DEFAULT);
    query.finish()?;

    let until = Instant::now() + Duration::from_secs(timeout);
    let soft = app.shutdown.soft();
    let mut pause = LOOK_PAUSE;
    loop {
        let projection = app.store.projection(name).await?.ok_or_else(|| not_found(name))?;
        let position = projection.last_processed_position;
        if wait_for.is_none_or(|wanted| position >= wanted) {
            let projection = ProjectionOut::of(projection, head(&app).await?);
            return Ok(
                ([(header::CACHE_CONTROL, NO_CACHE), (header::ETAG, etag(position))], Json(projection)).into_response()
            );
        }
        if Instant::now() >= until {
            let detail = format!("the projection has processed position {position}");
            let lag = projection.lag(head(&app).await?);
            let problem = Problem::new(Code::ProjectionBehind, detail);
            return Err(problem.with("last_processed_position", &position).with("lag", &lag).into());
        }
        // No connection is held while waiting.
        let look_again = until.min(Instant::now() + pause);
        if soft.run_until_cancelled(tokio::time::sleep_until(look_again)).await.is_none() {
            return Err(StoreError::ShuttingDown.into());
        }
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
    }
}

/// Move a projection to a position
///
/// `If-Match: "1000"` makes it a compare-and-set. Never backwards without `reset=true`, never beyond the head.
#[utoipa::path(put, path = "/projections/{projection_name}", tag = "projections",
    params(
        ("projection_name" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("reset" = Option<bool>, Query, description = "`true`: backwards too"),
        ("If-Match" = Option<String>, Header, description = "The position that it is expected to be at, `\"1000\"`, or `*`: it exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: it is new"),
    ),
    request_body(content = PositionIn, content_type = "application/json"),
    responses(
        (status = 200, description = "Moved", body = ProjectionOut),
        (status = 201, description = "Made", body = ProjectionOut),
        (status = 409, description = "The position is before the current one", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 412, description = "It is at another position", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "The position is beyond the head", body = ProblemSchema, content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn set_projection(
    State(app): State<Arc<App>>,
    caller: Caller,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let parameters = parameters(&uri);
    if matches!(parameters, Ok(true)) {
        caller.check_some(Scope::Admin)?;
    }
    negotiate::accepted(&headers, &[JSON])?;
    let body = body::read_json(&headers, body, &app.settings).await?;
    let name = path.name("projection_name")?;
    let reset = parameters?;
    let expected = expected_position(&headers)?;
    let position = body::parse::<PositionIn>(&body)?.last_processed_position;
    if !(0..=EXACT_INTEGER_MAX).contains(&position) {
        let detail = format!("must be from 0 to {EXACT_INTEGER_MAX}");
        return Err(Problem::invalid(FieldError::pointer("/last_processed_position", detail)).into());
    }

    let head = head(&app).await?;
    if position > head {
        let detail = format!("the head of the log is at {head}: nothing can have been processed beyond it");
        return Err(Problem::new(Code::PositionBeyondHead, detail).with("head", &head).into());
    }
    let status = match app.store.set_projection(name, position, expected, reset).await? {
        Moved::Created => StatusCode::CREATED,
        Moved::Updated => StatusCode::OK,
        Moved::Regressed(current) => {
            let detail =
                format!("the projection is at {current} already; to process again what it has seen, send reset=true");
            return Err(Problem::new(Code::PositionRegressed, detail).with("current_position", &current).into());
        }
        Moved::Conflict(current) => return Err(conflict(current).into()),
    };
    // Somebody may have moved it on in between; tag and body say where it stands.
    let projection = app.store.projection(name).await?.ok_or_else(|| not_found(name))?;
    let tag = etag(projection.last_processed_position);
    Ok((status, [(header::ETAG, tag)], Json(ProjectionOut::of(projection, head))).into_response())
}

/// Forget a projection
#[utoipa::path(delete, path = "/projections/{projection_name}", tag = "projections",
    params(("projection_name" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255)),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 400, description = "Not understood: `errors` says where", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 404, description = "The projection does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 503, description = "Not now: retry after `Retry-After`", body = ProblemSchema, content_type = "application/problem+json"),
    ))]
pub async fn delete_projection(State(app): State<Arc<App>>, path: PathParams, uri: Uri) -> Result<Response, Refusal> {
    let name = path.name("projection_name")?;
    no_parameters(&uri)?;
    if app.store.delete_projection(name).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(not_found(name).into())
    }
}

async fn head(app: &App) -> Result<Position, StoreError> {
    Ok(app.store.log_head().await?.global_position)
}

/// Whether the position may move backwards.
fn parameters(uri: &Uri) -> Result<bool, Box<Problem>> {
    let mut query = Query::of(uri)?;
    let reset = match query.take("reset")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid(FieldError::parameter("reset", "must be true or false"))),
    };
    query.finish()?;
    Ok(reset)
}

/// The same headers as an append's; the tag is a position.
fn expected_position(headers: &HeaderMap) -> Result<ExpectedPosition, Box<Problem>> {
    Ok(match expected_version(headers)? {
        ExpectedVersion::Any => ExpectedPosition::Any,
        ExpectedVersion::None => ExpectedPosition::None,
        ExpectedVersion::Exists => ExpectedPosition::Exists,
        ExpectedVersion::Exact(position) => {
            ExpectedPosition::Exact(Position::try_from(position).unwrap_or(Position::MAX))
        }
    })
}

fn conflict(current: Option<Position>) -> Box<Problem> {
    let detail = match current {
        Some(current) => format!("the projection is at {current}: read it again, and go on from there"),
        None => "the projection does not exist".to_owned(),
    };
    let problem = Problem::new(Code::PositionConflict, detail).with("current_position", &current);
    match current {
        Some(current) => problem.with_header(header::ETAG, etag(current)),
        None => problem,
    }
}

fn not_found(name: &str) -> Box<Problem> {
    Problem::new(Code::ProjectionNotFound, format!("no projection has the name {name:?}"))
}
