//! Reads of streams and single events.
//!
//! A read begins with the stream's head, which says where the stream stands and between which times its events lie: these
//! times tell PostgreSQL which months to look at. Events never change, so a page read after the head fits it.

use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::error::StoreError;
use super::{Store, StoredEvent, archived, event_from_row};
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::Version;

/// How many rows one statement asks for: what the last rows say would fill `CHUNK_BYTES`, so that little is fetched
/// which a full page then throws away.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    rows: i64,
}

const CHUNK_BYTES: usize = 1024 * 1024;
const CHUNK_ROWS_MAX: i64 = 500;

impl Default for Pace {
    /// Before anything is known of the events' size.
    fn default() -> Self {
        Self { rows: 64 }
    }
}

impl Pace {
    /// Rows to ask for when so many are wanted.
    pub(super) fn rows_of(self, wanted: usize) -> i64 {
        i64::try_from(wanted).unwrap_or(i64::MAX).min(self.rows)
    }

    pub(super) fn learn(&mut self, rows: i64, bytes: usize) {
        let fitting = i64::try_from(CHUNK_BYTES * usize::try_from(rows).unwrap_or(1) / bytes.max(1));
        self.rows = fitting.unwrap_or(CHUNK_ROWS_MAX).clamp(1, CHUNK_ROWS_MAX);
    }
}

const STREAM_HEAD: &str = include_str!("sql/stream_head.sql");
const STREAM_EVENTS_FORWARD: &str = include_str!("sql/stream_events_forward.sql");
const STREAM_EVENTS_BACKWARD: &str = include_str!("sql/stream_events_backward.sql");
const EVENT_LOCATION: &str = include_str!("sql/event_location.sql");
const EVENTS_AT: &str = include_str!("sql/events_at.sql");
const VERSION_AT: &str = include_str!("sql/version_at.sql");
const STREAMS_OF_TYPE: &str = include_str!("sql/streams_of_type.sql");

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    pub version: Version,
    pub first_occurred_at: DateTime<Utc>,
    pub last_occurred_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// Versions to read, both bounds included, from the lower one forward or from the upper one backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    pub from: Version,
    pub to: Version,
    pub direction: Direction,
}

impl VersionRange {
    pub fn is_empty(self) -> bool {
        self.from > self.to
    }

    /// The version that comes next.
    pub(super) fn next(self) -> Version {
        match self.direction {
            Direction::Forward => self.from,
            Direction::Backward => self.to,
        }
    }

    /// What is left after `version` was read.
    pub fn after(self, version: Version) -> Self {
        match self.direction {
            Direction::Forward => Self { from: version + 1, ..self },
            Direction::Backward => Self { to: version - 1, ..self },
        }
    }
}

/// A read of a stream on its way.
pub(super) struct StreamReading {
    /// What is left.
    pub(super) range: VersionRange,
    /// Events that are still wanted.
    wanted: usize,
    broken_off: bool,
}

impl StreamReading {
    pub(super) fn is_over(&self) -> bool {
        self.broken_off || self.wanted == 0 || self.range.is_empty()
    }

    /// Hands the next event over; whether the read is over.
    pub(super) fn hand_over(
        &mut self,
        event: &StoredEvent<'_>,
        take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> bool {
        self.range = self.range.after(event.version);
        self.wanted -= 1;
        self.broken_off = take(event).is_break();
        self.is_over()
    }
}

/// A stream in a listing.
#[derive(Debug, Clone)]
pub struct ListedStream {
    pub aggregate_id: String,
    pub head: StreamHead,
}

impl Store {
    /// Where a stream stands; `None` if it has no event.
    pub async fn stream_head(&self, stream: &StreamId) -> Result<Option<StreamHead>, StoreError> {
        let mut connection = self.acquire().await?;
        // To its end, which who asks for one row does not wait for.
        let heads: Vec<(Version, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(STREAM_HEAD)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(self.catalogue().open_from)
            .fetch_all(&mut *connection)
            .await?;
        connection.hand_on();
        Ok(heads.first().copied().map(|(version, first_occurred_at, last_occurred_at)| StreamHead {
            version,
            first_occurred_at,
            last_occurred_at,
        }))
    }

    /// Hands the events of `range` to `take`, in order, at most `limit`, until `take` breaks off. Returns what is left
    /// of the range.
    pub async fn read_stream(
        &self,
        stream: &StreamId,
        head: &StreamHead,
        mut range: VersionRange,
        limit: usize,
        pace: &mut Pace,
        mut take: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<VersionRange, StoreError> {
        let statement = match range.direction {
            Direction::Forward => STREAM_EVENTS_FORWARD,
            Direction::Backward => STREAM_EVENTS_BACKWARD,
        };
        range.to = range.to.min(head.version);
        let mut reading = StreamReading { range, wanted: limit, broken_off: false };
        let mut known = self.catalogue();
        while !reading.is_over() {
            let mut connection = self.acquire().await?;
            let before = reading.range;
            let mut rows = sqlx::query(statement)
                .bind(stream.aggregate_type())
                .bind(stream.aggregate_id())
                .bind(reading.range.from)
                .bind(reading.range.to)
                .bind(pace.rows_of(reading.wanted))
                .bind(head.first_occurred_at)
                .bind(head.last_occurred_at)
                .fetch(&mut *connection);
            let (mut read, mut bytes, mut gap) = (0, 0, false);
            while let Some(row) = rows.try_next().await? {
                let event = event_from_row(&row)?;
                if event.version != reading.range.next() {
                    gap = true;
                    break;
                }
                read += 1;
                bytes += event.payload_bytes();
                self.saw_position(Some(event.global_position));
                if reading.hand_over(&event, &mut take) {
                    break;
                }
            }
            let read_whole = !gap && !reading.broken_off && matches!(rows.try_next().await, Ok(None));
            drop(rows);
            if read > 0 {
                pace.learn(read, bytes);
                if read_whole {
                    connection.hand_on();
                }
                continue;
            }
            // The next version is not in the database.
            let catalogue = self.still_known(&mut connection, &known).await?;
            drop(connection);
            self.read_archived_stream(&catalogue, stream, head, &mut reading, &mut take).await?;
            if reading.range == before && Arc::ptr_eq(&catalogue, &known) {
                return Err(sqlx::Error::RowNotFound.into());
            }
            known = catalogue;
        }
        Ok(reading.range)
    }

    /// The version that a stream had at a time; `None` if it had no event yet.
    pub async fn version_at(
        &self,
        stream: &StreamId,
        head: &StreamHead,
        time: DateTime<Utc>,
    ) -> Result<Option<Version>, StoreError> {
        let mut known = self.catalogue();
        loop {
            let mut connection = self.acquire().await?;
            let here: Option<Version> = sqlx::query_scalar(VERSION_AT)
                .bind(stream.aggregate_type())
                .bind(stream.aggregate_id())
                .bind(time)
                .bind(head.first_occurred_at)
                .fetch_optional(&mut *connection)
                .await?;
            let catalogue = self.still_known(&mut connection, &known).await?;
            drop(connection);
            if Arc::ptr_eq(&catalogue, &known) {
                return Ok(here.max(self.archived_version_at(&catalogue, stream, head, time).await?));
            }
            known = catalogue;
        }
    }

    /// Hands the event with this id to `take`; `None` if no event has it.
    pub async fn read_event<T>(
        &self,
        event_id: Uuid,
        take: impl FnOnce(&StoredEvent<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let location: Option<(Position, DateTime<Utc>)> =
            sqlx::query_as(EVENT_LOCATION).bind(event_id).fetch_optional(&mut *self.acquire().await?).await?;
        let Some((position, occurred_at)) = location else { return Ok(None) };
        let mut known = self.catalogue();
        loop {
            let mut connection = self.acquire().await?;
            let row = sqlx::query(EVENTS_AT)
                .bind([position])
                .bind([occurred_at])
                .bind(occurred_at)
                .bind(occurred_at)
                .fetch_optional(&mut *connection)
                .await?;
            if let Some(row) = row {
                let event = event_from_row(&row)?;
                self.saw_position(Some(event.global_position));
                return Ok(Some(take(&event)));
            }
            let catalogue = self.still_known(&mut connection, &known).await?;
            drop(connection);
            if let Some((group, at)) = self.find_archived_event(&catalogue, position, occurred_at).await? {
                return Ok(Some(take(&archived::event(&group, at)?)));
            }
            if Arc::ptr_eq(&catalogue, &known) {
                return Err(sqlx::Error::RowNotFound.into());
            }
            known = catalogue;
        }
    }

    /// The streams of a type, in byte order of their ids, after `after`, at most `limit`.
    pub async fn list_streams(
        &self,
        aggregate_type: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<ListedStream>, StoreError> {
        let mut connection = self.acquire().await?;
        let rows: Vec<(String, Version, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(STREAMS_OF_TYPE)
            .bind(aggregate_type)
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(self.catalogue().open_from)
            .fetch_all(&mut *connection)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(aggregate_id, version, first_occurred_at, last_occurred_at)| ListedStream {
                aggregate_id,
                head: StreamHead { version, first_occurred_at, last_occurred_at },
            })
            .collect())
    }
}
