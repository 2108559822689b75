//! Scans one segment of the log: finds out what its filter wants, then fetches and delivers the events.

use std::ops::ControlFlow;
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::store::connection::session::Session;
use crate::store::log::matches::{Window, matches_query};
use crate::store::log::rows::{deliver_consecutive, deliver_matches};
use crate::store::log::scan::{LogScan, LogSegment, PageBudget, PageContext, Scan, ScannedWindow};
use crate::store::row::Deliver;

const LOG_EVENTS: &str = include_str!("../sql/log_events.sql");
const POSITIONS_BEFORE: &str = include_str!("../sql/positions_before.sql");

/// What a scan wants of a segment.
pub(super) enum SegmentScan {
    /// No event up to this position is wanted.
    Nothing { up_to: Position },
    /// All events of the segment are wanted.
    All(LogSegment),
    /// The events of a window that match the filter are wanted.
    Matches(Window),
}

/// The result of delivering the events of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Complete,
    /// The first expected event was not found, and nothing was delivered.
    FirstEventMissing,
    /// No event matches in this window. The result is void if a partition was archived meanwhile.
    NoMatch(Window),
    /// The catalogue is outdated, and nothing was delivered.
    Outdated,
}

/// Finds out what the filter wants of a segment. `end` is the last position of the read.
pub(super) async fn scan_segment(
    connection: &mut Session,
    scan: &LogScan,
    segment: LogSegment,
    end: Position,
) -> Result<SegmentScan, sqlx::Error> {
    let segment = match restrict_to_times(connection, scan.filter(), segment, end).await? {
        ControlFlow::Continue(segment) => segment,
        ControlFlow::Break(up_to) => return Ok(SegmentScan::Nothing { up_to }),
    };
    if scan.filter().is_by_time_alone() {
        return Ok(SegmentScan::All(segment));
    }
    let LogSegment { after, earliest, latest, .. } = segment;
    Ok(SegmentScan::Matches(Window { after, to: segment.to.min(scan.window_end(after)), earliest, latest }))
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

impl SegmentScan {
    /// Fetches the events, and delivers them.
    pub(super) async fn deliver(
        self,
        connection: &mut Session,
        scan: &mut LogScan,
        page: PageContext<'_>,
        budget: &mut PageBudget,
        deliver: Deliver<'_>,
    ) -> Result<Delivery, sqlx::Error> {
        match self {
            Self::Nothing { up_to } => scan.skip_to(up_to),
            Self::All(segment) => {
                let rows = scan.fetch_size().rows_for(budget.wanted);
                scan.raise_earliest(segment.earliest);
                let query = sqlx::query(LOG_EVENTS)
                    .bind(segment.after)
                    .bind(segment.to)
                    .bind(segment.earliest)
                    .bind(segment.latest)
                    .bind(rows);
                let first = if page.gap_is_allowed { None } else { Some(segment.after + 1) };
                let Some(events) = deliver_consecutive(connection, query, first, scan, budget, deliver).await? else {
                    return Ok(Delivery::FirstEventMissing);
                };
                // A segment ends with an event: the head, the last event of a partition, or the last event before a
                // time.
                if !budget.is_stopped && events == 0 && scan.after() != segment.to {
                    return Ok(Delivery::FirstEventMissing);
                }
            }
            Self::Matches(window) => return deliver_window(connection, window, scan, page, budget, deliver).await,
        }
        Ok(Delivery::Complete)
    }
}

/// Fetches the matches of a window in the order of the scan, and delivers them.
pub(super) async fn deliver_window<S: Scan>(
    connection: &mut Session,
    window: Window,
    scan: &mut S,
    page: PageContext<'_>,
    budget: &mut PageBudget,
    deliver: Deliver<'_>,
) -> Result<Delivery, sqlx::Error> {
    let (started, filter) = (Instant::now(), scan.filter().clone());
    let rows = scan.fetch_size().rows_for(budget.wanted);
    let query = matches_query(S::MATCHES, &filter, page.types, window, rows);
    let delivered = deliver_matches(connection, query, page.catalogue, scan, budget, deliver).await?;
    let Some(found) = delivered else { return Ok(Delivery::Outdated) };
    let last = ScannedWindow::new(found, rows, scan.positions_read(window), started.elapsed());
    scan.window_size().adjust(last);
    if found == 0 {
        return Ok(Delivery::NoMatch(window));
    }
    if matches!(last, ScannedWindow::Complete { .. }) && !budget.is_stopped {
        scan.skip_window(window);
    }
    Ok(Delivery::Complete)
}
