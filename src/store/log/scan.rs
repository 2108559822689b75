//! The progress of a read of the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::archive::partition::ArchivedPartition;
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::{BEGINNING_OF_TIME, Position, StoredEvent};
use crate::domain::filter::EventFilter;
use crate::store::fetch_size::FetchSize;
use crate::store::log::matches::{FORWARD, MatchStatements, Window};
use crate::store::log::readable::WantedTypes;
use crate::store::partitions::catalogue::Catalogue;
use crate::store::row::Deliver;

/// A window that took less time than the first limit, and had few matches, is followed by one that is four times as
/// large; one that took more than the second limit is followed by one of half the size.
const WINDOW_CHEAP: Duration = Duration::from_millis(15);
const WINDOW_EXPENSIVE: Duration = Duration::from_millis(60);
/// With this share of the matches that one statement returns, a window that is four times as large would be full.
const WINDOW_FILLED: f64 = 0.25;
const WINDOW_MAX: Position = 1 << 20;

/// Limits of one page of a filtered read.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimits {
    /// The number of positions in the first window.
    pub first_window: Position,
    /// No further window begins after this time.
    pub time: Duration,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { first_window: 4_096, time: Duration::from_millis(250) }
    }
}

/// What a window has cost and returned.
#[derive(Debug, Clone, Copy)]
pub(super) enum ScannedWindow {
    /// It had more matches than one statement returns. The matches are in this number of positions.
    Full { positions: Position },
    /// All its matches were returned: this share of what one statement returns.
    Complete { took: Duration, filled: f64 },
}

/// The number of positions in the next window. It follows the time that windows take, and their number of matches.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowSize {
    positions: Position,
    smallest: Position,
}

/// A read of the log: its filter, and its progress.
#[derive(Debug, Clone)]
pub struct LogScan {
    filter: Arc<EventFilter>,
    limits: ScanLimits,
    /// The epoch of `after`; `None` until the first page, if the reader gave none.
    pub(super) epoch: Option<Epoch>,
    /// Everything up to this position is read.
    after: Position,
    /// No later event is older, because times never go backwards along the log.
    earliest: DateTime<Utc>,
    window: WindowSize,
    fetch_size: FetchSize,
}

/// The progress of a read in one direction.
pub(super) trait Scan {
    /// The distance from a position to the next one of the read: 1 or -1.
    const STEP: Position;
    /// The statements that return matches in the order of the read.
    const MATCHES: &'static MatchStatements;

    /// Returns the filter.
    fn filter(&self) -> &Arc<EventFilter>;

    /// Moves to an event.
    fn advance(&mut self, event: &StoredEvent<'_>);

    /// Returns the number of positions of a window from its start to the last event that was read.
    fn positions_read(&self, window: Window) -> Position;

    /// Moves to the end of a window: no event that remains in it is wanted.
    fn skip_window(&mut self, window: Window);

    /// Returns the number of rows that a statement fetches, to adjust it.
    fn fetch_size(&mut self) -> &mut FetchSize;

    /// Returns the size of the next window, to adjust it.
    fn window_size(&mut self) -> &mut WindowSize;
}

/// A part of the log in one sealed partition, or in the open ones.
#[derive(Debug, Clone)]
pub(super) struct LogSegment {
    pub(super) after: Position,
    pub(super) to: Position,
    pub(super) earliest: DateTime<Utc>,
    pub(super) latest: DateTime<Utc>,
    /// The partition's place in the archive; `None` if its events are in the database.
    pub(super) archived: Option<Arc<ArchivedPartition>>,
}

/// What the statements of a page depend on, beside its scan.
pub(super) struct PageContext<'p> {
    pub(super) types: &'p WantedTypes,
    pub(super) catalogue: &'p Catalogue,
    /// The next segment may begin after a gap, because an epoch began.
    pub(super) gap_is_allowed: bool,
}

/// What one page may still read.
pub(super) struct PageBudget {
    /// The number of events that the reader still wants.
    pub(super) wanted: usize,
    /// The reader has stopped the page.
    pub(super) is_stopped: bool,
    /// The page ends at this time, but it scans at least one segment.
    deadline: Instant,
    has_scanned: bool,
}

impl WindowSize {
    /// Returns the size of the first window.
    pub(super) fn new(limits: ScanLimits) -> Self {
        Self { positions: limits.first_window, smallest: limits.first_window }
    }

    /// Returns the number of positions.
    pub(super) fn positions(self) -> Position {
        self.positions
    }

    /// Adjusts the size to the last window.
    pub(super) fn adjust(&mut self, last: ScannedWindow) {
        match last {
            // A statement reads the matches of each type, and returns the first ones of all. PostgreSQL discards the others.
            ScannedWindow::Full { positions } => self.positions = positions.max(1),
            ScannedWindow::Complete { took, .. } if took > WINDOW_EXPENSIVE => {
                self.positions = (self.positions / 2).max(self.smallest.min(self.positions));
            }
            ScannedWindow::Complete { took, filled } if took < WINDOW_CHEAP && filled < WINDOW_FILLED => {
                self.positions = (self.positions * 4).min(WINDOW_MAX);
            }
            ScannedWindow::Complete { .. } => {}
        }
    }
}

impl ScannedWindow {
    /// Describes a window in which `found` events were found by a statement that requested a number of rows. They are in
    /// this number of positions.
    pub(super) fn new(found: usize, rows: i64, positions: Position, took: Duration) -> Self {
        let filled = found as f64 / rows as f64;
        if filled < 1.0 { Self::Complete { took, filled } } else { Self::Full { positions } }
    }
}

impl LogSegment {
    /// Returns whether no event of the segment is in the filter's span of time.
    pub(super) fn is_outside(&self, filter: &EventFilter) -> bool {
        filter.occurred_from.is_some_and(|from| from > self.latest)
            || filter.occurred_to.is_some_and(|to| to <= self.earliest)
    }
}

impl PageBudget {
    /// Begins a page of at most `wanted` events.
    pub(super) fn new(wanted: usize, time: Duration) -> Self {
        Self { wanted, is_stopped: false, deadline: Instant::now() + time, has_scanned: false }
    }

    /// Delivers an event. Returns whether the reader wants no more.
    pub(super) fn deliver(&mut self, event: &StoredEvent<'_>, deliver: Deliver<'_>) -> bool {
        self.wanted -= 1;
        self.is_stopped = deliver(event).is_break();
        self.is_stopped || self.wanted == 0
    }

    /// Returns whether the page ends here.
    pub(super) fn is_spent(&self) -> bool {
        self.is_stopped || self.wanted == 0 || self.has_scanned && Instant::now() >= self.deadline
    }

    /// Records that the page has scanned a segment.
    pub(super) fn mark_scanned(&mut self) {
        self.has_scanned = true;
    }
}

impl LogScan {
    /// Prepares a read of the events after a cursor that match a filter.
    pub fn new(filter: EventFilter, after: Cursor, limits: ScanLimits) -> Self {
        let Cursor { epoch, position } = after;
        Self {
            filter: Arc::new(filter),
            limits,
            epoch,
            after: position,
            earliest: BEGINNING_OF_TIME,
            window: WindowSize::new(limits),
            fetch_size: FetchSize::default(),
        }
    }

    /// Returns the position up to which everything is read.
    pub fn after(&self) -> Position {
        self.after
    }

    /// Returns the cursor of everything that is read.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.after }
    }

    /// Moves forward to a cursor up to which the events were read elsewhere; never backwards.
    pub fn advance_to(&mut self, cursor: Cursor) {
        self.after = self.after.max(cursor.position);
        self.epoch = cursor.epoch;
    }

    /// Goes back to a position up to which events were read: those after it are read again.
    pub fn rewind_to(&mut self, position: Position) {
        (self.after, self.earliest) = (position, BEGINNING_OF_TIME);
    }

    /// Sets the number of bytes that the reader wants at once.
    pub fn set_page_bytes(&mut self, bytes: usize) {
        self.fetch_size.set_page_bytes(bytes);
    }

    /// Begins a page of at most `limit` events.
    pub(super) fn begin_page(&mut self, limit: usize) -> PageBudget {
        self.fetch_size.begin_page();
        PageBudget::new(limit, self.limits.time)
    }

    /// Returns the next segment: the rest of a sealed partition, or of the open ones.
    pub(super) fn next_segment(&self, catalogue: &Catalogue, end: Position, head_time: DateTime<Utc>) -> LogSegment {
        let microsecond = TimeDelta::microseconds(1);
        let sealed = catalogue.sealed_partition_after(self.after);
        let (to, earliest, latest) = match sealed {
            Some(partition) => (partition.last_position.min(end), partition.starts_at, partition.ends_at - microsecond),
            None => (end, catalogue.open_from, head_time),
        };
        let archived = sealed.and_then(|partition| partition.archived.clone());
        LogSegment { after: self.after, to, earliest: earliest.max(self.earliest), latest, archived }
    }

    /// Returns the last position of the next window after a position.
    pub(super) fn window_end(&self, after: Position) -> Position {
        after.saturating_add(self.window.positions())
    }

    /// Moves forward: no event up to this position is wanted.
    pub(super) fn skip_to(&mut self, position: Position) {
        self.after = position;
    }

    /// Records that no event that follows is older than a time.
    pub(super) fn raise_earliest(&mut self, earliest: DateTime<Utc>) {
        self.earliest = earliest;
    }
}

impl Scan for LogScan {
    const STEP: Position = 1;
    const MATCHES: &'static MatchStatements = &FORWARD;

    fn filter(&self) -> &Arc<EventFilter> {
        &self.filter
    }

    fn advance(&mut self, event: &StoredEvent<'_>) {
        (self.after, self.earliest) = (event.global_position, event.occurred_at);
    }

    fn positions_read(&self, window: Window) -> Position {
        self.after - window.after
    }

    fn skip_window(&mut self, window: Window) {
        self.skip_to(window.to);
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
    fn a_cheap_window_grows_and_an_expensive_one_shrinks() {
        let mut scan = LogScan::new(EventFilter::default(), Cursor { epoch: None, position: 0 }, ScanLimits::default());
        assert_eq!(scan.window_end(10), 10 + 4_096);
        let complete =
            |milliseconds, filled| ScannedWindow::Complete { took: Duration::from_millis(milliseconds), filled };
        scan.window_size().adjust(complete(1, 0.1));
        assert_eq!(scan.window_end(0), 4 * 4_096);
        scan.window_size().adjust(complete(30, 0.1));
        scan.window_size().adjust(complete(1, 0.3));
        assert_eq!(scan.window_end(0), 4 * 4_096);
        scan.window_size().adjust(complete(100, 0.3));
        scan.window_size().adjust(complete(100, 0.1));
        scan.window_size().adjust(complete(100, 0.1));
        assert_eq!(scan.window_end(0), 4_096);
        for _ in 0..10 {
            scan.window_size().adjust(complete(0, 0.0));
        }
        assert_eq!(scan.window_end(0), WINDOW_MAX);
        scan.window_size().adjust(ScannedWindow::Full { positions: 7_000 });
        assert_eq!(scan.window_end(0), 7_000);
        scan.window_size().adjust(ScannedWindow::Full { positions: 5 });
        scan.window_size().adjust(complete(100, 0.1));
        assert_eq!(scan.window_end(0), 5);
    }

    #[test]
    fn a_scan_advances_and_never_goes_backwards() {
        let mut scan =
            LogScan::new(EventFilter::default(), Cursor { epoch: Some(1), position: 5 }, ScanLimits::default());
        scan.advance_to(Cursor { epoch: Some(2), position: 3 });
        assert_eq!(scan.cursor(), Cursor { epoch: Some(2), position: 5 });
        scan.advance_to(Cursor { epoch: Some(2), position: 9 });
        assert_eq!(scan.after(), 9);
    }

    #[test]
    fn a_page_scans_once_even_without_time() {
        let mut budget = PageBudget::new(3, Duration::ZERO);
        assert!(!budget.is_spent());
        budget.mark_scanned();
        assert!(budget.is_spent());
    }
}
