//! Parked streams: streams that are set aside because an event could not be processed.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::domain::event::Position;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::primary::Primary;

const PARKED_NAMES: &str = include_str!("../sql/parked_names.sql");
const PARKED_STREAMS: &str = include_str!("../sql/parked_streams.sql");
const PARKED_STREAMS_DUE: &str = include_str!("../sql/parked_streams_due.sql");
const PARKED_FOR_GOOD: &str = include_str!("../sql/parked_for_good.sql");
const RETRY_PARKED_STREAMS: &str = include_str!("../sql/retry_parked_streams.sql");

type Row = (
    String,
    String,
    i16,
    Position,
    Uuid,
    String,
    Version,
    Position,
    i32,
    String,
    DateTime<Utc>,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
);

/// A parked stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedStream {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub bucket: i16,
    /// Every event of the stream up to here was processed.
    pub last_processed_position: Position,
    pub event: FailedEvent,
    /// The number of times that the event has failed.
    pub attempts: i32,
    pub reason: String,
    pub parked_at: DateTime<Utc>,
    pub failed_at: DateTime<Utc>,
    /// When the event is tried again; `None` if an operator decides.
    pub retry_at: Option<DateTime<Utc>>,
}

/// An event that could not be processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailedEvent {
    pub event_id: Uuid,
    pub event_type: String,
    pub version: Version,
    pub global_position: Position,
}

/// A stream to park, or the change of a parked one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewParkedStream {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub bucket: i16,
    pub last_processed_position: Position,
    #[serde(flatten)]
    pub event: FailedEvent,
    pub attempts: i32,
    pub reason: String,
    /// The seconds until the next try; `None` if an operator decides.
    pub retry_seconds: Option<i32>,
}

/// A stream that is no longer parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnparkedStream {
    pub aggregate_type: String,
    pub aggregate_id: String,
}

/// Which parked streams a list has, and where it begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct ParkedQuery<'q> {
    /// Only streams after this one.
    pub after: (&'q str, &'q str),
    pub aggregate_type: Option<&'q str>,
    pub aggregate_id: Option<&'q str>,
    /// Only streams whose retry an operator decides.
    pub only_for_good: bool,
    pub limit: usize,
}

/// Which parked streams are made due. `None`: any.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetryQuery<'q> {
    pub aggregate_type: Option<&'q str>,
    pub event_type: Option<&'q str>,
    pub reason: Option<&'q str>,
}

fn parked_stream(row: Row) -> ParkedStream {
    let (
        aggregate_type,
        aggregate_id,
        bucket,
        last_processed_position,
        event_id,
        event_type,
        version,
        global_position,
        attempts,
        reason,
        parked_at,
        failed_at,
        retry_at,
    ) = row;
    ParkedStream {
        aggregate_type,
        aggregate_id,
        bucket,
        last_processed_position,
        event: FailedEvent { event_id, event_type, version, global_position },
        attempts,
        reason,
        parked_at,
        failed_at,
        retry_at,
    }
}

impl ParkedStream {
    /// Returns the stream as a change to it begins.
    pub fn to_new(&self) -> NewParkedStream {
        NewParkedStream {
            aggregate_type: self.aggregate_type.clone(),
            aggregate_id: self.aggregate_id.clone(),
            bucket: self.bucket,
            last_processed_position: self.last_processed_position,
            event: self.event.clone(),
            attempts: self.attempts,
            reason: self.reason.clone(),
            retry_seconds: None,
        }
    }

    /// Returns the name of the stream, to remove it from the parked ones.
    pub fn to_unparked(&self) -> UnparkedStream {
        UnparkedStream { aggregate_type: self.aggregate_type.clone(), aggregate_id: self.aggregate_id.clone() }
    }
}

impl Primary {
    /// Returns the names of the parked streams in some buckets, each with its bucket.
    pub async fn parked_names(&self, group_no: i64, buckets: &[i16]) -> Result<Vec<(i16, String, String)>, StoreError> {
        let names =
            sqlx::query_as(PARKED_NAMES).bind(group_no).bind(buckets).fetch_all(&mut *self.acquire().await?).await?;
        Ok(names)
    }

    /// Returns the parked streams that are due, the longest due first, at most `limit`.
    pub async fn parked_streams_due(&self, group_no: i64, limit: i64) -> Result<Vec<ParkedStream>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(PARKED_STREAMS_DUE)
            .bind(group_no)
            .bind(limit)
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(rows.into_iter().map(parked_stream).collect())
    }

    /// Returns a parked stream; `None` if it is not parked.
    pub async fn parked_stream(
        &self,
        group_no: i64,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<Option<ParkedStream>, StoreError> {
        let one = ParkedQuery {
            aggregate_type: Some(aggregate_type),
            aggregate_id: Some(aggregate_id),
            limit: 1,
            ..ParkedQuery::default()
        };
        Ok(self.parked_streams(group_no, one).await?.into_iter().next())
    }

    /// Returns parked streams in byte order of type and id.
    pub async fn parked_streams(&self, group_no: i64, query: ParkedQuery<'_>) -> Result<Vec<ParkedStream>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(PARKED_STREAMS)
            .bind(group_no)
            .bind(query.after.0)
            .bind(query.after.1)
            .bind(query.aggregate_type)
            .bind(query.only_for_good)
            .bind(query.aggregate_id)
            .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(rows.into_iter().map(parked_stream).collect())
    }

    /// Returns the number of parked streams of each group, and of those whose retry an operator decides. A group without
    /// parked streams is absent.
    pub async fn count_parked(&self, group_nos: &[i64]) -> Result<Vec<(i64, i64, i64)>, StoreError> {
        let counts = sqlx::query_as(PARKED_FOR_GOOD).bind(group_nos).fetch_all(&mut *self.acquire().await?).await?;
        Ok(counts)
    }

    /// Makes parked streams due. Returns their number.
    pub async fn retry_parked_streams(&self, group_no: i64, query: RetryQuery<'_>) -> Result<u64, StoreError> {
        let retried = sqlx::query(RETRY_PARKED_STREAMS)
            .bind(group_no)
            .bind(query.aggregate_type)
            .bind(query.event_type)
            .bind(query.reason)
            .execute(&mut *self.acquire_to_write().await?)
            .await?;
        Ok(retried.rows_affected())
    }
}
