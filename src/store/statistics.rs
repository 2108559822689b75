//! Statistics: what was counted along the log, and what PostgreSQL says of its tables. migrations/0008_statistics.sql has
//! the counting.
//!
//! Whoever asks counts what is new first, so an answer is as of the head, unless somebody else is just counting a long way.

use chrono::{DateTime, Utc};
use sqlx::Row;

use super::Store;
use super::error::StoreError;
use crate::domain::event::Position;
use crate::domain::version::Version;

const STATS_OVERVIEW: &str = include_str!("sql/stats_overview.sql");
const STATS_AGGREGATE_TYPES: &str = include_str!("sql/stats_aggregate_types.sql");
const STATS_LARGEST_AGGREGATES: &str = include_str!("sql/stats_largest_aggregates.sql");
const TABLE_SIZES: &str = include_str!("sql/table_sizes.sql");

/// Positions counted in one transaction.
const BATCH: i64 = 50_000;
/// Streams of a type whose order by size is known.
pub const LARGEST_MAX: i64 = 1_000;

/// An answer, and the position up to which the log was counted for it.
#[derive(Debug, Clone)]
pub struct AsOf<T> {
    pub position: Position,
    pub value: T,
}

/// The whole store in numbers.
#[derive(Debug, Clone, Copy)]
pub struct Overview {
    pub events: i64,
    pub streams: i64,
    pub aggregate_types: i64,
    pub snapshots: i64,
}

/// One aggregate type in numbers; the two lists are JSON.
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

/// A stream and how many events it has.
#[derive(Debug, Clone)]
pub struct LargeAggregate {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub events: Version,
}

/// What a table, or a month of events, takes up.
#[derive(Debug, Clone)]
pub struct TableSize {
    pub name: String,
    /// A partition of events.
    pub is_month: bool,
    pub heap_bytes: i64,
    pub index_bytes: i64,
    pub toast_bytes: i64,
    /// As PostgreSQL's statistics estimate them.
    pub live_rows: i64,
    pub dead_rows: i64,
    pub last_autovacuum: Option<DateTime<Utc>>,
    pub last_autoanalyze: Option<DateTime<Utc>>,
}

impl TableSize {
    pub fn total_bytes(&self) -> i64 {
        self.heap_bytes + self.index_bytes + self.toast_bytes
    }
}

impl Store {
    /// Counts on along the log, one batch; positions that are left, `None` if somebody else counts at this moment.
    pub async fn count_events(&self) -> Result<Option<Position>, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar("SELECT count_events($1)").bind(BATCH).fetch_one(&mut *connection).await?)
    }

    /// Counts to the head of the log.
    pub async fn count_all_events(&self) -> Result<(), StoreError> {
        while self.count_events().await?.is_some_and(|left| left > 0) {}
        Ok(())
    }

    pub async fn overview(&self) -> Result<AsOf<Overview>, StoreError> {
        let row = sqlx::query(STATS_OVERVIEW).fetch_one(&mut *self.acquire().await?).await?;
        let value = Overview {
            events: row.try_get("events")?,
            streams: row.try_get("streams")?,
            aggregate_types: row.try_get("aggregate_types")?,
            snapshots: row.try_get("snapshots")?,
        };
        Ok(AsOf { position: row.try_get("as_of_position")?, value })
    }

    /// All types in byte order of their names.
    pub async fn type_statistics(&self) -> Result<AsOf<Vec<TypeStatistics>>, StoreError> {
        let rows = sqlx::query(STATS_AGGREGATE_TYPES).fetch_all(&mut *self.acquire().await?).await?;
        let (mut position, mut value) = (0, Vec::new());
        for row in &rows {
            position = row.try_get("as_of_position")?;
            // Without events there is one row, with nothing but the position.
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
        Ok(AsOf { position, value })
    }

    /// The streams with the most events, of one type or of all.
    pub async fn largest_aggregates(
        &self,
        aggregate_type: Option<&str>,
        limit: i64,
    ) -> Result<AsOf<Vec<LargeAggregate>>, StoreError> {
        let rows = sqlx::query(STATS_LARGEST_AGGREGATES)
            .bind(aggregate_type)
            .bind(limit)
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        let (mut position, mut value) = (0, Vec::new());
        for row in &rows {
            position = row.try_get("as_of_position")?;
            let Some(aggregate_type) = row.try_get("aggregate_type")? else { continue };
            value.push(LargeAggregate {
                aggregate_type,
                aggregate_id: row.try_get("aggregate_id")?,
                events: row.try_get("version")?,
            });
        }
        Ok(AsOf { position, value })
    }

    /// What the tables take up, in byte order of their names; events month by month.
    pub async fn table_sizes(&self) -> Result<Vec<TableSize>, StoreError> {
        let rows = sqlx::query(TABLE_SIZES).fetch_all(&mut *self.acquire().await?).await?;
        let size = |row: &sqlx::postgres::PgRow| {
            Ok::<_, sqlx::Error>(TableSize {
                name: row.try_get("name")?,
                is_month: row.try_get("is_month")?,
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
