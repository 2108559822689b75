//! Scans one segment of the log backward: finds the positions of matching events, fetches the events, then moves the
//! cursor.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use chrono::TimeDelta;

use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::store::connection::session::Session;
use crate::store::log::backward::scan::BackwardScan;
use crate::store::log::matches::{BACKWARD, Matches, Window, find_matches};
use crate::store::log::readable::WantedTypes;
use crate::store::log::rows::{Expected, deliver_rows};
use crate::store::log::scan::{LogSegment, PageBudget, Scan};
use crate::store::log::segment::{Delivery, position_before};
use crate::store::row::Deliver;

const LOG_EVENTS: &str = include_str!("../../sql/log_events_backward.sql");
const EVENTS_AT: &str = include_str!("../../sql/events_at_backward.sql");

/// What a scan found in a segment. The cursor does not move before the events are delivered.
pub(super) enum SegmentScan {
    /// No event after this position is wanted.
    Nothing { down_to: Position },
    /// No event of the segment, and no earlier one, is wanted.
    NothingEarlier,
    /// All events of the segment are wanted.
    All(LogSegment),
    /// The events at these positions are wanted, of a window that begins after `after`.
    Matches { found: Matches, after: Position, took: Duration },
}

/// Finds out what the filter wants of a segment.
pub(super) async fn scan_segment(
    connection: &mut Session,
    scan: &BackwardScan,
    types: &WantedTypes,
    segment: LogSegment,
    wanted: usize,
) -> Result<SegmentScan, sqlx::Error> {
    let segment = match restrict_to_times(connection, scan.filter(), segment).await? {
        ControlFlow::Continue(segment) => segment,
        ControlFlow::Break(nothing) => return Ok(nothing),
    };
    if scan.filter().is_by_time_alone() {
        return Ok(SegmentScan::All(segment));
    }
    let started = Instant::now();
    let LogSegment { to, earliest, latest, .. } = segment;
    let after = segment.after.max(scan.window_start(to));
    let window = Window { after, to, earliest, latest };
    let rows = scan.rows_for(wanted);
    let found = find_matches(connection, &BACKWARD, scan.filter(), types, window, rows).await?;
    Ok(SegmentScan::Matches { found, after, took: started.elapsed() })
}

/// Restricts a segment to the filter's span of time. Breaks if the restricted segment is empty.
async fn restrict_to_times(
    connection: &mut Session,
    filter: &EventFilter,
    mut segment: LogSegment,
) -> Result<ControlFlow<SegmentScan, LogSegment>, sqlx::Error> {
    if let Some(to) = filter.occurred_to
        && to <= segment.latest
    {
        let nothing = SegmentScan::Nothing { down_to: segment.after };
        if to <= segment.earliest {
            return Ok(ControlFlow::Break(nothing));
        }
        segment.to = position_before(connection, to, &segment).await?;
        segment.latest = to - TimeDelta::microseconds(1);
        if segment.to <= segment.after {
            return Ok(ControlFlow::Break(nothing));
        }
    }
    if let Some(from) = filter.occurred_from
        && from > segment.earliest
    {
        if from > segment.latest {
            return Ok(ControlFlow::Break(SegmentScan::NothingEarlier));
        }
        segment.after = position_before(connection, from, &segment).await?;
        segment.earliest = from;
        if segment.to <= segment.after {
            return Ok(ControlFlow::Break(SegmentScan::NothingEarlier));
        }
    }
    Ok(ControlFlow::Continue(segment))
}

impl SegmentScan {
    /// Fetches the events and delivers them. `gap_is_allowed`: the position before the cursor may have no event,
    /// because an epoch began after a gap.
    pub(super) async fn deliver(
        self,
        connection: &mut Session,
        scan: &mut BackwardScan,
        budget: &mut PageBudget,
        gap_is_allowed: bool,
        deliver: Deliver<'_>,
    ) -> Result<Delivery, sqlx::Error> {
        match self {
            Self::Nothing { down_to } => scan.skip_down_to(down_to),
            Self::NothingEarlier => scan.skip_to_beginning(),
            Self::All(segment) => {
                let query = sqlx::query(LOG_EVENTS)
                    .bind(segment.after)
                    .bind(segment.to)
                    .bind(segment.earliest)
                    .bind(segment.latest)
                    .bind(scan.rows_for(budget.wanted));
                let first = if gap_is_allowed { None } else { Some(segment.to) };
                let expected = Expected::Consecutive { first };
                let Some(events) = deliver_rows(connection, query, expected, scan, budget, deliver).await? else {
                    return Ok(Delivery::FirstEventMissing);
                };
                if !budget.is_stopped && events == 0 {
                    if !gap_is_allowed {
                        return Ok(Delivery::FirstEventMissing);
                    }
                    // The rest of the segment is a gap.
                    scan.skip_down_to(segment.after);
                }
            }
            Self::Matches { found: Matches { positions, times, is_complete }, after, took } => {
                scan.adjust_window(took);
                let found = i64::try_from(positions.len()).unwrap_or(i64::MAX);
                let mut events = 0;
                if let (Some(&latest), Some(&earliest)) = (times.first(), times.last()) {
                    let query = sqlx::query(EVENTS_AT).bind(positions).bind(times).bind(earliest).bind(latest);
                    let delivered = deliver_rows(connection, query, Expected::Any, scan, budget, deliver).await?;
                    events = delivered.unwrap_or(0);
                }
                if !budget.is_stopped && events < found {
                    // Events are never deleted, so their partition was archived after they were found.
                    return Ok(Delivery::FirstEventMissing);
                }
                if !budget.is_stopped && is_complete {
                    scan.skip_down_to(after);
                }
            }
        }
        Ok(Delivery::Complete)
    }
}
