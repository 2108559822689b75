//! Reads of months that are archived: the same events, from files.
//!
//! Whoever reads the database and finds that what comes next is not there comes here; the catalogue, read in that moment,
//! says which month is in which folder. Slower, and equal to the byte.

use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::error::StoreError;
use super::log::{LogScan, Part, Step};
use super::months::Catalogue;
use super::read::{Direction, StreamHead, StreamReading};
use super::{Store, StoredEvent};
use crate::archive::{Archive, ArchiveError, EventGroup, Order};
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::Version;

impl Store {
    /// Reads on in an archived month, until the step is over or the month ends.
    pub(super) async fn read_archived_part(
        &self,
        folder: &str,
        scan: &mut LogScan,
        part: &Part,
        step: &mut Step,
        take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let archive = self.archive()?;
        step.has_looked();
        if part.is_outside(scan.filter()) {
            scan.skip_to(part.to);
            return Ok(());
        }
        for n in archive.groups_between(folder, part.after, part.to).await? {
            let group = archive.group(folder, Order::Position, n).await?;
            for at in group.first_after(scan.after())..group.len() {
                let event = event(&group, at)?;
                if event.global_position > part.to {
                    break;
                }
                scan.saw(&event);
                if scan.filter().occurred_to.is_some_and(|to| event.occurred_at >= to) {
                    // Whatever follows is later still.
                    scan.skip_to(part.to);
                    return Ok(());
                }
                if !scan.filter().matches(&event.facts()) {
                    continue;
                }
                if step.hand_over(&event, take) {
                    return Ok(());
                }
            }
            if step.is_over() {
                return Ok(());
            }
        }
        if scan.after() == part.to {
            return Ok(());
        }
        let what = format!("{folder} has no event at position {}, where its month ends", part.to);
        Err(StoreError::ArchiveDamaged(what))
    }

    /// Reads on in the archived months of a stream, as long as they have the next version.
    pub(super) async fn read_archived_stream(
        &self,
        catalogue: &Catalogue,
        stream: &StreamId,
        head: &StreamHead,
        reading: &mut StreamReading,
        take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut months = catalogue.archived_between(head.first_occurred_at, head.last_occurred_at);
        if reading.range.direction == Direction::Backward {
            months.reverse();
        }
        for folder in months {
            let archive = self.archive()?;
            let mut groups = archive.groups_of(&folder, stream).await?;
            if reading.range.direction == Direction::Backward {
                groups.reverse();
            }
            for n in groups {
                let group = archive.group(&folder, Order::Aggregate, n).await?;
                let rows = group.rows_of(stream);
                for offset in 0..rows.len() {
                    let at = match reading.range.direction {
                        Direction::Forward => rows.start + offset,
                        Direction::Backward => rows.end - 1 - offset,
                    };
                    let event = event(&group, at)?;
                    if event.version == reading.range.next() && reading.hand_over(&event, take) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Where the event at a position of an archived month is; `None` if no archived month has it.
    pub(super) async fn find_archived_event(
        &self,
        catalogue: &Catalogue,
        position: Position,
        occurred_at: DateTime<Utc>,
    ) -> Result<Option<(Arc<EventGroup>, usize)>, StoreError> {
        for folder in catalogue.archived_between(occurred_at, occurred_at) {
            let archive = self.archive()?;
            for n in archive.groups_between(&folder, position - 1, position).await? {
                let group = archive.group(&folder, Order::Position, n).await?;
                let at = group.first_after(position - 1);
                if at < group.len() && event(&group, at)?.global_position == position {
                    return Ok(Some((group, at)));
                }
            }
        }
        Ok(None)
    }

    /// The last version of a stream in archived months that had occurred at a time; `None` if they have none.
    pub(super) async fn archived_version_at(
        &self,
        catalogue: &Catalogue,
        stream: &StreamId,
        head: &StreamHead,
        time: DateTime<Utc>,
    ) -> Result<Option<Version>, StoreError> {
        let until = time.min(head.last_occurred_at);
        if until < head.first_occurred_at {
            return Ok(None);
        }
        let mut last = None;
        for folder in catalogue.archived_between(head.first_occurred_at, until).into_iter().rev() {
            let archive = self.archive()?;
            for n in archive.groups_of(&folder, stream).await? {
                let group = archive.group(&folder, Order::Aggregate, n).await?;
                for at in group.rows_of(stream) {
                    let event = event(&group, at)?;
                    if event.occurred_at <= time {
                        last = last.max(Some(event.version));
                    }
                }
            }
            if last.is_some() {
                break;
            }
        }
        Ok(last)
    }

    /// The archive, which has to be configured once a month lies there.
    pub(super) fn archive(&self) -> Result<&Arc<Archive>, StoreError> {
        let missing = || StoreError::ArchiveUnavailable("months are archived, and ARCHIVE_URL is not set".to_owned());
        self.archive.as_ref().ok_or_else(missing)
    }
}

pub(super) fn event(group: &EventGroup, at: usize) -> Result<StoredEvent<'_>, StoreError> {
    group.event(at).map_err(|error| StoreError::ArchiveDamaged(error.to_string()))
}

impl From<ArchiveError> for StoreError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Damaged { .. } => Self::ArchiveDamaged(error.to_string()),
            _ => Self::ArchiveUnavailable(error.to_string()),
        }
    }
}
