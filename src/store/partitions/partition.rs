//! A partition of `events`, as the catalogue describes it.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::archive::manifest::PartitionFacts;
use crate::archive::partition::ArchivedPartition;
use crate::domain::event::Position;
use crate::store::connection::session::Session;

const PARTITIONS: &str = include_str!("../sql/partitions.sql");

/// A partition of `events`, as the catalogue describes it.
#[derive(Debug, Clone)]
pub struct Partition {
    /// The name of its table.
    pub name: String,
    pub starts_at: DateTime<Utc>,
    pub ends_at: DateTime<Utc>,
    /// The positions, the number of events and the times are set when the partition is sealed, if it has events.
    pub first_position: Option<Position>,
    pub last_position: Option<Position>,
    pub events: Option<i64>,
    pub first_occurred_at: Option<DateTime<Utc>>,
    pub last_occurred_at: Option<DateTime<Utc>>,
    pub sealed_at: Option<DateTime<Utc>>,
    /// Its folder in the archive, set when archiving begins.
    pub archived_to: Option<String>,
    /// When its files in the archive were complete. From then on, readers use the archive.
    pub archived_at: Option<DateTime<Utc>>,
    /// The SHA-256 of its manifest.
    pub archive_sha256: Option<String>,
    /// When it was restored from the archive.
    pub restored_at: Option<DateTime<Utc>>,
    /// Its table exists.
    pub(in crate::store) has_table: bool,
    /// Its table is a partition of `events`.
    pub(super) is_attached: bool,
    /// A detach was interrupted.
    pub(super) detach_pending: bool,
}

impl Partition {
    /// Reads the catalogue, oldest partition first.
    pub(in crate::store) async fn read_all(connection: &mut Session) -> Result<Vec<Self>, sqlx::Error> {
        sqlx::query(PARTITIONS).fetch_all(connection).await?.iter().map(Self::from_row).collect()
    }

    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            name: row.try_get("name")?,
            starts_at: row.try_get("starts_at")?,
            ends_at: row.try_get("ends_at")?,
            first_position: row.try_get("first_position")?,
            last_position: row.try_get("last_position")?,
            events: row.try_get("events")?,
            first_occurred_at: row.try_get("first_occurred_at")?,
            last_occurred_at: row.try_get("last_occurred_at")?,
            sealed_at: row.try_get("sealed_at")?,
            archived_to: row.try_get("archived_to")?,
            archived_at: row.try_get("archived_at")?,
            archive_sha256: row.try_get("archive_sha256")?,
            restored_at: row.try_get("restored_at")?,
            has_table: row.try_get("has_table")?,
            is_attached: row.try_get("is_attached")?,
            detach_pending: row.try_get("detach_pending")?,
        })
    }

    /// Returns the facts for its manifest; `None` if it is not sealed, or has no events.
    pub(in crate::store) fn facts(&self) -> Option<PartitionFacts> {
        Some(PartitionFacts {
            name: self.name.clone(),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            events: u64::try_from(self.events?).ok().filter(|events| *events > 0)?,
            first_position: self.first_position?,
            last_position: self.last_position?,
            first_occurred_at: self.first_occurred_at?,
            last_occurred_at: self.last_occurred_at?,
        })
    }

    /// Returns its place in the archive, if readers use the archive.
    pub(in crate::store) fn archived(&self) -> Option<ArchivedPartition> {
        self.archived_at?;
        let (folder, manifest_sha256) = (self.archived_to.clone()?, self.archive_sha256.clone()?);
        Some(ArchivedPartition { name: self.name.clone(), folder, manifest_sha256 })
    }
}
