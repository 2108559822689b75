//! Snapshots that clients make: put, read, forgotten.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::stream::not_found as stream_not_found;
use crate::app::App;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::{StreamId, check_name};
use crate::domain::version::Version;
use crate::http::conditional::{NO_CACHE, etag};
use crate::http::event_in::Door;
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::{ReadProblems, WriteProblems};
use crate::http::path::PathParams;
use crate::http::problem::{Code, FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::no_parameters;
use crate::http::{body, wire};
use crate::store::snapshots::NewSnapshot;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotIn<'b> {
    version: i64,
    #[serde(borrow)]
    state: &'b RawValue,
    revision: Option<String>,
}

/// A snapshot in a request.
#[derive(ToSchema)]
#[schema(as = NewSnapshot)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of SnapshotIn, for the document")]
pub struct NewSnapshotSchema {
    version: u64,
    /// Any JSON value.
    state: serde_json::Value,
    /// What the client calls the code that made the state: loads can ask for it.
    #[schema(min_length = 1, max_length = 255)]
    revision: Option<String>,
}

/// A snapshot as it is stored.
#[derive(Serialize, ToSchema)]
pub struct SnapshotOut {
    aggregate_type: String,
    aggregate_id: String,
    version: Version,
    revision: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Not in the answer to PUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    state: Option<Box<RawValue>>,
}

/// Put a snapshot
///
/// For types without a reducer. Of the same revision the latest version wins; one of another revision replaces it.
#[utoipa::path(put, path = "/snapshots/{aggregate_type}/{aggregate_id}", tag = "aggregates",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
    ),
    request_body(content = NewSnapshotSchema, content_type = "application/json"),
    responses(
        (status = 200, description = "It replaces another one", body = SnapshotOut),
        (status = 201, description = "It is the first one", body = SnapshotOut),
        (status = 404, description = "The stream does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 409, description = "A later one of the same revision is stored, or the type has a reducer", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "The stream has no such version, or the state cannot be kept", body = ProblemSchema, content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn put_snapshot(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let body = body::read_json(&headers, body, &app.settings).await?;
    let stream = path.stream()?;
    no_parameters(&uri)?;
    let snapshot = body::parse::<SnapshotIn>(&body)?;
    if !(1..=EXACT_INTEGER_MAX).contains(&snapshot.version) {
        return Err(Problem::invalid(FieldError::pointer("/version", "must be a version: 1, 2, 3 …")).into());
    }
    if let Some(Err(fault)) = snapshot.revision.as_deref().map(check_name) {
        return Err(Problem::invalid(FieldError::pointer("/revision", fault.to_string())).into());
    }
    Door::new(app.settings.max_body_bytes).inspect_document("/state", snapshot.state)?;

    let head = app.store.stream_head(&stream).await?.ok_or_else(|| stream_not_found(&stream))?;
    if app.store.reducer(stream.aggregate_type()).await?.is_some() {
        let detail = format!("the type {:?} has a reducer: its snapshots make themselves", stream.aggregate_type());
        return Err(Problem::new(Code::ReducerExists, detail).into());
    }
    let version = Version::try_from(snapshot.version).ok().filter(|version| *version <= head.version);
    let version = version.ok_or_else(|| {
        let detail =
            format!("the stream {stream} is at version {}: it has no version {}", head.version, snapshot.version);
        Problem::new(Code::VersionBeyondHead, detail).with("current_version", &head.version)
    })?;
    let occurred_at = app.store.event_time(&stream, &head, version).await?;
    let new = NewSnapshot {
        version,
        state: snapshot.state.get(),
        revision: snapshot.revision.as_deref(),
        occurred_at,
        reducer: None,
    };
    let Some(stored) = app.store.put_snapshot(&stream, new).await? else {
        return Err(stale(&app, &stream).await?);
    };
    app.metrics.snapshots_written.inc();
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    let out = SnapshotOut {
        aggregate_type: stream.aggregate_type().to_owned(),
        aggregate_id: stream.aggregate_id().to_owned(),
        version,
        revision: snapshot.revision,
        created_at: wire::time(stored.created_at),
        state: None,
    };
    Ok((status, [(header::ETAG, etag(version))], Json(out)).into_response())
}

/// Read a snapshot, as it is stored
#[utoipa::path(get, path = "/snapshots/{aggregate_type}/{aggregate_id}", tag = "aggregates",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
    ),
    responses(
        (status = 200, description = "The snapshot", body = SnapshotOut),
        (status = 404, description = "There is none", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn read_snapshot(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let stream = path.stream()?;
    no_parameters(&uri)?;
    let snapshot = app.store.snapshot(&stream).await?.ok_or_else(|| not_found(&stream))?;
    let state = RawValue::from_string(snapshot.state)
        .map_err(|_| Problem::new(Code::Internal, "the stored state is not JSON"))?;
    let out = SnapshotOut {
        aggregate_type: stream.aggregate_type().to_owned(),
        aggregate_id: stream.aggregate_id().to_owned(),
        version: snapshot.version,
        revision: snapshot.revision,
        created_at: wire::time(snapshot.created_at),
        state: Some(state),
    };
    Ok(([(header::ETAG, etag(snapshot.version)), (header::CACHE_CONTROL, NO_CACHE)], Json(out)).into_response())
}

/// Forget a snapshot; loads give the same without it
#[utoipa::path(delete, path = "/snapshots/{aggregate_type}/{aggregate_id}", tag = "aggregates",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
    ),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 400, description = "Not understood: `errors` says where", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = ProblemSchema, content_type = "application/problem+json"),
        (status = 503, description = "Not now: retry after `Retry-After`", body = ProblemSchema, content_type = "application/problem+json"),
    ))]
pub async fn delete_snapshot(State(app): State<Arc<App>>, path: PathParams, uri: Uri) -> Result<Response, Refusal> {
    let stream = path.stream()?;
    no_parameters(&uri)?;
    if app.store.delete_snapshot(&stream).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(not_found(&stream).into())
    }
}

async fn stale(app: &App, stream: &StreamId) -> Result<Refusal, Refusal> {
    let stored = app.store.snapshot(stream).await?.map(|snapshot| snapshot.version);
    let detail = "a snapshot of a later version is stored for the same revision: there is nothing to do";
    Ok(Problem::new(Code::SnapshotStale, detail).with("snapshot_version", &stored).into())
}

fn not_found(stream: &StreamId) -> Box<Problem> {
    Problem::new(Code::SnapshotNotFound, format!("the stream {stream} has no snapshot"))
}
