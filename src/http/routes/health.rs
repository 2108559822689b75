//! Liveness, which asks nothing of anybody, and readiness, which asks everything that an append needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::problem::{ProblemSchema, Refusal};
use crate::http::query::{self, Query};
use crate::store::migrate;

/// How long a check may take before it counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a probe reads.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `unavailable`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Each check: `ok`, or why not.
    checks: BTreeMap<&'static str, String>,
    /// Only with `?verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<BTreeMap<&'static str, String>>,
}

/// Is the process alive?
///
/// Never touches the database: a database that is away is no reason to restart.
#[utoipa::path(get, path = "/livez", tag = "operations", responses(
    (status = 200, description = "Alive", body = Health),
    (status = 400, description = "Unknown parameter", body = ProblemSchema, content_type = "application/problem+json"),
))]
pub async fn live(uri: Uri) -> Result<Response, Refusal> {
    query::no_parameters(&uri)?;
    Ok(answer(Health { status: "ok", checks: BTreeMap::from([("process", "ok".to_owned())]), details: None }))
}

/// Can it take requests?
///
/// The database answers and takes writes, its schema is the one this program needs, the writer is alive, and no shutdown
/// has begun.
#[utoipa::path(get, path = "/readyz", tag = "operations",
    params(("verbose" = Option<String>, Query, description = "Adds versions and the head of the log", allow_reserved)),
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 400, description = "Unknown parameter", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 503, description = "Not ready: `checks` says why", body = Health),
    ))]
pub async fn ready(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    let mut query = Query::of(&uri)?;
    let verbose = query.take_flag("verbose")?;
    query.finish()?;

    let database = check(app.store.check_writable()).await;
    let schema = match &database {
        Ok(()) => check(app.store.schema_version()).await.and_then(|found| match (found, migrate::known_version()) {
            // A newer one comes with a rolling deploy: what it changes must not break the programs before it.
            (found, known) if found >= known => Ok(()),
            (found, known) => Err(format!("at version {found}, and this program needs {known}")),
        }),
        Err(_) => Err("not known while the database is away".to_owned()),
    };
    let writer = app.writer.is_alive().then_some(()).ok_or_else(|| "has ended".to_owned());
    let serving = (!app.shutdown.has_begun()).then_some(()).ok_or_else(|| "shutting down".to_owned());
    let details = if verbose && database.is_ok() { details(&app).await } else { None };

    let checks = [("database", database), ("schema", schema), ("writer", writer), ("serving", serving)];
    let status = if checks.iter().all(|(_, check)| check.is_ok()) { "ok" } else { "unavailable" };
    let checks =
        checks.into_iter().map(|(name, check)| (name, check.err().unwrap_or_else(|| "ok".to_owned()))).collect();
    Ok(answer(Health { status, checks, details }))
}

async fn check<T, E: std::fmt::Display>(check: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    }
}

async fn details(app: &App) -> Option<BTreeMap<&'static str, String>> {
    let (in_use, idle) = app.store.pool_connections();
    let head = check(app.store.log_head()).await.map_or_else(|reason| reason, |head| head.global_position.to_string());
    Some(BTreeMap::from([
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("postgresql", check(app.store.server_version()).await.unwrap_or_else(|reason| reason)),
        ("head", head),
        ("append_queue", app.writer.queue_length().to_string()),
        ("pool", format!("{in_use} in use, {idle} idle")),
    ]))
}

fn answer(health: Health) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if health.status == "ok" {
        return (headers, Json(health)).into_response();
    }
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    (StatusCode::SERVICE_UNAVAILABLE, headers, Json(health)).into_response()
}
