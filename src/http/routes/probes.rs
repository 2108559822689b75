//! `/livez` and `/readyz`: probes of the process, and of all parts that an append needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::cache::NO_STORE;
use crate::store::admin::migrate::known_version;
use crate::wire::time::format_time;

/// The time limit of a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of a probe.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `unavailable`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Each check: `ok`, or the reason why it fails.
    checks: BTreeMap<&'static str, String>,
    /// Only with `?verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<BTreeMap<&'static str, String>>,
}

/// Returns whether the client wants the details of a probe: `?verbose`, `?verbose=1` or `?verbose=true`. Monitoring
/// tools add parameters of their own, so a probe ignores every other one.
fn is_verbose(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "verbose" | "verbose=" | "verbose=1" | "verbose=true"))
}

/// Check liveness
///
/// Succeeds while the process runs. It never uses the database: an unavailable database is no reason to restart the
/// process.
#[utoipa::path(get, path = "/livez", operation_id = "check_liveness", tag = "operations",
    responses((status = 200, description = "The process runs", body = Health)))]
pub async fn check_liveness() -> Response {
    respond(Health { status: "ok", checks: BTreeMap::from([("process", "ok".to_owned())]), details: None })
}

/// Check readiness
///
/// Succeeds if the database answers and accepts writes, its schema is not older than this version needs, the writer
/// runs, and the process is not shutting down.
#[utoipa::path(get, path = "/readyz", operation_id = "check_readiness", tag = "operations",
    params(("verbose" = Option<bool>, Query,
        description = "Adds versions, the start time, the head of the log, its epoch, the clocks and the settings. \
            `?verbose` is enough", allow_reserved)),
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready: `checks` has the reasons", body = Health),
    ))]
pub async fn check_readiness(State(app): State<Arc<App>>, uri: Uri) -> Response {
    let database = check(app.primary.check_writable()).await;
    let schema = match &database {
        Ok(()) => check_schema(&app).await,
        Err(_) => Err("unknown while the database is unavailable".to_owned()),
    };
    let writer = app.append_queue.check_writer();
    let serving = (!app.shutdown.has_begun()).then_some(()).ok_or_else(|| "shutting down".to_owned());
    let details = if is_verbose(&uri) && database.is_ok() { Some(details(&app).await) } else { None };

    let checks = [("database", database), ("schema", schema), ("writer", writer), ("serving", serving)];
    let status = if checks.iter().all(|(_, check)| check.is_ok()) { "ok" } else { "unavailable" };
    let checks =
        checks.into_iter().map(|(name, check)| (name, check.err().unwrap_or_else(|| "ok".to_owned()))).collect();
    respond(Health { status, checks, details })
}

/// Returns the reason if a check fails or takes too long.
async fn check<T, E: std::fmt::Display>(check: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no response within {} s", CHECK_TIMEOUT.as_secs())),
    }
}

async fn check_schema(app: &App) -> Result<(), String> {
    let (found, known) = (check(app.primary.schema_version()).await?, known_version());
    // A newer schema belongs to a newer version during a rolling upgrade, and is compatible with this one.
    if found >= known {
        Ok(())
    } else {
        Err(format!("at version {found}, and this program needs {known}: run `annals migrate`"))
    }
}

async fn details(app: &App) -> BTreeMap<&'static str, String> {
    let (in_use, idle) = app.primary.pool_connections();
    let head =
        check(app.primary.log_head()).await.map(|head| (head.global_position.to_string(), head.epoch.to_string()));
    let (head, epoch) = head.unwrap_or_else(|reason| (reason.clone(), reason));
    let clocks = check(app.primary.compare_clocks()).await.map(|compared| {
        let seconds = |difference: TimeDelta| format!("{:.3}", difference.as_seconds_f64());
        (seconds(compared.database_ahead), seconds(compared.log_ahead))
    });
    let (database_ahead, log_ahead) = clocks.unwrap_or_else(|reason| (reason.clone(), reason));
    let wait = check(app.primary.longest_wait()).await.map(|wait| wait.unwrap_or_else(|| "none".to_owned()));
    let archive = if app.primary.has_archive() { "configured" } else { "none" };
    BTreeMap::from([
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("postgresql", check(app.primary.server_version()).await.unwrap_or_else(|reason| reason)),
        ("started_at", format_time(app.started_at)),
        ("auth", app.settings.auth_name().to_owned()),
        ("archive", archive.to_owned()),
        ("head", head),
        ("epoch", epoch),
        ("database_clock_ahead_seconds", database_ahead),
        ("log_ahead_seconds", log_ahead),
        ("longest_wait", wait.unwrap_or_else(|reason| reason)),
        ("append_queue", app.append_queue.length().to_string()),
        ("pool", format!("{in_use} in use, {idle} idle")),
    ])
}

/// Returns the response of a service that is not ready, with the reasons.
pub fn unavailable(checks: BTreeMap<&'static str, String>) -> Response {
    respond(Health { status: "unavailable", checks, details: None })
}

fn respond(health: Health) -> Response {
    if health.status == "ok" {
        return ([(header::CACHE_CONTROL, NO_STORE)], Json(health)).into_response();
    }
    let headers = [(header::CACHE_CONTROL, NO_STORE), (header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, headers, Json(health)).into_response()
}
