//! `/snapshots/{aggregate_type}/{aggregate_id}`: the snapshots that clients store.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::{StreamId, check_name};
use crate::domain::version::Version;
use crate::http::cache::{NO_CACHE, etag};
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::json_request::{JsonBody, JsonRequest};
use crate::http::extract::path::{StreamPath, WritableStreamPath};
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::StreamParams;
use crate::http::openapi::request_bodies::NewSnapshotSchema;
use crate::http::openapi::responses::{DeleteProblems, ReadProblems, SnapshotNotFound, StreamNotFound, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::problem::schema::ProblemSchema;
use crate::http::representation::response::stored_json;
use crate::store::streams::snapshots::NewSnapshot;
use crate::wire::time::format_time;
use crate::wire::validation::EventValidator;

/// The smallest body of a PUT.
const EXAMPLE: &str = r#"{"version": 42, "state": {"total": 42}}"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotIn<'b> {
    version: i64,
    #[serde(borrow)]
    state: &'b RawValue,
    revision: Option<String>,
}

/// A stored snapshot.
#[derive(Serialize, ToSchema)]
#[schema(as = Snapshot)]
pub struct SnapshotOut {
    aggregate_type: String,
    aggregate_id: String,
    version: Version,
    revision: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    /// Absent in the response to PUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    state: Option<Box<RawValue>>,
}

impl<'b> SnapshotIn<'b> {
    /// Parses and validates a body: first everything but the state (400), then the state (422).
    fn parse(body: &'b JsonBody, body_bytes_max: usize) -> ApiResult<Self> {
        let snapshot: Self = body.parse(EXAMPLE)?;
        if !(1..=EXACT_INTEGER_MAX).contains(&snapshot.version) {
            return Err(ApiError::invalid(FieldError::pointer("/version", "must be a version: 1, 2, 3 …")));
        }
        if let Some(Err(fault)) = snapshot.revision.as_deref().map(check_name) {
            return Err(ApiError::invalid(FieldError::pointer("/revision", fault.to_string())));
        }
        EventValidator::new(body_bytes_max).validate_document("/state", snapshot.state)?;
        Ok(snapshot)
    }
}

impl SnapshotOut {
    fn new(stream: &StreamId, version: Version, revision: Option<String>, created_at: String) -> Self {
        Self {
            aggregate_type: stream.aggregate_type().to_owned(),
            aggregate_id: stream.aggregate_id().to_owned(),
            version,
            revision,
            created_at,
            state: None,
        }
    }
}

/// Store a snapshot
///
/// For types without a reducer. A stored snapshot of the same revision is replaced unless its version is later. One of
/// another revision is always replaced.
#[utoipa::path(put, path = "/snapshots/{aggregate_type}/{aggregate_id}", operation_id = "put_snapshot",
    tag = "aggregates",
    params(StreamParams),
    request_body(content = NewSnapshotSchema, content_type = "application/json"),
    responses(
        (status = 200, description = "It has replaced another snapshot", body = SnapshotOut),
        (status = 201, description = "It is the first snapshot of the aggregate", body = SnapshotOut),
        StreamNotFound,
        (status = 409, description = "A later snapshot of the same revision is stored, or the type has a reducer",
            body = ProblemSchema, content_type = "application/problem+json"),
        (status = 422, description = "The stream does not have this version, or the state is unsupported JSON content",
            body = ProblemSchema, content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn put_snapshot(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    request: JsonRequest<(WritableStreamPath, NoQuery)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (WritableStreamPath(stream), NoQuery), body } = request;
    let snapshot = SnapshotIn::parse(&body, app.settings.max_body_bytes)?;

    let head = app.primary.stream_head(&stream).await?.ok_or_else(|| ApiError::stream_not_found(&stream))?;
    if app.primary.reducer(stream.aggregate_type()).await?.is_some() {
        return Err(ApiError::reducer_exists(stream.aggregate_type()));
    }
    let version = Version::try_from(snapshot.version).ok().filter(|version| *version <= head.version);
    let version = version.ok_or_else(|| ApiError::version_beyond_head(&stream, head.version, snapshot.version))?;
    let new = NewSnapshot {
        version,
        state: snapshot.state.get(),
        revision: snapshot.revision.as_deref(),
        occurred_at: app.primary.event_time(&stream, &head, version).await?,
        reducer: None,
        erasure: None,
    };
    let Some(stored) = app.primary.put_snapshot(&stream, new).await? else {
        let later = app.primary.snapshot(&stream).await?.map(|snapshot| snapshot.version);
        return Err(ApiError::snapshot_stale(later));
    };
    app.metrics.snapshots_written.inc();
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    let out = SnapshotOut::new(&stream, version, snapshot.revision, format_time(stored.created_at));
    Ok((status, [(header::ETAG, etag(version))], Json(out)).into_response())
}

/// Read a snapshot
///
/// As it is stored, even if loads would not use it.
#[utoipa::path(get, path = "/snapshots/{aggregate_type}/{aggregate_id}", operation_id = "read_snapshot",
    tag = "aggregates",
    params(StreamParams),
    responses((status = 200, description = "The snapshot", body = SnapshotOut), SnapshotNotFound, ReadProblems))]
pub async fn read_snapshot(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    StreamPath(stream): StreamPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let snapshot = app.primary.snapshot(&stream).await?.ok_or_else(|| ApiError::snapshot_not_found(&stream))?;
    let created_at = format_time(snapshot.created_at);
    let out = SnapshotOut {
        state: Some(stored_json(snapshot.state)?),
        ..SnapshotOut::new(&stream, snapshot.version, snapshot.revision, created_at)
    };
    Ok(([(header::ETAG, etag(snapshot.version)), (header::CACHE_CONTROL, NO_CACHE)], Json(out)).into_response())
}

/// Delete a snapshot
///
/// Loads return the same aggregate without it.
#[utoipa::path(delete, path = "/snapshots/{aggregate_type}/{aggregate_id}", operation_id = "delete_snapshot",
    tag = "aggregates",
    params(StreamParams),
    responses((status = 204, description = "Deleted"), SnapshotNotFound, DeleteProblems))]
pub async fn delete_snapshot(
    State(app): State<Arc<App>>,
    StreamPath(stream): StreamPath,
    _: NoQuery,
) -> ApiResult<StatusCode> {
    let existed = app.primary.delete_snapshot(&stream).await?;
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::snapshot_not_found(&stream)) }
}
