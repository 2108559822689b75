//! Reads pages of the log backward.

use std::ops::ControlFlow;

use crate::domain::event::StoredEvent;
use crate::store::connection::session::Session;
use crate::store::error::{MissingEvent, StoreError};
use crate::store::log::backward::scan::BackwardScan;
use crate::store::log::backward::segment::{SegmentScan, scan_segment};
use crate::store::log::head::LogHead;
use crate::store::log::read::ReadProgress;
use crate::store::log::readable::WantedTypes;
use crate::store::log::scan::{PageBudget, PageContext, Scan};
use crate::store::log::segment::Delivery;
use crate::store::reader::{CatalogueCheck, Reader};
use crate::store::row::Deliver;

impl Reader {
    /// Reads one page backward: delivers events, the newest first, at most `limit`, until `deliver` stops the page, its
    /// time is up, or the beginning of the log is reached. Returns the head of the log.
    pub async fn read_log_backward(
        &self,
        scan: &mut BackwardScan,
        limit: usize,
        mut deliver: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<LogHead, StoreError> {
        let mut budget = scan.begin_page(limit);
        loop {
            let mut connection = self.acquire().await?;
            let (progress, head) =
                self.read_database_backward(&mut connection, scan, &mut budget, &mut deliver).await?;
            // No connection is held while the archive is read.
            drop(connection);
            match progress {
                ReadProgress::Archived(partition, segment) => {
                    let read = self
                        .read_archived_segment_backward(&partition, &segment, scan, &mut budget, &mut deliver)
                        .await;
                    self.unless_moved(&partition, read).await?;
                }
                ReadProgress::Complete => return Ok(head),
            }
        }
    }

    /// Reads until the page is complete, or the next segment is archived.
    async fn read_database_backward(
        &self,
        connection: &mut Session,
        scan: &mut BackwardScan,
        budget: &mut PageBudget,
        deliver: Deliver<'_>,
    ) -> Result<(ReadProgress, LogHead), StoreError> {
        let (mut catalogue, head) = self.catalogue_and_head(connection).await?;
        self.check_cursor(connection, scan.cursor(), &head).await?;
        scan.epoch = Some(head.epoch);
        let types = WantedTypes::find(connection, scan.filter()).await?;
        let Some(head_time) = head.occurred_at.filter(|_| !types.is_none()) else {
            scan.skip_to_beginning();
            return Ok((ReadProgress::Complete, head));
        };
        let has_times = scan.filter().occurred_from.is_some() || scan.filter().occurred_to.is_some();
        let mut gap_is_allowed = false;
        while !budget.is_spent() && !scan.is_at_beginning() {
            let segment = scan.next_segment(&catalogue, head_time);
            if let Some(partition) = segment.archived.clone() {
                return Ok((ReadProgress::Archived(partition, segment), head));
            }
            let wanted = scan_segment(connection, scan, segment).await?;
            // A partition that is archived meanwhile looks empty. A gap in the positions and a statement for matches
            // detect the change, and a search for a time does not.
            let detects_archiving =
                matches!(wanted, SegmentScan::Matches(_)) || !has_times && matches!(wanted, SegmentScan::All(_));
            if !detects_archiving
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
                    CatalogueCheck::Unchanged => {
                        // The log may have been rewound in the meantime.
                        let (_, head) = self.catalogue_and_head(connection).await?;
                        self.check_cursor(connection, scan.cursor(), &head).await?;
                        if gap_is_allowed {
                            return Err(StoreError::EventMissing(MissingEvent::BeforePosition(scan.before())));
                        }
                        // No partition was archived: an epoch may have begun after a gap.
                        gap_is_allowed = true;
                    }
                },
            }
        }
        Ok((ReadProgress::Complete, head))
    }
}
