//! Loads: an aggregate as a snapshot and the events after it, in one statement.
//!
//! A snapshot that is not usable is ignored: a load returns the same aggregate with and without a snapshot.

use std::ops::ControlFlow;

use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::event::StoredEvent;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::reader::Reader;
use crate::store::row::event_from_row;
use crate::store::streams::head::StreamHead;
use crate::store::streams::range::VersionRange;
use crate::store::streams::snapshots::Snapshot;

/// The largest number of events in the statement of a load. In most cases these are all events after the snapshot.
const FIRST_EVENTS: i64 = 128;

const LOAD_AGGREGATE: &str = include_str!("../sql/load_aggregate.sql");

/// Which snapshot a load may use.
#[derive(Debug, Clone, Copy)]
pub enum SnapshotUse<'r> {
    /// None: the load returns all events.
    None,
    /// Any usable snapshot.
    Any,
    /// A usable snapshot of this revision.
    Revision(&'r str),
}

/// The first row of a load.
#[derive(Debug, Clone)]
pub struct LoadHead {
    pub stream: StreamHead,
    pub snapshot: Option<Snapshot>,
    /// A snapshot is stored that is not usable.
    pub unusable_snapshot: bool,
}

/// A row of a load: the head first, then events.
pub enum LoadRow<'r> {
    Head(&'r LoadHead),
    Event(&'r StoredEvent<'r>),
}

impl LoadHead {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let stream = StreamHead {
            version: row.try_get("stream_version")?,
            first_occurred_at: row.try_get("first_occurred_at")?,
            last_occurred_at: row.try_get("last_occurred_at")?,
        };
        let version: Option<Version> = row.try_get("snapshot_version")?;
        let snapshot = version.map(|_| Snapshot::from_row(row)).transpose()?;
        Ok(Self { stream, snapshot, unusable_snapshot: row.try_get("unusable_snapshot")? })
    }
}

impl Reader {
    /// Delivers the head of an aggregate, and then the events after its snapshot up to version `to`, oldest first,
    /// until `deliver` stops the load or the rows of one statement are read. Returns the head and the versions that are
    /// left to read; `None` if the stream does not exist.
    pub async fn load_aggregate(
        &self,
        stream: &StreamId,
        snapshot_use: SnapshotUse<'_>,
        to: Version,
        mut deliver: impl FnMut(LoadRow<'_>) -> ControlFlow<()>,
    ) -> Result<Option<(LoadHead, VersionRange)>, StoreError> {
        let (use_snapshot, revision) = match snapshot_use {
            SnapshotUse::None => (false, None),
            SnapshotUse::Any => (true, None),
            SnapshotUse::Revision(revision) => (true, Some(revision)),
        };
        let mut connection = self.acquire().await?;
        let mut rows = sqlx::query(LOAD_AGGREGATE)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(self.open_from())
            .bind(use_snapshot)
            .bind(revision)
            .bind(to)
            .bind(FIRST_EVENTS)
            .fetch(&mut *connection);
        let Some(first) = rows.try_next().await? else { return Ok(None) };
        let head = LoadHead::from_row(&first)?;
        let from = head.snapshot.as_ref().map_or(0, |snapshot| snapshot.version) + 1;
        let mut left = VersionRange::forward(from, to.min(head.stream.version));
        if deliver(LoadRow::Head(&head)).is_break() {
            return Ok(Some((head, left)));
        }
        while let Some(row) = rows.try_next().await? {
            let event = event_from_row(&row)?;
            if event.version != left.from {
                // The next event is archived or missing. The read of the remaining versions determines which.
                return Ok(Some((head, left)));
            }
            self.raise_high_water_mark(event.global_position);
            left = left.after(event.version);
            if deliver(LoadRow::Event(&event)).is_break() {
                return Ok(Some((head, left)));
            }
        }
        drop(rows);
        connection.hand_off();
        Ok(Some((head, left)))
    }
}
