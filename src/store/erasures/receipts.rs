//! Stored erasures: their receipts, their streams, and what is left to do.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::domain::erasure::{ErasedContent, ErasureNo};
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::store::error::StoreError;
use crate::store::jsonb::JsonbText;
use crate::store::reader::Reader;

const ERASURES: &str = include_str!("../sql/erasures.sql");
const ERASURE_MONTHS: &str = include_str!("../sql/erasure_months.sql");
const ERASURE_STREAMS: &str = include_str!("../sql/erasure_streams.sql");
const ERASED_EVENT_IDS: &str = include_str!("../sql/erased_event_ids.sql");
const ERASURE_OF_EVENTS: &str = include_str!("../sql/erasure_of_events.sql");
const LAST_ERASURE_OF_STREAM: &str = include_str!("../sql/last_erasure_of_stream.sql");
const ERASURES_NOT_ANNOUNCED: &str = include_str!("../sql/erasures_not_announced.sql");
const PENDING_ERASURES: &str = include_str!("../sql/pending_erasures.sql");
const COUNT_SNAPSHOTS: &str = include_str!("../sql/count_snapshots.sql");
const MONTHS_OF_TIMES: &str = include_str!("../sql/months_of_times.sql");

/// A stored erasure.
#[derive(Debug, Clone)]
pub struct Erasure {
    pub erasure: ErasureNo,
    pub reason: String,
    pub aggregate_types: Vec<String>,
    pub requested_at: DateTime<Utc>,
    pub requested_by: Option<String>,
    /// The numbers of events, streams and snapshots that it has newly erased.
    pub events: i32,
    pub streams: i32,
    pub snapshots: i32,
    pub announced_position: Option<Position>,
    pub hidden_at: Option<DateTime<Utc>>,
    pub removed_at: Option<DateTime<Utc>>,
    /// In order.
    pub months: Vec<ErasureMonth>,
}

/// A month with erased events.
#[derive(Debug, Clone)]
pub struct ErasureMonth {
    pub starts_at: DateTime<Utc>,
    pub events: i32,
    /// It was archived when the events were erased.
    pub archived: bool,
    pub removed_at: Option<DateTime<Utc>>,
}

/// A stream with erased events.
#[derive(Debug, Clone)]
pub struct ErasedStream {
    pub stream: StreamId,
    /// JSON: the erased versions as ranges.
    pub versions: String,
    /// JSON: the erased members, or null for all content.
    pub members: String,
}

/// The erasures whose bytes are not removed yet.
#[derive(Debug, Clone, Copy)]
pub struct PendingErasures {
    pub count: i64,
    /// When the oldest of them was requested.
    pub since: Option<DateTime<Utc>>,
}

impl Erasure {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            erasure: row.try_get("erasure")?,
            reason: row.try_get("reason")?,
            aggregate_types: row.try_get("aggregate_types")?,
            requested_at: row.try_get("requested_at")?,
            requested_by: row.try_get("requested_by")?,
            events: row.try_get("events")?,
            streams: row.try_get("streams")?,
            snapshots: row.try_get("snapshots")?,
            announced_position: row.try_get("announced_position")?,
            hidden_at: row.try_get("hidden_at")?,
            removed_at: row.try_get("removed_at")?,
            months: Vec::new(),
        })
    }
}

impl Reader {
    /// Returns an erasure; `None` if it does not exist.
    pub async fn erasure(&self, erasure: ErasureNo) -> Result<Option<Erasure>, StoreError> {
        Ok(self.read_erasures(erasure - 1, Some(erasure), 1).await?.pop())
    }

    /// Returns the erasures after a number, in order, at most `limit`.
    pub async fn erasures_after(&self, after: ErasureNo, limit: usize) -> Result<Vec<Erasure>, StoreError> {
        self.read_erasures(after, None, limit).await
    }

    async fn read_erasures(
        &self,
        after: ErasureNo,
        to: Option<ErasureNo>,
        limit: usize,
    ) -> Result<Vec<Erasure>, StoreError> {
        let mut connection = self.acquire().await?;
        let rows = sqlx::query(ERASURES)
            .bind(after)
            .bind(to)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await?;
        let mut erasures: Vec<_> = rows.iter().map(Erasure::from_row).collect::<Result<_, _>>()?;
        let numbers: Vec<_> = erasures.iter().map(|erasure| erasure.erasure).collect();
        type Row = (ErasureNo, DateTime<Utc>, i32, bool, Option<DateTime<Utc>>);
        let months: Vec<Row> = sqlx::query_as(ERASURE_MONTHS).bind(numbers).fetch_all(&mut *connection).await?;
        for (number, starts_at, events, archived, removed_at) in months {
            if let Ok(at) = erasures.binary_search_by_key(&number, |erasure| erasure.erasure) {
                erasures[at].months.push(ErasureMonth { starts_at, events, archived, removed_at });
            }
        }
        Ok(erasures)
    }

    /// Returns the streams of an erasure.
    pub async fn erased_streams(&self, erasure: ErasureNo) -> Result<Vec<ErasedStream>, StoreError> {
        let rows = sqlx::query(ERASURE_STREAMS).bind(erasure).fetch_all(&mut *self.acquire().await?).await?;
        let stream = |row: &PgRow| {
            let stream = StreamId::parse(row.try_get("aggregate_type")?, row.try_get("aggregate_id")?);
            let members: Option<JsonbText<'_>> = row.try_get("members")?;
            Ok::<_, StoreError>(ErasedStream {
                stream: stream.map_err(|fault| StoreError::unreadable(fault.fault))?,
                versions: row.try_get::<JsonbText<'_>, _>("versions")?.0.to_owned(),
                members: members.map_or("null", |members| members.0).to_owned(),
            })
        };
        rows.iter().map(stream).collect()
    }

    /// Returns what an erasure has erased: the ids of its events, and the erased members (`None`: all content).
    pub async fn erased_event_ids(&self, erasure: ErasureNo) -> Result<(Vec<Uuid>, Option<Vec<String>>), StoreError> {
        let rows: Vec<(Uuid, Option<Vec<String>>)> =
            sqlx::query_as(ERASED_EVENT_IDS).bind(erasure).fetch_all(&mut *self.acquire().await?).await?;
        let members = rows.first().and_then(|(_, members)| members.clone());
        Ok((rows.into_iter().map(|(id, _)| id).collect(), members))
    }

    /// Returns the newest erasure that has erased this content of one of the events at some positions.
    pub async fn erasure_of_events(
        &self,
        positions: &[Position],
        content: &ErasedContent,
    ) -> Result<Option<ErasureNo>, StoreError> {
        Ok(sqlx::query_scalar(ERASURE_OF_EVENTS)
            .bind(positions)
            .bind(content.members())
            .fetch_one(&mut *self.acquire().await?)
            .await?)
    }

    /// Returns the last erasure of a stream.
    pub async fn last_erasure_of(&self, stream: &StreamId) -> Result<Option<ErasureNo>, StoreError> {
        Ok(sqlx::query_scalar(LAST_ERASURE_OF_STREAM)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .fetch_one(&mut *self.acquire().await?)
            .await?)
    }

    /// Returns the erasures whose `$erased` events are not recorded yet.
    pub async fn erasures_not_announced(&self) -> Result<Vec<ErasureNo>, StoreError> {
        Ok(sqlx::query_scalar(ERASURES_NOT_ANNOUNCED).fetch_all(&mut *self.acquire().await?).await?)
    }

    /// Returns the number of the erasures whose bytes are not removed yet, and their age.
    pub async fn pending_erasures(&self) -> Result<PendingErasures, StoreError> {
        let (count, since) = sqlx::query_as(PENDING_ERASURES).fetch_one(&mut *self.acquire().await?).await?;
        Ok(PendingErasures { count, since })
    }

    /// Returns the number of snapshots of some streams, each with its type and its id.
    pub async fn count_snapshots<'s>(
        &self,
        streams: impl Iterator<Item = (&'s String, &'s String)>,
    ) -> Result<i64, StoreError> {
        let (aggregate_types, aggregate_ids): (Vec<_>, Vec<_>) = streams.unzip();
        Ok(sqlx::query_scalar(COUNT_SNAPSHOTS)
            .bind(aggregate_types)
            .bind(aggregate_ids)
            .fetch_one(&mut *self.acquire().await?)
            .await?)
    }

    /// Returns the months of events that occurred at some times: the beginning of each, the number of events, and
    /// whether it is archived.
    pub async fn months_of(&self, times: &[DateTime<Utc>]) -> Result<Vec<ErasureMonth>, StoreError> {
        let rows: Vec<(DateTime<Utc>, i32, bool)> =
            sqlx::query_as(MONTHS_OF_TIMES).bind(times).fetch_all(&mut *self.acquire().await?).await?;
        let month = |(starts_at, events, archived)| ErasureMonth { starts_at, events, archived, removed_at: None };
        Ok(rows.into_iter().map(month).collect())
    }
}
