//! A month as the catalogue has it.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::ArchivingError;
use crate::archive::MonthFacts;
use crate::domain::event::Position;

const MONTHS: &str = include_str!("../sql/months.sql");

/// A month as the catalogue has it.
#[derive(Debug, Clone)]
pub struct Month {
    /// Name of its partition.
    pub name: String,
    pub starts_at: DateTime<Utc>,
    pub ends_at: DateTime<Utc>,
    /// Positions, count and times are known once it is rolled up, if it has events.
    pub first_position: Option<Position>,
    pub last_position: Option<Position>,
    pub events: Option<i64>,
    pub first_occurred_at: Option<DateTime<Utc>>,
    pub last_occurred_at: Option<DateTime<Utc>>,
    pub rolled_up_at: Option<DateTime<Utc>>,
    /// Its folder in the archive, from the beginning of archiving on.
    pub archived_to: Option<String>,
    /// It is complete there.
    pub archived_at: Option<DateTime<Utc>>,
    /// SHA-256 of its manifest.
    pub archive_sha256: Option<String>,
    /// Somebody has brought it back from the archive.
    pub restored_at: Option<DateTime<Utc>>,
    pub(super) is_here: bool,
    pub(super) is_attached: bool,
    pub(super) detach_pending: bool,
}

impl Month {
    /// The catalogue, oldest first.
    pub(in crate::store) async fn all(connection: &mut PgConnection) -> Result<Vec<Self>, sqlx::Error> {
        sqlx::query(MONTHS).fetch_all(connection).await?.iter().map(Self::from_row).collect()
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
            rolled_up_at: row.try_get("rolled_up_at")?,
            archived_to: row.try_get("archived_to")?,
            archived_at: row.try_get("archived_at")?,
            archive_sha256: row.try_get("archive_sha256")?,
            restored_at: row.try_get("restored_at")?,
            is_here: row.try_get("is_here")?,
            is_attached: row.try_get("is_attached")?,
            detach_pending: row.try_get("detach_pending")?,
        })
    }

    /// What its manifest begins with; `None` if it is not over, or has no events.
    pub(in crate::store) fn facts(&self) -> Option<MonthFacts> {
        Some(MonthFacts {
            month: self.name.clone(),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            events: u64::try_from(self.events?).ok().filter(|events| *events > 0)?,
            first_position: self.first_position?,
            last_position: self.last_position?,
            first_occurred_at: self.first_occurred_at?,
            last_occurred_at: self.last_occurred_at?,
        })
    }

    /// Its folder in the archive, once it is read there.
    pub(in crate::store) fn archived_folder(&self) -> Option<&str> {
        self.archived_at.and(self.archived_to.as_deref())
    }

    pub(super) fn differs(&self, what: impl Into<String>) -> ArchivingError {
        ArchivingError::Differs { month: self.name.clone(), what: what.into() }
    }
}
