//! The progress of a read of the log backward.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::{BEGINNING_OF_TIME, Position, StoredEvent};
use crate::domain::filter::EventFilter;
use crate::store::fetch_size::FetchSize;
use crate::store::log::matches::{BACKWARD, MatchStatements, Window};
use crate::store::log::scan::{LogSegment, PageBudget, Scan, ScanLimits, WindowSize};
use crate::store::partitions::catalogue::Catalogue;

/// A read of the log backward: its filter, and its progress.
#[derive(Debug, Clone)]
pub struct BackwardScan {
    filter: Arc<EventFilter>,
    limits: ScanLimits,
    pub(super) epoch: Option<Epoch>,
    /// Everything from this position on is read.
    before: Position,
    /// No earlier event is later, because times never go backwards along the log.
    latest: DateTime<Utc>,
    window: WindowSize,
    fetch_size: FetchSize,
}

impl BackwardScan {
    /// Prepares a read of the events before a position that match a filter.
    pub fn new(filter: EventFilter, before: Cursor, limits: ScanLimits) -> Self {
        Self {
            filter: Arc::new(filter),
            limits,
            epoch: before.epoch,
            before: before.position,
            latest: DateTime::<Utc>::MAX_UTC,
            window: WindowSize::new(limits),
            fetch_size: FetchSize::default(),
        }
    }

    /// Returns the position from which on everything is read.
    pub fn before(&self) -> Position {
        self.before
    }

    /// Returns whether nothing is left to read.
    pub fn is_at_beginning(&self) -> bool {
        self.before <= 1
    }

    /// Returns the cursor of the last event that may be read next.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: (self.before - 1).max(0) }
    }

    /// Begins a page of at most `limit` events.
    pub(super) fn begin_page(&mut self, limit: usize) -> PageBudget {
        self.fetch_size.begin_page();
        PageBudget::new(limit, self.limits.time)
    }

    /// Returns the next segment: the rest of the open partitions, or of a sealed one.
    pub(super) fn next_segment(&self, catalogue: &Catalogue, head_time: DateTime<Utc>) -> LogSegment {
        let microsecond = TimeDelta::microseconds(1);
        let to = self.before - 1;
        let (sealed, after) = (catalogue.sealed_partition_after(to - 1), catalogue.sealed_end_before(to - 1));
        let (earliest, latest) = match sealed {
            Some(partition) => (partition.starts_at, partition.ends_at - microsecond),
            None => (catalogue.open_from, head_time),
        };
        let archived = sealed.and_then(|partition| partition.archived.clone());
        LogSegment { after, to, earliest, latest: latest.min(self.latest), archived }
    }

    /// Returns the position after which the next window begins, which ends at a position.
    pub(super) fn window_start(&self, to: Position) -> Position {
        to.saturating_sub(self.window.positions())
    }

    /// Moves backward: no event after this position is wanted.
    pub(super) fn skip_down_to(&mut self, position: Position) {
        self.before = position + 1;
    }

    /// Ends the read: no earlier event is wanted.
    pub(super) fn skip_to_beginning(&mut self) {
        (self.before, self.latest) = (1, BEGINNING_OF_TIME);
    }
}

impl Scan for BackwardScan {
    const STEP: Position = -1;
    const MATCHES: &'static MatchStatements = &BACKWARD;

    fn filter(&self) -> &Arc<EventFilter> {
        &self.filter
    }

    fn advance(&mut self, event: &StoredEvent<'_>) {
        (self.before, self.latest) = (event.global_position, event.occurred_at);
    }

    fn positions_read(&self, window: Window) -> Position {
        window.to + 1 - self.before
    }

    fn skip_window(&mut self, window: Window) {
        self.skip_down_to(window.after);
    }

    fn fetch_size(&mut self) -> &mut FetchSize {
        &mut self.fetch_size
    }

    fn window_size(&mut self) -> &mut WindowSize {
        &mut self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_ends_at_the_first_position() {
        let scan = |position| {
            BackwardScan::new(EventFilter::default(), Cursor { epoch: Some(1), position }, ScanLimits::default())
        };
        assert!(scan(0).is_at_beginning() && scan(1).is_at_beginning() && !scan(2).is_at_beginning());
        assert_eq!(scan(0).cursor(), Cursor { epoch: Some(1), position: 0 });
        assert_eq!(scan(7).cursor(), Cursor { epoch: Some(1), position: 6 });
        let mut scan = scan(9_000);
        assert_eq!(scan.window_start(8_999), 8_999 - 4_096);
        scan.skip_down_to(5);
        assert_eq!((scan.before(), scan.is_at_beginning()), (6, false));
        scan.skip_to_beginning();
        assert_eq!((scan.before(), scan.is_at_beginning()), (1, true));
    }
}
