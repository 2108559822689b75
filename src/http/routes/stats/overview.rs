//! `GET /stats`: the totals of the store.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::json;
use crate::http::routes::stats::shared::count_new_events;
use crate::store::admin::projections::StaleProjection;
use crate::store::admin::statistics::TableSize;
use crate::wire::time::format_time;

/// The largest number of stale projections in the response.
const STALE_PROJECTIONS_MAX: i64 = 100;

/// The totals of the store.
#[derive(Serialize, ToSchema)]
#[schema(as = StoreStats)]
pub struct StatsOut {
    /// The position up to which the log is counted.
    as_of_position: Position,
    /// The position of the last event.
    head: Position,
    epoch: i32,
    events: i64,
    streams: i64,
    aggregate_types: i64,
    snapshots: i64,
    sizes: SizesOut,
    /// The projections that hold back the archive, the least advanced first, at most 100. Empty if `ARCHIVE_AFTER` is
    /// not set.
    stale_projections: Vec<StaleProjectionOut>,
}

/// A projection that has not passed the events of a month that would be archived otherwise.
#[derive(Serialize, ToSchema)]
#[schema(as = StaleProjection)]
pub struct StaleProjectionOut {
    projection_name: String,
    last_processed_position: Position,
    #[schema(format = DateTime)]
    last_processed_at: String,
}

impl From<StaleProjection> for StaleProjectionOut {
    fn from(projection: StaleProjection) -> Self {
        Self {
            projection_name: projection.projection_name,
            last_processed_position: projection.last_processed_position,
            last_processed_at: format_time(projection.last_processed_at),
        }
    }
}

/// Sizes in bytes, with indexes and TOAST.
#[derive(Serialize, ToSchema)]
#[schema(as = StoreSizes)]
pub struct SizesOut {
    /// All partitions that are in the database.
    events: i64,
    event_ids: i64,
    streams: i64,
    snapshots: i64,
    projection_positions: i64,
    total: i64,
}

impl SizesOut {
    fn new(sizes: &[TableSize]) -> Self {
        let total = |includes: &dyn Fn(&TableSize) -> bool| {
            sizes.iter().filter(|size| includes(size)).map(TableSize::total_bytes).sum::<i64>()
        };
        let table = |name: &'static str| total(&move |size: &TableSize| size.name == name);
        Self {
            events: total(&|size| size.is_partition),
            event_ids: table("event_ids"),
            streams: table("streams"),
            snapshots: table("snapshots"),
            projection_positions: table("projection_positions"),
            total: total(&|_| true),
        }
    }
}

/// Get the totals of the store
#[utoipa::path(get, path = "/stats", operation_id = "read_stats", tag = "operations", responses(
    (status = 200, description = "Numbers of events, streams and snapshots, and sizes in bytes", body = StatsOut),
    ReadProblems,
))]
pub async fn read_stats(State(app): State<Arc<App>>, _: AcceptsJson, _: NoQuery) -> ApiResult<Response> {
    count_new_events(&app).await?;
    let counted = app.primary.overview().await?;
    let head = app.primary.log_head().await?;
    let sizes = app.primary.table_sizes().await?;
    let stale = match app.settings.archive_after {
        Some(after) => app.primary.stale_projections(app.clock.now() - after, STALE_PROJECTIONS_MAX).await?,
        None => Vec::new(),
    };
    Ok(json(StatsOut {
        as_of_position: counted.position,
        head: head.global_position,
        epoch: head.epoch,
        events: counted.value.events,
        streams: counted.value.streams,
        aggregate_types: counted.value.aggregate_types,
        snapshots: counted.value.snapshots,
        sizes: SizesOut::new(&sizes),
        stale_projections: stale.into_iter().map(StaleProjectionOut::from).collect(),
    }))
}
