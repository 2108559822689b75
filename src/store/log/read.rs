//! Reads of the log in order, over all partitions: all events, or those that match a filter.
//!
//! A read proceeds segment by segment. The catalogue has the last position of each sealed partition, and the head
//! bounds the open partitions. So each statement names the partitions that it reads, and its cost does not depend on
//! their number.
//!
//! A filtered read finds the matching events in a window of positions, through the index that fits the filter best, and
//! delivers them if the statement shows that no partition has changed. A window that costs little and has few matches is
//! followed by a larger one, and one with more matches than a statement returns by a smaller one. A page ends when its
//! time is up, and returns the position up to which it has read, so no request waits for a scan of the whole log.
//!
//! Every page first reads the head, and then reads only up to it, on one connection. If the epoch is no longer that of
//! the cursor, or the cursor is beyond the head, the read checks on the same connection whether the cursor is still
//! valid. So a page either continues what was read before, or fails with [`StoreError::EpochChanged`],
//! [`StoreError::BeyondHead`] or [`StoreError::Behind`].
//!
//! The cached catalogue may be outdated. The read compares it with the database whenever an event could be missing
//! because its partition was archived.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::archive::partition::ArchivedPartition;
use crate::domain::cursor::Cursor;
use crate::domain::event::{Position, StoredEvent};
use crate::store::connection::session::Session;
use crate::store::error::{MissingEvent, StoreError};
use crate::store::log::head::LogHead;
use crate::store::log::readable::WantedTypes;
use crate::store::log::scan::{LogScan, LogSegment, PageBudget, PageContext, Scan};
use crate::store::log::segment::{Delivery, SegmentScan, scan_segment};
use crate::store::reader::{CatalogueCheck, Reader, ServerKind};
use crate::store::row::Deliver;

const APPEND_LOCK_HOLDER: &str = include_str!("../sql/append_lock_holder.sql");
/// The time for which a check of a cursor waits for the end of an append, and the pause between two looks.
const APPEND_MAX: Duration = Duration::from_millis(500);
const APPEND_PAUSE: Duration = Duration::from_millis(5);

/// Returns whether a cursor is of the current epoch, or of none, and beyond the head.
fn is_beyond(cursor: Cursor, head: &LogHead) -> bool {
    cursor.position > head.global_position && cursor.epoch.is_none_or(|epoch| epoch == head.epoch)
}

/// Returns the transaction that appends; `None` if there is none.
async fn append_lock_holder(connection: &mut Session) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(APPEND_LOCK_HOLDER).fetch_one(connection).await
}

/// The progress of a page in the database.
pub(super) enum ReadProgress {
    /// The page is complete.
    Complete,
    /// The next segment is in this archived partition.
    Archived(Arc<ArchivedPartition>, LogSegment),
}

impl Reader {
    /// Returns the head of the log.
    pub async fn log_head(&self) -> Result<LogHead, StoreError> {
        Ok(self.catalogue_and_head(&mut *self.acquire().await?).await?.1)
    }

    /// Returns the head of the log if a cursor is still valid.
    ///
    /// With synchronous replication, a standby can show events of a commit that still waits for another standby, and that
    /// the primary does not show yet. So the primary does not declare a cursor lost before the append in progress has
    /// ended. If it takes long, the error is [`StoreError::Behind`].
    pub async fn log_head_for(&self, cursor: Cursor) -> Result<LogHead, StoreError> {
        let mut connection = self.acquire().await?;
        let (checked, head) = self.head_and_check(&mut connection, cursor).await?;
        if checked.is_ok() || !is_beyond(cursor, &head) || self.server_kind == ServerKind::Replica {
            return checked.map(|()| head);
        }
        let (deadline, first) = (Instant::now() + APPEND_MAX, append_lock_holder(&mut connection).await?);
        loop {
            // The holder is read first. Without it, the head is then that of all appends that had begun.
            let holder = append_lock_holder(&mut connection).await?;
            let (checked, head) = self.head_and_check(&mut connection, cursor).await?;
            if checked.is_ok() || !is_beyond(cursor, &head) || holder.is_none() || holder != first {
                return checked.map(|()| head);
            }
            if Instant::now() > deadline {
                return Err(StoreError::Behind(head.global_position));
            }
            tokio::time::sleep(APPEND_PAUSE).await;
        }
    }

    async fn head_and_check(
        &self,
        connection: &mut Session,
        cursor: Cursor,
    ) -> Result<(Result<(), StoreError>, LogHead), StoreError> {
        let (_, head) = self.catalogue_and_head(connection).await?;
        Ok((self.check_cursor(connection, cursor, &head).await, head))
    }

    /// Reads one page: delivers events in order, at most `limit`, none beyond `to` or the head, until `deliver` stops
    /// the page, its time is up, or the end is reached. Returns the head up to which it could read.
    pub async fn read_log(
        &self,
        scan: &mut LogScan,
        to: Position,
        limit: usize,
        mut deliver: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<LogHead, StoreError> {
        let mut budget = scan.begin_page(limit);
        loop {
            let mut connection = self.acquire().await?;
            let (progress, head) = self.read_database(&mut connection, scan, to, &mut budget, &mut deliver).await?;
            // No connection is held while the archive is read.
            drop(connection);
            match progress {
                ReadProgress::Archived(partition, segment) => {
                    let read = self.read_archived_segment(&partition, &segment, scan, &mut budget, &mut deliver).await;
                    self.unless_moved(&partition, read).await?;
                }
                ReadProgress::Complete => return Ok(head),
            }
        }
    }

    /// Reads one page without a limit, up to the head, over a connection of the caller.
    pub(super) async fn read_log_over(
        &self,
        connection: &mut Session,
        scan: &mut LogScan,
        mut deliver: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<LogHead, StoreError> {
        let mut budget = scan.begin_page(usize::MAX);
        loop {
            match self.read_database(connection, scan, Position::MAX, &mut budget, &mut deliver).await? {
                (ReadProgress::Archived(partition, segment), _) => {
                    let read = self.read_archived_segment(&partition, &segment, scan, &mut budget, &mut deliver).await;
                    self.unless_moved(&partition, read).await?;
                }
                (ReadProgress::Complete, head) => return Ok(head),
            }
        }
    }

    /// Reads until the page is complete, or the next segment is archived.
    async fn read_database(
        &self,
        connection: &mut Session,
        scan: &mut LogScan,
        to: Position,
        budget: &mut PageBudget,
        deliver: Deliver<'_>,
    ) -> Result<(ReadProgress, LogHead), StoreError> {
        let (mut catalogue, head) = self.catalogue_and_head(connection).await?;
        self.check_cursor(connection, scan.cursor(), &head).await?;
        scan.epoch = Some(head.epoch);
        let Some(head_time) = head.occurred_at else { return Ok((ReadProgress::Complete, head)) };
        let end = to.min(head.global_position);
        let types = WantedTypes::find(connection, scan.filter()).await?;
        if types.is_none() && scan.after() < end {
            scan.skip_to(end);
        }
        let mut gap_is_allowed = false;
        while !budget.is_spent() && scan.after() < end {
            let segment = scan.next_segment(&catalogue, end, head_time);
            if let Some(partition) = segment.archived.clone() {
                return Ok((ReadProgress::Archived(partition, segment), head));
            }
            let wanted = scan_segment(connection, scan, segment, end).await?;
            // A partition that is archived meanwhile looks empty. A gap in the positions and a statement for matches
            // detect the change, and a search for a time does not.
            if matches!(wanted, SegmentScan::Nothing { .. })
                && let CatalogueCheck::Changed(changed) = self.check_catalogue(connection, &catalogue).await?
            {
                catalogue = changed;
                continue;
            }
            budget.mark_scanned();
            let page = PageContext { types: &types, catalogue: &catalogue, gap_is_allowed };
            match wanted.deliver(connection, scan, page, budget, deliver).await? {
                Delivery::Complete => gap_is_allowed = false,
                Delivery::Outdated => catalogue = self.reload_catalogue(connection).await?,
                Delivery::NoMatch(window) => match self.check_catalogue(connection, &catalogue).await? {
                    CatalogueCheck::Changed(changed) => catalogue = changed,
                    CatalogueCheck::Unchanged => scan.skip_window(window),
                },
                Delivery::FirstEventMissing => match self.check_catalogue(connection, &catalogue).await? {
                    CatalogueCheck::Changed(changed) => catalogue = changed,
                    CatalogueCheck::Unchanged if gap_is_allowed => {
                        return Err(self.explain_missing_event(connection, scan).await?);
                    }
                    // No partition was archived: an epoch may have begun after a gap.
                    CatalogueCheck::Unchanged => gap_is_allowed = true,
                },
            }
        }
        Ok((ReadProgress::Complete, head))
    }

    /// Returns why the next event is missing: the log was rewound in the meantime, or it is damaged.
    async fn explain_missing_event(&self, connection: &mut Session, scan: &LogScan) -> Result<StoreError, StoreError> {
        let (_, head) = self.catalogue_and_head(connection).await?;
        self.check_cursor(connection, scan.cursor(), &head).await?;
        Ok(StoreError::EventMissing(MissingEvent::AfterPosition(scan.after())))
    }
}
