//! The catalogue of partitions, as a process has cached it.
//!
//! Within an epoch, a cached catalogue may be outdated. That is harmless for open partitions: a partition that was
//! sealed in the meantime is read as an open one. Archiving and restoring change `LogHead::catalogue_changes`, and an
//! erasure `LogHead::last_erasure`. Readers compare these numbers whenever an event could be missing because its partition
//! was archived, and before they read an archived partition.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::archive::partition::ArchivedPartition;
use crate::domain::cursor::Epoch;
use crate::domain::erasure::ErasureNo;
use crate::domain::event::{BEGINNING_OF_TIME, Position};
use crate::store::connection::session::Session;
use crate::store::erasures::masks::Masks;
use crate::store::log::head::{LogHead, read_log_head};

const OPEN_FROM: &str = include_str!("../sql/open_from.sql");
const SEALED_PARTITIONS: &str = include_str!("../sql/sealed_partitions.sql");

/// A sealed partition that has events. Its events never change.
#[derive(Debug, Clone)]
pub(in crate::store) struct SealedPartition {
    pub(in crate::store) starts_at: DateTime<Utc>,
    pub(in crate::store) ends_at: DateTime<Utc>,
    pub(in crate::store) last_position: Position,
    /// Its place in the archive; `None` if its events are in the database.
    pub(in crate::store) archived: Option<Arc<ArchivedPartition>>,
}

/// The cached catalogue.
#[derive(Debug, Clone)]
pub(in crate::store) struct Catalogue {
    /// 0 before the catalogue was read.
    epoch: Epoch,
    /// The start of the oldest partition that is not sealed.
    pub(in crate::store) open_from: DateTime<Utc>,
    /// Oldest first.
    sealed: Vec<SealedPartition>,
    /// `LogHead::catalogue_changes` and `LogHead::last_erasure` at a moment before the catalogue was read.
    changes: (i64, ErasureNo),
    /// What readers of archived partitions must not return.
    pub(in crate::store) masks: Arc<Masks>,
}

/// The part of the log that has the last event before a time.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum PlaceBefore<'c> {
    /// That event has this position; 0 if there is none.
    At(Position),
    /// It is after the position, in this partition, or it has the position.
    Sealed(Position, &'c SealedPartition),
    /// It is after the position, in the open partitions, or it has the position.
    Open(Position),
}

impl SealedPartition {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let folder: Option<String> = row.try_get("archived_to")?;
        let archived = match folder {
            Some(folder) => {
                let (name, manifest_sha256) = (row.try_get("name")?, row.try_get("archive_sha256")?);
                Some(Arc::new(ArchivedPartition { name, folder, manifest_sha256 }))
            }
            None => None,
        };
        Ok(Self {
            starts_at: row.try_get("starts_at")?,
            ends_at: row.try_get("ends_at")?,
            last_position: row.try_get("last_position")?,
            archived,
        })
    }
}

impl Catalogue {
    /// Returns a catalogue without sealed partitions, in which every partition counts as open.
    pub(in crate::store) fn unread() -> Self {
        let masks = Arc::new(Masks::default());
        Self { epoch: 0, open_from: BEGINNING_OF_TIME, sealed: Vec::new(), changes: (0, 0), masks }
    }

    /// Reads the catalogue.
    ///
    /// While the log is empty, an import may still add events to older partitions, so no partition counts as sealed
    /// then. That is why the head is read before the partitions. The head is read again at the end: the folders of the
    /// archive and the masks must be of the same time.
    pub(in crate::store) async fn read(connection: &mut Session) -> Result<Self, sqlx::Error> {
        loop {
            let head = read_log_head(connection, BEGINNING_OF_TIME).await?;
            let changes = (head.catalogue_changes, head.last_erasure);
            if head.global_position == 0 {
                return Ok(Self { epoch: head.epoch, changes, ..Self::unread() });
            }
            let open_from = read_open_from(connection).await?.unwrap_or(BEGINNING_OF_TIME);
            let rows = sqlx::query(SEALED_PARTITIONS).fetch_all(&mut *connection).await?;
            let sealed: Vec<_> = rows.iter().map(SealedPartition::from_row).collect::<Result<_, _>>()?;
            // A partition that was sealed between the two statements still counts as open.
            let sealed = sealed.into_iter().filter(|partition| partition.ends_at <= open_from).collect();
            let masks = if head.last_erasure == 0 { Masks::default() } else { Masks::read(connection).await? };
            let read = Self { epoch: head.epoch, open_from, sealed, changes, masks: Arc::new(masks) };
            if head.last_erasure == 0 || read.is_unchanged(&read_log_head(connection, open_from).await?) {
                return Ok(read);
            }
        }
    }

    /// Returns whether no partition was sealed, archived or restored since the catalogue was read: `changes` is the newest
    /// `LogHead::catalogue_changes`.
    pub(in crate::store) fn is_current(&self, changes: i64) -> bool {
        self.changes.0 == changes
    }

    /// Returns whether this is the catalogue of the log with this head: the epoch is the same, the log ends after the
    /// sealed partitions, and no partition has changed.
    pub(in crate::store) fn matches(&self, head: &LogHead) -> bool {
        let last_sealed = self.sealed.last().map_or(0, |partition| partition.last_position);
        self.epoch == head.epoch && head.global_position >= last_sealed && self.is_unchanged(head)
    }

    /// Returns whether no partition was sealed, archived or restored, and nothing was erased, since the catalogue was
    /// read.
    pub(in crate::store) fn is_unchanged(&self, head: &LogHead) -> bool {
        self.changes == (head.catalogue_changes, head.last_erasure)
    }

    /// Returns the sealed partition that contains the event after `position`; `None` if an open one does.
    pub(in crate::store) fn sealed_partition_after(&self, position: Position) -> Option<&SealedPartition> {
        self.sealed.get(self.sealed.partition_point(|partition| partition.last_position <= position))
    }

    /// Returns the last position of the sealed partitions before the one that contains the event after `position`; 0 if
    /// there is none.
    pub(in crate::store) fn sealed_end_before(&self, position: Position) -> Position {
        let before = self.sealed.partition_point(|partition| partition.last_position <= position);
        self.sealed[..before].last().map_or(0, |partition| partition.last_position)
    }

    /// Returns the place of the last event before a time.
    pub(in crate::store) fn place_before(&self, time: DateTime<Utc>) -> PlaceBefore<'_> {
        let begun = self.sealed.partition_point(|partition| partition.starts_at < time);
        let end_of = |partition: Option<&SealedPartition>| partition.map_or(0, |partition| partition.last_position);
        if time > self.open_from {
            return PlaceBefore::Open(end_of(self.sealed.last()));
        }
        match self.sealed[..begun].split_last() {
            None => PlaceBefore::At(0),
            Some((last, _)) if last.ends_at <= time => PlaceBefore::At(last.last_position),
            Some((last, before)) => PlaceBefore::Sealed(end_of(before.last()), last),
        }
    }

    /// Returns whether a partition is archived in the folder that was read.
    pub(in crate::store) fn has_archived(&self, partition: &ArchivedPartition) -> bool {
        self.sealed.iter().any(|sealed| sealed.archived.as_deref() == Some(partition))
    }

    /// Returns the archived partitions between two times, both included, oldest first.
    pub(in crate::store) fn archived_between(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Vec<Arc<ArchivedPartition>> {
        let partitions = self.sealed.iter().filter(|partition| partition.ends_at > from && partition.starts_at <= to);
        partitions.filter_map(|partition| partition.archived.clone()).collect()
    }
}

/// Reads the start of the oldest partition that is not sealed; `None` if no partition exists.
pub(in crate::store) async fn read_open_from(connection: &mut Session) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar(OPEN_FROM).fetch_optional(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(number: u32) -> DateTime<Utc> {
        format!("2025-{number:02}-01T00:00:00Z").parse().expect("a time")
    }

    fn catalogue() -> Catalogue {
        let archived = |number: u32, folder: &str| {
            let (name, manifest_sha256) = (format!("events_2025_{number:02}"), "0".repeat(64));
            Arc::new(ArchivedPartition { name, folder: folder.to_owned(), manifest_sha256 })
        };
        let partition = |number: u32, last_position, folder: Option<&str>| SealedPartition {
            starts_at: month(number),
            ends_at: month(number + 1),
            last_position,
            archived: folder.map(|folder| archived(number, folder)),
        };
        let sealed = vec![partition(1, 10, Some("a")), partition(2, 20, Some("b")), partition(3, 30, None)];
        Catalogue { epoch: 1, open_from: month(4), sealed, changes: (5, 2), masks: Arc::new(Masks::default()) }
    }

    fn head(epoch: Epoch, global_position: Position, catalogue_changes: i64) -> LogHead {
        LogHead { epoch, global_position, occurred_at: None, catalogue_changes, last_erasure: 2 }
    }

    #[test]
    fn a_position_selects_the_partition_of_the_event_after_it() {
        let catalogue = catalogue();
        let start = |position| catalogue.sealed_partition_after(position).map(|partition| partition.starts_at);
        assert_eq!(start(0), Some(month(1)));
        assert_eq!(start(9), Some(month(1)));
        assert_eq!(start(10), Some(month(2)));
        assert_eq!(start(29), Some(month(3)));
        assert_eq!(start(30), None);
        let ends = [0, 9, 10, 29, 30, 31].map(|position| catalogue.sealed_end_before(position));
        assert_eq!(ends, [0, 0, 10, 20, 30, 30]);
    }

    #[test]
    fn a_time_selects_the_place_of_the_last_event_before_it() {
        let catalogue = catalogue();
        let place = |time: &str| match catalogue.place_before(time.parse().expect("a time")) {
            PlaceBefore::At(position) => format!("at {position}"),
            PlaceBefore::Sealed(after, partition) => format!("after {after} up to {}", partition.last_position),
            PlaceBefore::Open(after) => format!("after {after}"),
        };
        for (time, expected) in [
            ("2024-12-31T00:00:00Z", "at 0"),
            ("2025-01-01T00:00:00Z", "at 0"),
            ("2025-01-01T00:00:00.000001Z", "after 0 up to 10"),
            ("2025-02-01T00:00:00Z", "at 10"),
            ("2025-02-15T00:00:00Z", "after 10 up to 20"),
            ("2025-03-31T23:59:59.999999Z", "after 20 up to 30"),
            ("2025-04-01T00:00:00Z", "at 30"),
            ("2025-04-01T00:00:00.000001Z", "after 30"),
            ("2030-01-01T00:00:00Z", "after 30"),
        ] {
            assert_eq!(place(time), expected, "{time}");
        }
        let unread = Catalogue::unread();
        assert!(matches!(unread.place_before(month(1)), PlaceBefore::Open(0)));
    }

    #[test]
    fn times_select_the_archived_partitions() {
        let catalogue = catalogue();
        let folders = |from, to| {
            catalogue.archived_between(from, to).iter().map(|partition| partition.folder.clone()).collect::<String>()
        };
        assert_eq!(folders(month(1), month(4)), "ab");
        assert_eq!(folders(month(2), month(2)), "b");
        assert_eq!(folders(month(3), month(4)), "");
    }

    #[test]
    fn a_catalogue_matches_the_head_of_its_own_log_only() {
        let catalogue = catalogue();
        assert!(catalogue.matches(&head(1, 30, 5)));
        assert!(catalogue.matches(&head(1, 31, 5)));
        assert!(!catalogue.matches(&head(2, 31, 5)));
        assert!(!catalogue.matches(&head(1, 29, 5)));
        assert!(!catalogue.matches(&head(1, 31, 6)));
        assert!(!catalogue.matches(&LogHead { last_erasure: 3, ..head(1, 31, 5) }));
        assert!(!Catalogue::unread().matches(&head(1, 0, 0)));
    }
}
