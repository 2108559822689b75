//! Snapshots, and loads: an aggregate as a snapshot and the events after it, in one statement.
//!
//! A snapshot that does not fit is passed over, as if it were not there: a load returns the same with it and without it.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::document::{Document, document};
use super::error::StoreError;
use super::read::{Direction, Pace, StreamHead, VersionRange};
use super::{Store, StoredEvent, event_from_row, missing};
use crate::domain::name::StreamId;
use crate::domain::version::Version;

/// Events of a load's first statement: what follows a snapshot, in most cases all of it.
const FIRST_EVENTS: i64 = 128;

const LOAD_AGGREGATE: &str = include_str!("sql/load_aggregate.sql");
const PUT_SNAPSHOT: &str = include_str!("sql/put_snapshot.sql");
const SNAPSHOT: &str = include_str!("sql/snapshot.sql");
const DELETE_SNAPSHOT: &str = include_str!("sql/delete_snapshot.sql");
const EVENT_TIME: &str = include_str!("sql/event_time.sql");

/// What an aggregate was at a version; the state as the JSON text that PostgreSQL printed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: Version,
    pub revision: Option<String>,
    pub state: String,
    pub created_at: DateTime<Utc>,
}

/// Which snapshot a load may use.
#[derive(Debug, Clone, Copy)]
pub enum SnapshotUse<'r> {
    None,
    Any,
    Revision(&'r str),
}

/// What a load begins with.
#[derive(Debug, Clone)]
pub struct LoadHead {
    pub stream: StreamHead,
    pub snapshot: Option<Snapshot>,
    /// A snapshot is stored, and it does not fit.
    pub misfit: bool,
}

/// A load on its way, row by row.
pub enum LoadRow<'r> {
    Head(&'r LoadHead),
    Event(&'r StoredEvent<'r>),
}

/// A snapshot to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewSnapshot<'s> {
    pub version: Version,
    pub state: &'s str,
    pub revision: Option<&'s str>,
    /// When the event occurred that it stands at.
    pub occurred_at: DateTime<Utc>,
    /// The reducer that made it, which must still be the type's; `None`: a client made it, and there must be none.
    pub reducer: Option<i64>,
}

/// A snapshot was stored.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    pub created: bool,
    pub created_at: DateTime<Utc>,
}

impl Store {
    /// Hands the head of an aggregate to `take`, and then the events after its snapshot up to `to`, oldest first, until it
    /// breaks off or enough for one statement was read. Returns what is left to read; `None` if there is no such stream.
    pub async fn load_aggregate(
        &self,
        stream: &StreamId,
        may_use: SnapshotUse<'_>,
        to: Version,
        mut take: impl FnMut(LoadRow<'_>) -> ControlFlow<()>,
    ) -> Result<Option<(LoadHead, VersionRange)>, StoreError> {
        let (use_snapshot, revision) = match may_use {
            SnapshotUse::None => (false, None),
            SnapshotUse::Any => (true, None),
            SnapshotUse::Revision(revision) => (true, Some(revision)),
        };
        let mut connection = self.acquire().await?;
        let mut rows = sqlx::query(LOAD_AGGREGATE)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(self.catalogue().open_from)
            .bind(use_snapshot)
            .bind(revision)
            .bind(to)
            .bind(FIRST_EVENTS)
            .fetch(&mut *connection);
        let Some(first) = rows.try_next().await? else { return Ok(None) };
        let head = LoadHead::from_row(&first)?;
        let from = head.snapshot.as_ref().map_or(0, |snapshot| snapshot.version) + 1;
        let mut left = VersionRange { from, to: to.min(head.stream.version), direction: Direction::Forward };
        if take(LoadRow::Head(&head)).is_break() {
            return Ok(Some((head, left)));
        }
        while let Some(row) = rows.try_next().await? {
            let event = event_from_row(&row)?;
            if event.version != left.from {
                // It lies in the archive, or is missing: whoever reads what is left will see.
                return Ok(Some((head, left)));
            }
            self.saw_position(Some(event.global_position));
            left = left.after(event.version);
            if take(LoadRow::Event(&event)).is_break() {
                return Ok(Some((head, left)));
            }
        }
        drop(rows);
        connection.hand_on();
        Ok(Some((head, left)))
    }

    /// When an event of a stream occurred.
    pub async fn event_time(
        &self,
        stream: &StreamId,
        head: &StreamHead,
        version: Version,
    ) -> Result<DateTime<Utc>, StoreError> {
        let found = sqlx::query_scalar(EVENT_TIME)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(version)
            .bind(head.first_occurred_at)
            .bind(head.last_occurred_at)
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        if let Some(time) = found {
            return Ok(time);
        }
        let only = VersionRange { from: version, to: version, direction: Direction::Forward };
        let mut time = None;
        let take = |event: &StoredEvent<'_>| {
            time = Some(event.occurred_at);
            ControlFlow::Break(())
        };
        self.read_stream(stream, head, only, 1, &mut Pace::default(), take).await?;
        Ok(time.ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Stores a snapshot; `None` if a later one of the same revision is stored, or the reducer is another one by now.
    pub async fn put_snapshot(&self, stream: &StreamId, new: NewSnapshot<'_>) -> Result<Option<Stored>, StoreError> {
        let row: Option<(bool, DateTime<Utc>)> = sqlx::query_as(PUT_SNAPSHOT)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(new.version)
            .bind(Document(new.state))
            .bind(new.revision)
            .bind(new.occurred_at)
            .bind(new.reducer)
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        Ok(row.map(|(created, created_at)| Stored { created, created_at }))
    }

    /// The snapshot that is stored, whether it fits or not.
    pub async fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        let row = sqlx::query(SNAPSHOT)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        Ok(row.map(|row| Snapshot::from_row(&row)).transpose()?)
    }

    /// Forgets a snapshot; whether there was one.
    pub async fn delete_snapshot(&self, stream: &StreamId) -> Result<bool, StoreError> {
        let deleted = sqlx::query(DELETE_SNAPSHOT)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .execute(&mut *self.acquire().await?)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }
}

impl Snapshot {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: row.try_get("snapshot_version")?,
            revision: row.try_get("snapshot_revision")?,
            state: document(row, "snapshot_state")?.ok_or_else(missing)?.to_owned(),
            created_at: row.try_get("snapshot_created_at")?,
        })
    }
}

impl LoadHead {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let stream = StreamHead {
            version: row.try_get("stream_version")?,
            first_occurred_at: row.try_get("first_occurred_at")?,
            last_occurred_at: row.try_get("last_occurred_at")?,
        };
        let version: Option<Version> = row.try_get("snapshot_version")?;
        let snapshot = version.map(|_| Snapshot::from_row(row));
        Ok(Self { stream, snapshot: snapshot.transpose()?, misfit: row.try_get("snapshot_misfit")? })
    }
}
