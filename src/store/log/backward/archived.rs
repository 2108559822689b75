//! Reads of archived segments of the log backward, from files.

use crate::archive::error::ArchiveError;
use crate::archive::manifest::Order;
use crate::archive::partition::ArchivedPartition;
use crate::store::error::StoreError;
use crate::store::log::backward::scan::BackwardScan;
use crate::store::log::scan::{LogSegment, PageBudget, Scan};
use crate::store::reader::Reader;
use crate::store::row::Deliver;

impl Reader {
    /// Delivers the events of an archived segment, the newest first, until the page's budget is spent or the segment
    /// ends. The digests of the files prove that no event is missing.
    pub(super) async fn read_archived_segment_backward(
        &self,
        partition: &ArchivedPartition,
        segment: &LogSegment,
        scan: &mut BackwardScan,
        budget: &mut PageBudget,
        deliver: Deliver<'_>,
    ) -> Result<(), StoreError> {
        let archive = self.archive()?;
        let failed = |error: ArchiveError| self.archive_error(partition, &error);
        budget.mark_scanned();
        if scan.filter().occurred_from.is_some_and(|from| from > segment.latest) {
            scan.skip_to_beginning();
            return Ok(());
        }
        if scan.filter().occurred_to.is_some_and(|to| to <= segment.earliest) {
            scan.skip_down_to(segment.after);
            return Ok(());
        }
        for n in archive.groups_between(partition, segment.after, segment.to).await.map_err(failed)?.into_iter().rev() {
            let group = self.archived_group(partition, Order::Position, n).await.map_err(failed)?;
            for at in (group.first_after(segment.after)..group.first_after(scan.before() - 1)).rev() {
                let event = group.event(at).map_err(failed)?;
                scan.advance(&event);
                if scan.filter().occurred_from.is_some_and(|from| event.occurred_at < from) {
                    // All earlier events are before the time, too.
                    scan.skip_to_beginning();
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
        scan.skip_down_to(segment.after);
        Ok(())
    }
}
