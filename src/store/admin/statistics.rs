//! Statistics: counts along the log (`migrations/functions/count_events.sql`), and PostgreSQL's statistics of the
//! tables.
//!
//! A request first counts new events, so the results are current as of the head unless another process is in the middle
//! of a long count.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::event::Position;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const STATS_OVERVIEW: &str = include_str!("../sql/stats_overview.sql");
const STATS_AGGREGATE_TYPES: &str = include_str!("../sql/stats_aggregate_types.sql");
const STATS_LARGEST_AGGREGATES: &str = include_str!("../sql/stats_largest_aggregates.sql");
const STATS_LARGEST_AGGREGATES_OF_TYPES: &str = include_str!("../sql/stats_largest_aggregates_of_types.sql");
const TABLE_SIZES: &str = include_str!("../sql/table_sizes.sql");

/// The number of positions that one transaction counts.
const BATCH: i64 = 50_000;
/// The number of streams of a type in the list of the largest ones.
pub const LARGEST_MAX: i64 = 1_000;

/// A result, and the position up to which the log was counted for it.
#[derive(Debug, Clone)]
pub struct CountedTo<T> {
    pub position: Position,
    pub value: T,
}

/// The totals of the whole store.
#[derive(Debug, Clone, Copy)]
pub struct Overview {
    pub events: i64,
    pub streams: i64,
    pub aggregate_types: i64,
    pub snapshots: i64,
}

/// The totals of one aggregate type. The two lists are JSON.
#[derive(Debug, Clone)]
pub struct TypeStatistics {
    pub aggregate_type: String,
    pub events: i64,
    pub streams: i64,
    pub snapshots: i64,
    pub last_occurred_at: DateTime<Utc>,
    pub event_types: String,
    pub streams_by_size: String,
}

/// A stream and the number of its events.
#[derive(Debug, Clone)]
pub struct LargeAggregate {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub events: Version,
}

/// The size of a table, or of a partition of `events`.
#[derive(Debug, Clone)]
pub struct TableSize {
    pub name: String,
    /// It is a partition of `events`.
    pub is_partition: bool,
    pub heap_bytes: i64,
    pub index_bytes: i64,
    pub toast_bytes: i64,
    /// An estimate from PostgreSQL's statistics.
    pub live_rows: i64,
    pub dead_rows: i64,
    pub last_autovacuum: Option<DateTime<Utc>>,
    pub last_autoanalyze: Option<DateTime<Utc>>,
}

impl TableSize {
    /// Returns the size of the heap, the indexes and TOAST together.
    pub fn total_bytes(&self) -> i64 {
        self.heap_bytes + self.index_bytes + self.toast_bytes
    }
}

impl Primary {
    /// Counts the next part of the log. Returns the number of positions that are not counted yet; `None` if another
    /// process counts at this moment.
    pub async fn count_events(&self) -> Result<Option<Position>, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar("SELECT count_events(p_limit => $1)").bind(BATCH).fetch_one(&mut *connection).await?)
    }

    /// Counts to the head of the log.
    pub async fn count_all_events(&self) -> Result<(), StoreError> {
        while self.count_events().await?.is_some_and(|left| left > 0) {}
        Ok(())
    }
}

impl Reader {
    /// Returns the totals of the whole store.
    pub async fn overview(&self) -> Result<CountedTo<Overview>, StoreError> {
        let row = sqlx::query(STATS_OVERVIEW).fetch_one(&mut *self.acquire().await?).await?;
        let value = Overview {
            events: row.try_get("events")?,
            streams: row.try_get("streams")?,
            aggregate_types: row.try_get("aggregate_types")?,
            snapshots: row.try_get("snapshots")?,
        };
        Ok(CountedTo { position: row.try_get("as_of_position")?, value })
    }

    /// Returns all types in byte order of their names.
    pub async fn type_statistics(&self) -> Result<CountedTo<Vec<TypeStatistics>>, StoreError> {
        let rows = sqlx::query(STATS_AGGREGATE_TYPES).fetch_all(&mut *self.acquire().await?).await?;
        let (mut position, mut value) = (0, Vec::new());
        for row in &rows {
            position = row.try_get("as_of_position")?;
            // Without events the only row has just the position.
            let Some(aggregate_type) = row.try_get("aggregate_type")? else { continue };
            value.push(TypeStatistics {
                aggregate_type,
                events: row.try_get("events")?,
                streams: row.try_get("streams")?,
                snapshots: row.try_get("snapshots")?,
                last_occurred_at: row.try_get("last_occurred_at")?,
                event_types: row.try_get("event_types")?,
                streams_by_size: row.try_get("by_size")?,
            });
        }
        Ok(CountedTo { position, value })
    }

    /// Returns the streams with the most events, of one type or of all.
    pub async fn largest_aggregates(
        &self,
        aggregate_type: Option<&str>,
        limit: i64,
    ) -> Result<CountedTo<Vec<LargeAggregate>>, StoreError> {
        let rows = sqlx::query(STATS_LARGEST_AGGREGATES)
            .bind(aggregate_type)
            .bind(limit)
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(large_aggregates(&rows)?)
    }

    /// Returns the streams of some types with the most events.
    pub async fn largest_aggregates_of(
        &self,
        aggregate_types: &[String],
        limit: i64,
    ) -> Result<CountedTo<Vec<LargeAggregate>>, StoreError> {
        let rows = sqlx::query(STATS_LARGEST_AGGREGATES_OF_TYPES)
            .bind(aggregate_types)
            .bind(limit)
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(large_aggregates(&rows)?)
    }

    /// Returns the sizes of the tables, and of each partition of `events`, in byte order of their names.
    pub async fn table_sizes(&self) -> Result<Vec<TableSize>, StoreError> {
        let rows = sqlx::query(TABLE_SIZES).fetch_all(&mut *self.acquire().await?).await?;
        let size = |row: &PgRow| {
            Ok::<_, sqlx::Error>(TableSize {
                name: row.try_get("name")?,
                is_partition: row.try_get("is_partition")?,
                heap_bytes: row.try_get("heap_bytes")?,
                index_bytes: row.try_get("index_bytes")?,
                toast_bytes: row.try_get("toast_bytes")?,
                live_rows: row.try_get("live_rows")?,
                dead_rows: row.try_get("dead_rows")?,
                last_autovacuum: row.try_get("last_autovacuum")?,
                last_autoanalyze: row.try_get("last_autoanalyze")?,
            })
        };
        Ok(rows.iter().map(size).collect::<Result<_, _>>()?)
    }
}

/// Decodes the rows of a list of the largest streams. Without a stream the only row has just the position.
fn large_aggregates(rows: &[PgRow]) -> Result<CountedTo<Vec<LargeAggregate>>, sqlx::Error> {
    let (mut position, mut value) = (0, Vec::new());
    for row in rows {
        position = row.try_get("as_of_position")?;
        let Some(aggregate_type) = row.try_get("aggregate_type")? else { continue };
        value.push(LargeAggregate {
            aggregate_type,
            aggregate_id: row.try_get("aggregate_id")?,
            events: row.try_get("version")?,
        });
    }
    Ok(CountedTo { position, value })
}
