//! `GET /stats`: the totals of the store.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::json;
use crate::http::routes::stats::shared::{count_new_events, readable_type_statistics};
use crate::store::admin::projections::StaleProjection;
use crate::store::admin::statistics::{CountedTo, Overview, TableSize};
use crate::wire::time::format_time;

/// The largest number of stale projections in the response.
const STALE_PROJECTIONS_MAX: i64 = 100;

/// The totals of the store, or of the aggregate types that the key may read.
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
    /// Null for a key that reads some types only.
    sizes: Option<SizesOut>,
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
///
/// A key that reads some types only gets the totals of these types.
#[utoipa::path(get, path = "/stats", operation_id = "read_stats", tag = "operations", responses(
    (status = 200, description = "Numbers of events, streams and snapshots, and sizes in bytes", body = StatsOut),
    ReadProblems,
))]
pub async fn read_stats(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    _: NoQuery,
) -> ApiResult<Response> {
    let (counted, sizes) = if caller.may_read_all() {
        count_new_events(&app).await?;
        (app.primary.overview().await?, Some(SizesOut::new(&app.primary.table_sizes().await?)))
    } else {
        (readable_overview(&app, &caller).await?, None)
    };
    let head = app.primary.log_head().await?;
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
        sizes,
        stale_projections: stale.into_iter().map(StaleProjectionOut::from).collect(),
    }))
}

/// Returns the totals of the types that the caller may read.
async fn readable_overview(app: &App, caller: &Caller) -> ApiResult<CountedTo<Overview>> {
    let counted = readable_type_statistics(app, caller).await?;
    let types = &counted.value;
    let value = Overview {
        events: types.iter().map(|known| known.events).sum(),
        streams: types.iter().map(|known| known.streams).sum(),
        aggregate_types: i64::try_from(types.len()).unwrap_or(i64::MAX),
        snapshots: types.iter().map(|known| known.snapshots).sum(),
    };
    Ok(CountedTo { position: counted.position, value })
}
