//! Scans one segment of the log: finds the positions of matching events, fetches the events, then advances the cursor.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::store::connection::session::Session;
use crate::store::log::matches::{FORWARD, Matches, Window, find_matches};
use crate::store::log::readable::WantedTypes;
use crate::store::log::rows::{Expected, deliver_rows};
use crate::store::log::scan::{LogScan, LogSegment, PageBudget, Scan};
use crate::store::row::Deliver;

const LOG_EVENTS: &str = include_str!("../sql/log_events.sql");
const EVENTS_AT: &str = include_str!("../sql/events_at.sql");
const POSITIONS_BEFORE: &str = include_str!("../sql/positions_before.sql");

/// What a scan found in a segment. The cursor does not move before the events are delivered.
pub(super) enum SegmentScan {
    /// No event up to this position is wanted.
    Nothing { up_to: Position },
    /// All events of the segment are wanted.
    All(LogSegment),
    /// The events at these positions are wanted, of a window that ends at `to`.
    Matches { found: Matches, to: Position, took: Duration },
}

/// The result of delivering the events of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Complete,
    /// The first expected event was not found, and nothing was delivered.
    FirstEventMissing,
}

/// Finds out what the filter wants of a segment. `end` is the last position of the read.
pub(super) async fn scan_segment(
    connection: &mut Session,
    scan: &LogScan,
    types: &WantedTypes,
    segment: LogSegment,
    end: Position,
    wanted: usize,
) -> Result<SegmentScan, sqlx::Error> {
    let segment = match restrict_to_times(connection, scan.filter(), segment, end).await? {
        ControlFlow::Continue(segment) => segment,
        ControlFlow::Break(up_to) => return Ok(SegmentScan::Nothing { up_to }),
    };
    if scan.filter().is_by_time_alone() {
        Ok(SegmentScan::All(segment))
    } else {
        scan_window(connection, scan, types, segment, wanted).await
    }
}

/// Restricts a segment to the filter's span of time. Breaks with the position up to which no event is wanted if the
/// restricted segment is empty.
async fn restrict_to_times(
    connection: &mut Session,
    filter: &EventFilter,
    mut segment: LogSegment,
    end: Position,
) -> Result<ControlFlow<Position, LogSegment>, sqlx::Error> {
    if let Some(from) = filter.occurred_from
        && from > segment.earliest
    {
        if from > segment.latest {
            return Ok(ControlFlow::Break(segment.to));
        }
        segment.after = position_before(connection, from, &segment).await?;
        segment.earliest = from;
    }
    if let Some(to) = filter.occurred_to
        && to <= segment.latest
        && segment.after < segment.to
    {
        segment.to = position_before(connection, to, &segment).await?;
        if segment.to <= segment.after {
            // All following events are later, too.
            return Ok(ControlFlow::Break(end));
        }
    }
    let is_empty = segment.after >= segment.to;
    Ok(if is_empty { ControlFlow::Break(segment.to) } else { ControlFlow::Continue(segment) })
}

/// Returns the last position of a segment whose event is before a time.
pub(super) async fn position_before(
    connection: &mut Session,
    time: DateTime<Utc>,
    segment: &LogSegment,
) -> Result<Position, sqlx::Error> {
    Ok(positions_before(connection, &[time], segment).await?.first().copied().unwrap_or(segment.after))
}

/// Returns for each of some times the last position of a segment whose event is before the time.
pub(super) async fn positions_before(
    connection: &mut Session,
    times: &[DateTime<Utc>],
    segment: &LogSegment,
) -> Result<Vec<Position>, sqlx::Error> {
    sqlx::query_scalar(POSITIONS_BEFORE)
        .bind(times)
        .bind(segment.after)
        .bind(segment.to)
        .bind(segment.earliest)
        .bind(segment.latest)
        .fetch_all(connection)
        .await
}

/// Finds the positions of matching events in the next window of a segment.
async fn scan_window(
    connection: &mut Session,
    scan: &LogScan,
    types: &WantedTypes,
    segment: LogSegment,
    wanted: usize,
) -> Result<SegmentScan, sqlx::Error> {
    let started = Instant::now();
    let LogSegment { after, earliest, latest, .. } = segment;
    let to = segment.to.min(scan.window_end(after));
    let window = Window { after, to, earliest, latest };
    let rows = scan.rows_for(wanted);
    let found = find_matches(connection, &FORWARD, scan.filter(), types, window, rows).await?;
    Ok(SegmentScan::Matches { found, to, took: started.elapsed() })
}

impl SegmentScan {
    /// Fetches the events and delivers them. `gap_is_allowed`: the segment may begin after a gap, because an epoch
    /// began.
    pub(super) async fn deliver(
        self,
        connection: &mut Session,
        scan: &mut LogScan,
        budget: &mut PageBudget,
        gap_is_allowed: bool,
        deliver: Deliver<'_>,
    ) -> Result<Delivery, sqlx::Error> {
        match self {
            Self::Nothing { up_to } => scan.skip_to(up_to),
            Self::All(segment) => {
                let rows = scan.rows_for(budget.wanted);
                scan.raise_earliest(segment.earliest);
                let query = sqlx::query(LOG_EVENTS)
                    .bind(segment.after)
                    .bind(segment.to)
                    .bind(segment.earliest)
                    .bind(segment.latest)
                    .bind(rows);
                let first = if gap_is_allowed { None } else { Some(segment.after + 1) };
                let expected = Expected::Consecutive { first };
                let Some(events) = deliver_rows(connection, query, expected, scan, budget, deliver).await? else {
                    return Ok(Delivery::FirstEventMissing);
                };
                // A segment ends with an event: the head, the last event of a partition, or the last event before a
                // time.
                if !budget.is_stopped && events == 0 && scan.after() != segment.to {
                    return Ok(Delivery::FirstEventMissing);
                }
            }
            Self::Matches { found: Matches { positions, times, is_complete }, to, took } => {
                scan.adjust_window(took);
                let found = i64::try_from(positions.len()).unwrap_or(i64::MAX);
                let mut events = 0;
                if let (Some(&earliest), Some(&latest)) = (times.first(), times.last()) {
                    let query = sqlx::query(EVENTS_AT).bind(positions).bind(times).bind(earliest).bind(latest);
                    let delivered = deliver_rows(connection, query, Expected::Any, scan, budget, deliver).await?;
                    events = delivered.unwrap_or(0);
                }
                if !budget.is_stopped && events < found {
                    // Events are never deleted, so their partition was archived after they were found.
                    return Ok(Delivery::FirstEventMissing);
                }
                if !budget.is_stopped && is_complete {
                    scan.skip_to(to);
                }
            }
        }
        Ok(Delivery::Complete)
    }
}
