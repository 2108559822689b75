//! `GET /stats/tables`: the sizes of the tables and partitions.

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
use crate::store::admin::statistics::TableSize;
use crate::store::partitions::partition::Partition;
use crate::wire::time::format_time;

/// The sizes of the tables.
#[derive(Serialize, ToSchema)]
#[schema(as = TableStatsList)]
pub struct TablesOut {
    as_of_position: Position,
    tables: Vec<TableOut>,
}

/// The size of one table, with its indexes.
#[derive(Serialize, ToSchema)]
#[schema(as = TableStats)]
pub struct TableOut {
    table: String,
    #[serde(flatten)]
    size: SizeOut,
    /// The partitions of `events`, one for each month. Archived ones have no size here.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionOut>>,
}

/// The size and the state of one monthly partition.
#[derive(Serialize, ToSchema)]
#[schema(as = PartitionStats)]
pub struct PartitionOut {
    name: String,
    #[schema(format = DateTime)]
    starts_at: String,
    #[schema(format = DateTime)]
    ends_at: String,
    /// `open`, `sealed` (its month is over, and it never changes again) or `archived`.
    state: &'static str,
    /// Set when the partition is sealed, if it has events.
    first_position: Option<Position>,
    last_position: Option<Position>,
    events: Option<i64>,
    #[schema(format = DateTime)]
    first_occurred_at: Option<String>,
    #[schema(format = DateTime)]
    last_occurred_at: Option<String>,
    /// Its folder in the archive.
    archived_to: Option<String>,
    #[serde(flatten)]
    size: SizeOut,
}

/// The size of a table in bytes, and PostgreSQL's statistics of its rows.
#[derive(Serialize, ToSchema, Default)]
#[schema(as = TableSize)]
pub struct SizeOut {
    heap_bytes: i64,
    index_bytes: i64,
    toast_bytes: i64,
    total_bytes: i64,
    /// An estimate.
    live_rows: i64,
    dead_rows: i64,
    #[schema(format = DateTime)]
    last_autovacuum: Option<String>,
    #[schema(format = DateTime)]
    last_autoanalyze: Option<String>,
}

impl SizeOut {
    /// Adds up the sizes of tables. The times are the latest ones.
    fn total(sizes: &[TableSize]) -> Self {
        let sum = |part: fn(&TableSize) -> i64| sizes.iter().map(part).sum();
        Self {
            heap_bytes: sum(|size| size.heap_bytes),
            index_bytes: sum(|size| size.index_bytes),
            toast_bytes: sum(|size| size.toast_bytes),
            total_bytes: sum(TableSize::total_bytes),
            live_rows: sum(|size| size.live_rows),
            dead_rows: sum(|size| size.dead_rows),
            last_autovacuum: sizes.iter().filter_map(|size| size.last_autovacuum).max().map(format_time),
            last_autoanalyze: sizes.iter().filter_map(|size| size.last_autoanalyze).max().map(format_time),
        }
    }
}

impl From<&TableSize> for SizeOut {
    fn from(size: &TableSize) -> Self {
        Self::total(std::slice::from_ref(size))
    }
}

impl PartitionOut {
    fn new(partition: Partition, sizes: &[TableSize]) -> Self {
        let state = match (partition.archived_at, partition.sealed_at) {
            (Some(_), _) => "archived",
            (None, Some(_)) => "sealed",
            (None, None) => "open",
        };
        let size = sizes.iter().find(|size| size.name == partition.name);
        Self {
            starts_at: format_time(partition.starts_at),
            ends_at: format_time(partition.ends_at),
            state,
            first_position: partition.first_position,
            last_position: partition.last_position,
            events: partition.events,
            first_occurred_at: partition.first_occurred_at.map(format_time),
            last_occurred_at: partition.last_occurred_at.map(format_time),
            archived_to: partition.archived_at.and(partition.archived_to),
            size: size.map(SizeOut::from).unwrap_or_default(),
            name: partition.name,
        }
    }
}

/// Get the sizes of the tables and partitions
#[utoipa::path(get, path = "/stats/tables", operation_id = "read_table_stats", tag = "operations", responses(
    (status = 200, description = "Sizes, numbers of rows, and times of vacuum", body = TablesOut),
    ReadProblems,
))]
pub async fn read_table_stats(State(app): State<Arc<App>>, _: AcceptsJson, _: NoQuery) -> ApiResult<Response> {
    count_new_events(&app).await?;
    let counted = app.primary.overview().await?;
    let sizes = app.primary.table_sizes().await?;
    let (of_partitions, of_tables): (Vec<_>, Vec<_>) = sizes.into_iter().partition(|size| size.is_partition);
    let partitions = app.primary.partitions().await?;
    let partitions = partitions.into_iter().map(|partition| PartitionOut::new(partition, &of_partitions)).collect();
    let mut tables = vec![TableOut {
        table: "events".to_owned(),
        size: SizeOut::total(&of_partitions),
        partitions: Some(partitions),
    }];
    let table = |size: TableSize| TableOut { size: SizeOut::from(&size), table: size.name, partitions: None };
    tables.extend(of_tables.into_iter().map(table));
    Ok(json(TablesOut { as_of_position: counted.position, tables }))
}
