//! Scans one segment of the log backward: finds out what its filter wants, then fetches and delivers the events.

use std::ops::ControlFlow;

use chrono::TimeDelta;

use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::store::connection::session::Session;
use crate::store::log::backward::scan::BackwardScan;
use crate::store::log::matches::Window;
use crate::store::log::rows::deliver_consecutive;
use crate::store::log::scan::{LogSegment, PageBudget, PageContext, Scan};
use crate::store::log::segment::{Delivery, deliver_window, position_before};
use crate::store::row::Deliver;

const LOG_EVENTS: &str = include_str!("../../sql/log_events_backward.sql");

/// What a scan wants of a segment.
pub(super) enum SegmentScan {
    /// No event after this position is wanted.
    Nothing { down_to: Position },
    /// No event of the segment, and no earlier one, is wanted.
    NothingEarlier,
    /// All events of the segment are wanted.
    All(LogSegment),
    /// The events of a window that match the filter are wanted.
    Matches(Window),
}

/// Finds out what the filter wants of a segment.
pub(super) async fn scan_segment(
    connection: &mut Session,
    scan: &BackwardScan,
    segment: LogSegment,
) -> Result<SegmentScan, sqlx::Error> {
    let segment = match restrict_to_times(connection, scan.filter(), segment).await? {
        ControlFlow::Continue(segment) => segment,
        ControlFlow::Break(nothing) => return Ok(nothing),
    };
    if scan.filter().is_by_time_alone() {
        return Ok(SegmentScan::All(segment));
    }
    let LogSegment { to, earliest, latest, .. } = segment;
    Ok(SegmentScan::Matches(Window { after: segment.after.max(scan.window_start(to)), to, earliest, latest }))
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
    /// Fetches the events, and delivers them.
    pub(super) async fn deliver(
        self,
        connection: &mut Session,
        scan: &mut BackwardScan,
        page: PageContext<'_>,
        budget: &mut PageBudget,
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
                    .bind(scan.fetch_size().rows_for(budget.wanted));
                let first = if page.gap_is_allowed { None } else { Some(segment.to) };
                let Some(events) = deliver_consecutive(connection, query, first, scan, budget, deliver).await? else {
                    return Ok(Delivery::FirstEventMissing);
                };
                if !budget.is_stopped && events == 0 {
                    if !page.gap_is_allowed {
                        return Ok(Delivery::FirstEventMissing);
                    }
                    // The rest of the segment is a gap.
                    scan.skip_down_to(segment.after);
                }
            }
            Self::Matches(window) => return deliver_window(connection, window, scan, page, budget, deliver).await,
        }
        Ok(Delivery::Complete)
    }
}
