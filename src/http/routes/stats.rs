//! Statistics for operators: how much there is, of what, and where. Counted along the log, so that no answer costs a scan.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::state::raw;
use super::stream::not_found;
use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::event::Position;
use crate::domain::name::check_path_name;
use crate::domain::version::Version;
use crate::http::access::Caller;
use crate::http::conditional::NO_CACHE;
use crate::http::negotiate::{self, JSON};
use crate::http::openapi::ReadProblems;
use crate::http::path::PathParams;
use crate::http::problem::{FieldError, Problem, ProblemSchema, Refusal};
use crate::http::query::{Query, no_parameters};
use crate::http::wire::time;
use crate::store::error::StoreError;
use crate::store::statistics::{LARGEST_MAX, TableSize, TypeStatistics};

/// The whole store in numbers.
#[derive(Serialize, ToSchema)]
pub struct StatsOut {
    /// Up to this position the log is counted.
    as_of_position: Position,
    /// Position of the last event.
    head: Position,
    epoch: i32,
    events: i64,
    streams: i64,
    aggregate_types: i64,
    snapshots: i64,
    sizes: SizesOut,
}

/// Bytes, with indexes and everything.
#[derive(Serialize, ToSchema)]
pub struct SizesOut {
    /// Of all months that are in the database.
    events: i64,
    event_ids: i64,
    streams: i64,
    snapshots: i64,
    projection_positions: i64,
    total: i64,
}

/// All aggregate types, in byte order of their names.
#[derive(Serialize, ToSchema)]
pub struct AggregateTypesOut {
    as_of_position: Position,
    aggregate_types: Vec<AggregateTypeOut>,
}

#[derive(Serialize, ToSchema)]
pub struct AggregateTypeOut {
    aggregate_type: String,
    events: i64,
    streams: i64,
    snapshots: i64,
    #[schema(format = DateTime)]
    last_occurred_at: String,
    /// `[{"event_type", "events"}]`, in byte order of the event types.
    #[schema(value_type = Vec<serde_json::Value>)]
    event_types: Box<RawValue>,
}

/// The streams with the most events; of equal ones, those that were so large first.
#[derive(Serialize, ToSchema)]
pub struct LargestAggregatesOut {
    as_of_position: Position,
    aggregates: Vec<LargeAggregateOut>,
}

#[derive(Serialize, ToSchema)]
pub struct LargeAggregateOut {
    aggregate_type: String,
    aggregate_id: String,
    events: Version,
}

/// How many streams have a snapshot.
#[derive(Serialize, ToSchema)]
pub struct SnapshotCoverageOut {
    as_of_position: Position,
    streams: i64,
    snapshots: i64,
    /// Snapshots by streams, 0 to 1; 0 while there is no stream.
    coverage: f64,
    aggregate_types: Vec<TypeCoverageOut>,
}

#[derive(Serialize, ToSchema)]
pub struct TypeCoverageOut {
    aggregate_type: String,
    streams: i64,
    snapshots: i64,
    coverage: f64,
    /// `[{"at_least", "streams"}]`: how many streams have 1, 10, 50, 100, 1000, 10000 events or more. A short one needs none.
    #[schema(value_type = Vec<serde_json::Value>)]
    streams_by_size: Box<RawValue>,
}

/// What the tables take up.
#[derive(Serialize, ToSchema)]
pub struct TablesOut {
    as_of_position: Position,
    tables: Vec<TableOut>,
}

#[derive(Serialize, ToSchema)]
pub struct TableOut {
    table: String,
    #[serde(flatten)]
    size: SizeOut,
    /// Months, of events alone; archived ones take up nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionOut>>,
}

#[derive(Serialize, ToSchema)]
pub struct PartitionOut {
    name: String,
    #[schema(format = DateTime)]
    starts_at: String,
    #[schema(format = DateTime)]
    ends_at: String,
    /// `open`, `closed` (rolled up: it never changes again) or `archived`.
    state: &'static str,
    /// Once it is closed, and if it has events.
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

/// Bytes of a table, and what PostgreSQL's statistics say of its rows.
#[derive(Serialize, ToSchema, Default)]
pub struct SizeOut {
    heap_bytes: i64,
    index_bytes: i64,
    toast_bytes: i64,
    total_bytes: i64,
    /// Estimated.
    live_rows: i64,
    dead_rows: i64,
    #[schema(format = DateTime)]
    last_autovacuum: Option<String>,
    #[schema(format = DateTime)]
    last_autoanalyze: Option<String>,
}

/// One aggregate in numbers.
#[derive(Serialize, ToSchema)]
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
    /// Events that a load reads after the snapshot; all of them without one.
    events_since_snapshot: Version,
}

#[derive(Serialize, ToSchema)]
pub struct SnapshotStatsOut {
    version: Version,
    revision: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// The whole store in numbers
#[utoipa::path(get, path = "/stats", tag = "operations", responses(
    (status = 200, description = "Events, streams, snapshots, bytes", body = StatsOut), ReadProblems,
))]
pub async fn overview(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    begin(&app, &headers, || no_parameters(&uri)).await?;
    let counted = app.store.overview().await?;
    let head = app.store.log_head().await?;
    let sizes = app.store.table_sizes().await?;
    let total = |wanted: &dyn Fn(&TableSize) -> bool| {
        sizes.iter().filter(|size| wanted(size)).map(TableSize::total_bytes).sum::<i64>()
    };
    let of = |name: &'static str| total(&move |size: &TableSize| size.name == name);
    Ok(answer(StatsOut {
        as_of_position: counted.position,
        head: head.global_position,
        epoch: head.epoch,
        events: counted.value.events,
        streams: counted.value.streams,
        aggregate_types: counted.value.aggregate_types,
        snapshots: counted.value.snapshots,
        sizes: SizesOut {
            events: total(&|size| size.is_month),
            event_ids: of("event_ids"),
            streams: of("streams"),
            snapshots: of("snapshots"),
            projection_positions: of("projection_positions"),
            total: total(&|_| true),
        },
    }))
}

/// Events, streams and snapshots by aggregate type
#[utoipa::path(get, path = "/stats/aggregate-types", tag = "operations", responses(
    (status = 200, description = "Each type that has events", body = AggregateTypesOut), ReadProblems,
))]
pub async fn aggregate_types(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    begin(&app, &headers, || no_parameters(&uri)).await?;
    let mut counted = app.store.type_statistics().await?;
    counted.value.retain(|known| caller.may(Scope::Read, &known.aggregate_type));
    let out = |known: TypeStatistics| {
        Ok::<_, Box<Problem>>(AggregateTypeOut {
            aggregate_type: known.aggregate_type,
            events: known.events,
            streams: known.streams,
            snapshots: known.snapshots,
            last_occurred_at: time(known.last_occurred_at),
            event_types: raw(known.event_types)?,
        })
    };
    let aggregate_types = counted.value.into_iter().map(out).collect::<Result<_, _>>()?;
    Ok(answer(AggregateTypesOut { as_of_position: counted.position, aggregate_types }))
}

/// The streams with the most events
#[utoipa::path(get, path = "/stats/largest-aggregates", tag = "operations",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 1000, 10 if absent", minimum = 1, maximum = 1000),
        ("aggregate_type" = Option<String>, Query, description = "Of this type alone"),
    ),
    responses((status = 200, description = "The largest first", body = LargestAggregatesOut), ReadProblems))]
pub async fn largest_aggregates(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (limit, aggregate_type) = begin(&app, &headers, || {
        let mut query = Query::of(&uri)?;
        let limit = query.take_number("limit", 1, LARGEST_MAX)?.unwrap_or(10);
        let aggregate_type = query.take("aggregate_type")?;
        query.finish()?;
        if let Some(Err(fault)) = aggregate_type.as_deref().map(check_path_name) {
            return Err(Problem::invalid(FieldError::parameter("aggregate_type", fault.to_string())));
        }
        match &aggregate_type {
            Some(aggregate_type) => caller.check(Scope::Read, aggregate_type)?,
            None => caller.check_all(Scope::Read)?,
        }
        Ok((limit, aggregate_type))
    })
    .await?;
    let counted = app.store.largest_aggregates(aggregate_type.as_deref(), limit).await?;
    let aggregates = counted.value.into_iter().map(|large| LargeAggregateOut {
        aggregate_type: large.aggregate_type,
        aggregate_id: large.aggregate_id,
        events: large.events,
    });
    Ok(answer(LargestAggregatesOut { as_of_position: counted.position, aggregates: aggregates.collect() }))
}

/// How many streams have a snapshot
#[utoipa::path(get, path = "/stats/snapshot-coverage", tag = "operations", responses(
    (status = 200, description = "In all, and by type", body = SnapshotCoverageOut), ReadProblems,
))]
pub async fn snapshot_coverage(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    begin(&app, &headers, || no_parameters(&uri)).await?;
    let mut counted = app.store.type_statistics().await?;
    counted.value.retain(|known| caller.may(Scope::Read, &known.aggregate_type));
    let streams = counted.value.iter().map(|known| known.streams).sum();
    let snapshots = counted.value.iter().map(|known| known.snapshots).sum();
    let out = |known: TypeStatistics| {
        Ok::<_, Box<Problem>>(TypeCoverageOut {
            aggregate_type: known.aggregate_type,
            streams: known.streams,
            snapshots: known.snapshots,
            coverage: coverage(known.snapshots, known.streams),
            streams_by_size: raw(known.streams_by_size)?,
        })
    };
    let aggregate_types = counted.value.into_iter().map(out).collect::<Result<_, _>>()?;
    let coverage = coverage(snapshots, streams);
    let as_of_position = counted.position;
    Ok(answer(SnapshotCoverageOut { as_of_position, streams, snapshots, coverage, aggregate_types }))
}

/// What the tables take up, month by month
#[utoipa::path(get, path = "/stats/tables", tag = "operations", responses(
    (status = 200, description = "Bytes, rows, vacuum", body = TablesOut), ReadProblems,
))]
pub async fn tables(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Refusal> {
    begin(&app, &headers, || no_parameters(&uri)).await?;
    let counted = app.store.overview().await?;
    let (months, others): (Vec<_>, Vec<_>) = app.store.table_sizes().await?.into_iter().partition(|size| size.is_month);
    let mut partitions = Vec::new();
    for month in app.store.months().await? {
        let state = match (month.archived_at, month.rolled_up_at) {
            (Some(_), _) => "archived",
            (None, Some(_)) => "closed",
            (None, None) => "open",
        };
        let size = months.iter().find(|size| size.name == month.name);
        partitions.push(PartitionOut {
            starts_at: time(month.starts_at),
            ends_at: time(month.ends_at),
            state,
            first_position: month.first_position,
            last_position: month.last_position,
            events: month.events,
            first_occurred_at: month.first_occurred_at.map(time),
            last_occurred_at: month.last_occurred_at.map(time),
            archived_to: month.archived_at.and(month.archived_to),
            size: size.map(SizeOut::of).unwrap_or_default(),
            name: month.name,
        });
    }
    let events = TableOut { table: "events".to_owned(), size: SizeOut::sum(&months), partitions: Some(partitions) };
    let mut tables = vec![events];
    let table = |size: TableSize| TableOut { size: SizeOut::of(&size), table: size.name, partitions: None };
    tables.extend(others.into_iter().map(table));
    Ok(answer(TablesOut { as_of_position: counted.position, tables }))
}

/// One aggregate in numbers
#[utoipa::path(get, path = "/stats/aggregates/{aggregate_type}/{aggregate_id}", tag = "operations",
    params(
        ("aggregate_type" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
        ("aggregate_id" = String, Path, description = "1 to 255 characters, without `/`", max_length = 255),
    ),
    responses(
        (status = 200, description = "Events, snapshot, and how far they are apart", body = AggregateStatsOut),
        (status = 404, description = "The stream does not exist", body = ProblemSchema, content_type = "application/problem+json"),
        ReadProblems,
    ))]
pub async fn aggregate(
    State(app): State<Arc<App>>,
    path: PathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    negotiate::accepted(&headers, &[JSON])?;
    let stream = path.stream()?;
    no_parameters(&uri)?;
    let as_of_position = app.store.log_head().await?.global_position;
    let head = app.store.stream_head(&stream).await?.ok_or_else(|| not_found(&stream))?;
    let snapshot = app.store.snapshot(&stream).await?;
    let covered = snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
    Ok(answer(AggregateStatsOut {
        as_of_position,
        aggregate_type: stream.aggregate_type().to_owned(),
        aggregate_id: stream.aggregate_id().to_owned(),
        events: head.version,
        first_occurred_at: time(head.first_occurred_at),
        last_occurred_at: time(head.last_occurred_at),
        snapshot: snapshot.map(|snapshot| SnapshotStatsOut {
            version: snapshot.version,
            revision: snapshot.revision,
            created_at: time(snapshot.created_at),
        }),
        events_since_snapshot: (head.version - covered).max(0),
    }))
}

/// Reads the request, and counts what is new.
async fn begin<T>(
    app: &App,
    headers: &HeaderMap,
    parameters: impl FnOnce() -> Result<T, Box<Problem>>,
) -> Result<T, Refusal> {
    negotiate::accepted(headers, &[JSON])?;
    let parameters = parameters()?;
    match app.store.count_events().await {
        // A database that takes no writes answers with what was counted before.
        Ok(_) | Err(StoreError::Unavailable(_)) => Ok(parameters),
        Err(error) => Err(error.into()),
    }
}

fn answer(out: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, NO_CACHE)], Json(out)).into_response()
}

fn coverage(snapshots: i64, streams: i64) -> f64 {
    if streams > 0 { snapshots as f64 / streams as f64 } else { 0.0 }
}

impl SizeOut {
    fn of(size: &TableSize) -> Self {
        Self::sum(std::slice::from_ref(size))
    }

    /// Of several partitions; the times are the latest ones.
    fn sum(sizes: &[TableSize]) -> Self {
        let total = |part: fn(&TableSize) -> i64| sizes.iter().map(part).sum();
        Self {
            heap_bytes: total(|size| size.heap_bytes),
            index_bytes: total(|size| size.index_bytes),
            toast_bytes: total(|size| size.toast_bytes),
            total_bytes: total(TableSize::total_bytes),
            live_rows: total(|size| size.live_rows),
            dead_rows: total(|size| size.dead_rows),
            last_autovacuum: sizes.iter().filter_map(|size| size.last_autovacuum).max().map(time),
            last_autoanalyze: sizes.iter().filter_map(|size| size.last_autoanalyze).max().map(time),
        }
    }
}
