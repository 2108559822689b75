//! Reads of archived segments of the log, from files. Such reads are slower, and return the same bytes.

use crate::archive::error::ArchiveError;
use crate::archive::manifest::Order;
use crate::archive::partition::ArchivedPartition;
use crate::store::error::StoreError;
use crate::store::log::scan::{LogScan, LogSegment, PageBudget, Scan};
use crate::store::reader::Reader;
use crate::store::row::Deliver;

impl Reader {
    /// Delivers the events of an archived segment, until the page's budget is spent or the segment ends.
    pub(super) async fn read_archived_segment(
        &self,
        partition: &ArchivedPartition,
        segment: &LogSegment,
        scan: &mut LogScan,
        budget: &mut PageBudget,
        deliver: Deliver<'_>,
    ) -> Result<(), StoreError> {
        let archive = self.archive()?;
        let failed = |error: ArchiveError| self.archive_error(partition, &error);
        budget.mark_scanned();
        if segment.is_outside(scan.filter()) {
            scan.skip_to(segment.to);
            return Ok(());
        }
        for n in archive.groups_between(partition, segment.after, segment.to).await.map_err(failed)? {
            let group = self.archived_group(partition, Order::Position, n).await.map_err(failed)?;
            for at in group.first_after(scan.after())..group.len() {
                let event = group.event(at).map_err(failed)?;
                if event.global_position > segment.to {
                    break;
                }
                scan.advance(&event);
                if scan.filter().occurred_to.is_some_and(|to| event.occurred_at >= to) {
                    // All following events are later, too.
                    scan.skip_to(segment.to);
                    return Ok(());
                }
                if scan.filter().matches(&event.facts()) && budget.deliver(&event, deliver) {
                    return Ok(());
                }
            }
            if budget.is_spent() {
                return Ok(());
            }
        }
        if scan.after() == segment.to {
            return Ok(());
        }
        let what = format!("it has no event at position {}, the last one of its partition", segment.to);
        Err(failed(ArchiveError::Damaged { path: partition.folder.clone(), what }))
    }
}
