//! `GET /stats/snapshot-coverage`: how many streams have a snapshot.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::{json, stored_json};
use crate::http::routes::stats::shared::readable_type_statistics;
use crate::store::admin::statistics::TypeStatistics;

/// How many streams have a snapshot.
#[derive(Serialize, ToSchema)]
#[schema(as = SnapshotCoverage)]
pub struct SnapshotCoverageOut {
    as_of_position: Position,
    streams: i64,
    snapshots: i64,
    /// Snapshots divided by streams, 0 to 1; 0 if there is no stream.
    coverage: f64,
    aggregate_types: Vec<TypeCoverageOut>,
}

/// How many aggregates of one type have a snapshot.
#[derive(Serialize, ToSchema)]
#[schema(as = TypeCoverage)]
pub struct TypeCoverageOut {
    aggregate_type: String,
    streams: i64,
    snapshots: i64,
    coverage: f64,
    /// `[{"at_least", "streams"}]`: how many streams have at least 1, 10, 50, 100, 1000, 10000 events. A short stream
    /// needs no snapshot.
    #[schema(value_type = Vec<serde_json::Value>)]
    streams_by_size: Box<RawValue>,
}

impl TypeCoverageOut {
    fn new(statistics: TypeStatistics) -> ApiResult<Self> {
        Ok(Self {
            aggregate_type: statistics.aggregate_type,
            streams: statistics.streams,
            snapshots: statistics.snapshots,
            coverage: coverage(statistics.snapshots, statistics.streams),
            streams_by_size: stored_json(statistics.streams_by_size)?,
        })
    }
}

/// Get the coverage of streams by snapshots
#[utoipa::path(get, path = "/stats/snapshot-coverage", operation_id = "read_snapshot_coverage", tag = "operations",
    responses(
        (status = 200, description = "The coverage in all, and for each type", body = SnapshotCoverageOut),
        ReadProblems,
    ))]
pub async fn read_snapshot_coverage(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    _: NoQuery,
) -> ApiResult<Response> {
    let counted = readable_type_statistics(&app, &caller).await?;
    let streams = counted.value.iter().map(|known| known.streams).sum();
    let snapshots = counted.value.iter().map(|known| known.snapshots).sum();
    Ok(json(SnapshotCoverageOut {
        as_of_position: counted.position,
        streams,
        snapshots,
        coverage: coverage(snapshots, streams),
        aggregate_types: counted.value.into_iter().map(TypeCoverageOut::new).collect::<ApiResult<_>>()?,
    }))
}

fn coverage(snapshots: i64, streams: i64) -> f64 {
    if streams > 0 { snapshots as f64 / streams as f64 } else { 0.0 }
}
