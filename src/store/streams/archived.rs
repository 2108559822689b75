//! Reads of archived events of a stream, from files.
//!
//! If a reader does not find the next version in the database, it reads that version here. The catalogue names the
//! place of each archived partition. Reads of files are slower, and return the same bytes.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::archive::error::ArchiveError;
use crate::archive::group::EventGroup;
use crate::archive::manifest::Order;
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::partitions::catalogue::Catalogue;
use crate::store::reader::Reader;
use crate::store::row::Deliver;
use crate::store::streams::head::StreamHead;
use crate::store::streams::range::{Direction, StreamReadState};

/// The archived part of a stream.
pub(super) struct ArchivedStream<'a> {
    pub(super) reader: &'a Reader,
    pub(super) catalogue: &'a Catalogue,
    pub(super) stream: &'a StreamId,
    pub(super) head: &'a StreamHead,
}

impl ArchivedStream<'_> {
    /// Delivers the next events, until a version is not archived or the read is done.
    pub(super) async fn read(&self, state: &mut StreamReadState, deliver: Deliver<'_>) -> Result<(), StoreError> {
        let direction = state.range.direction;
        let mut partitions = self.catalogue.archived_between(self.head.first_occurred_at, self.head.last_occurred_at);
        if direction == Direction::Backward {
            partitions.reverse();
        }
        for partition in partitions {
            let archive = self.reader.archive()?;
            let failed = |error: ArchiveError| self.reader.archive_error(&partition, &error);
            let mut groups = archive.groups_of(&partition, self.stream).await.map_err(failed)?;
            if direction == Direction::Backward {
                groups.reverse();
            }
            for n in groups {
                let group = self.reader.archived_group(&partition, Order::Aggregate, n).await.map_err(failed)?;
                let rows = group.rows_of(self.stream);
                for offset in 0..rows.len() {
                    let at = match direction {
                        Direction::Forward => rows.start + offset,
                        Direction::Backward => rows.end - 1 - offset,
                    };
                    let event = group.event(at).map_err(failed)?;
                    if event.version == state.range.next() && state.deliver(&event, deliver) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the last archived version that had occurred at a time; `None` if there is none.
    pub(super) async fn version_at(&self, time: DateTime<Utc>) -> Result<Option<Version>, StoreError> {
        let until = time.min(self.head.last_occurred_at);
        if until < self.head.first_occurred_at {
            return Ok(None);
        }
        let mut last = None;
        for partition in self.catalogue.archived_between(self.head.first_occurred_at, until).into_iter().rev() {
            let archive = self.reader.archive()?;
            let failed = |error: ArchiveError| self.reader.archive_error(&partition, &error);
            for n in archive.groups_of(&partition, self.stream).await.map_err(failed)? {
                let group = archive.group(&partition, Order::Aggregate, n).await.map_err(failed)?;
                for at in group.rows_of(self.stream) {
                    let event = group.event(at).map_err(failed)?;
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
}

impl Reader {
    /// Finds the archived event at a position. Returns its row group, and its index in the group.
    pub(super) async fn find_archived_event(
        &self,
        catalogue: &Catalogue,
        position: Position,
        occurred_at: DateTime<Utc>,
    ) -> Result<Option<(Arc<EventGroup>, usize)>, StoreError> {
        for partition in catalogue.archived_between(occurred_at, occurred_at) {
            let archive = self.archive()?;
            let failed = |error: ArchiveError| self.archive_error(&partition, &error);
            for n in archive.groups_between(&partition, position - 1, position).await.map_err(failed)? {
                let group = self.archived_group(&partition, Order::Position, n).await.map_err(failed)?;
                let at = group.first_after(position - 1);
                if at < group.len() && group.event(at).map_err(failed)?.global_position == position {
                    return Ok(Some((group, at)));
                }
            }
        }
        Ok(None)
    }
}
