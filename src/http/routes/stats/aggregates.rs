//! `GET /stats/aggregates/{aggregate_type}/{aggregate_id}`: the statistics of one aggregate.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::domain::version::Version;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::StreamPath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::StreamParams;
use crate::http::openapi::responses::{ReadProblems, StreamNotFound};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::representation::response::json;
use crate::store::streams::snapshots::Snapshot;
use crate::wire::time::format_time;

/// The statistics of one aggregate.
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateStats)]
pub struct AggregateStatsOut {
    as_of_position: Position,
    aggregate_type: String,
    aggregate_id: String,
    events: Version,
    #[schema(format = DateTime)]
    first_occurred_at: String,
    #[schema(format = DateTime)]
    last_occurred_at: String,
    snapshot: Option<SnapshotStatsOut>,
    /// The events after the snapshot, which a load reads; all events if there is none.
    events_since_snapshot: Version,
}

/// The latest snapshot of an aggregate, without its content.
#[derive(Serialize, ToSchema)]
#[schema(as = SnapshotStats)]
pub struct SnapshotStatsOut {
    version: Version,
    revision: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Snapshot> for SnapshotStatsOut {
    fn from(snapshot: Snapshot) -> Self {
        Self { version: snapshot.version, revision: snapshot.revision, created_at: format_time(snapshot.created_at) }
    }
}

/// Get the statistics of one aggregate
#[utoipa::path(get, path = "/stats/aggregates/{aggregate_type}/{aggregate_id}", operation_id = "read_aggregate_stats",
    tag = "operations",
    params(StreamParams),
    responses(
        (status = 200, description = "The number of events, the snapshot, and the events after it",
            body = AggregateStatsOut),
        StreamNotFound,
        ReadProblems,
    ))]
pub async fn read_aggregate_stats(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    StreamPath(stream): StreamPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let as_of_position = app.primary.log_head().await?.global_position;
    let head = app.primary.stream_head(&stream).await?.ok_or_else(|| ApiError::stream_not_found(&stream))?;
    let snapshot = app.primary.snapshot(&stream).await?;
    let snapshot_version = snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
    Ok(json(AggregateStatsOut {
        as_of_position,
        aggregate_type: stream.aggregate_type().to_owned(),
        aggregate_id: stream.aggregate_id().to_owned(),
        events: head.version,
        first_occurred_at: format_time(head.first_occurred_at),
        last_occurred_at: format_time(head.last_occurred_at),
        snapshot: snapshot.map(SnapshotStatsOut::from),
        events_since_snapshot: (head.version - snapshot_version).max(0),
    }))
}
