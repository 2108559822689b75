//! One look at a part of the log: what of it is wanted, found before it is fetched, fetched before it is noted.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;

use super::{LogScan, Part, Step};
use crate::domain::event::{Position, StoredEvent};
use crate::domain::filter::EventFilter;
use crate::store::event_from_row;

const LOG_EVENTS: &str = include_str!("../sql/log_events.sql");
const MATCHES_BY_AGGREGATE_TYPE: &str = include_str!("../sql/log_matches_by_aggregate_type.sql");
const MATCHES_BY_AGGREGATE: &str = include_str!("../sql/log_matches_by_aggregate.sql");
const MATCHES_BY_EVENT_TYPE: &str = include_str!("../sql/log_matches_by_event_type.sql");
const MATCHES_BY_CORRELATION: &str = include_str!("../sql/log_matches_by_correlation.sql");
const EVENTS_AT: &str = include_str!("../sql/events_at.sql");
const POSITION_BEFORE: &str = include_str!("../sql/position_before.sql");

/// What the next part of the log has for a reader. Nothing is noted before it is handed over.
pub(super) enum Looked {
    /// Nothing up to there.
    Nothing(Position),
    /// All of the part.
    All(Part),
    /// What stands at these places, of a window that ends at `to`.
    Places { positions: Vec<Position>, times: Vec<DateTime<Utc>>, to: Position, complete: bool, took: Duration },
}

pub(super) async fn look(
    connection: &mut PgConnection,
    scan: &LogScan,
    part: Part,
    end: Position,
    wanted: usize,
) -> Result<Looked, sqlx::Error> {
    let part = match within_times(connection, &scan.filter, part, end).await? {
        ControlFlow::Continue(part) => part,
        ControlFlow::Break(nothing_up_to) => return Ok(Looked::Nothing(nothing_up_to)),
    };
    if scan.filter.is_by_time_alone() {
        Ok(Looked::All(part))
    } else {
        look_for_matches(connection, scan, part, wanted).await
    }
}

/// The part, less what is outside the filter's times; if nothing is left of it, up to where there is nothing.
async fn within_times(
    connection: &mut PgConnection,
    filter: &EventFilter,
    mut part: Part,
    end: Position,
) -> Result<ControlFlow<Position, Part>, sqlx::Error> {
    if let Some(from) = filter.occurred_from
        && from > part.earliest
    {
        if from > part.latest {
            return Ok(ControlFlow::Break(part.to));
        }
        part.after = position_before(connection, from, &part).await?;
        part.earliest = from;
    }
    if let Some(to) = filter.occurred_to
        && to <= part.latest
        && part.after < part.to
    {
        part.to = position_before(connection, to, &part).await?;
        if part.to <= part.after {
            // Whatever follows is later still.
            return Ok(ControlFlow::Break(end));
        }
    }
    Ok(if part.after < part.to { ControlFlow::Continue(part) } else { ControlFlow::Break(part.to) })
}

async fn position_before(
    connection: &mut PgConnection,
    time: DateTime<Utc>,
    part: &Part,
) -> Result<Position, sqlx::Error> {
    sqlx::query_scalar(POSITION_BEFORE)
        .bind(time)
        .bind(part.after)
        .bind(part.to)
        .bind(part.earliest)
        .bind(part.latest)
        .fetch_one(connection)
        .await
}

/// Looks where matching events stand in the next window of a part.
async fn look_for_matches(
    connection: &mut PgConnection,
    scan: &LogScan,
    part: Part,
    wanted: usize,
) -> Result<Looked, sqlx::Error> {
    fn any<T>(wanted: &[T]) -> Option<&[T]> {
        (!wanted.is_empty()).then_some(wanted)
    }
    let started = Instant::now();
    let to = part.to.min(part.after.saturating_add(scan.window));
    let rows = scan.rows_of(wanted);
    let filter = &scan.filter;
    // By the index that is likely to leave the least to look at.
    let statement = if !filter.correlation_ids.is_empty() {
        MATCHES_BY_CORRELATION
    } else if !filter.aggregate_ids.is_empty() {
        MATCHES_BY_AGGREGATE
    } else if !filter.event_types.is_empty() {
        MATCHES_BY_EVENT_TYPE
    } else {
        MATCHES_BY_AGGREGATE_TYPE
    };
    let matches: Vec<(Position, DateTime<Utc>)> = sqlx::query_as(statement)
        .bind(part.after)
        .bind(to)
        .bind(part.earliest)
        .bind(part.latest)
        .bind(rows)
        .bind(any(&filter.aggregate_types))
        .bind(any(&filter.aggregate_ids))
        .bind(any(&filter.event_types))
        .bind(any(&filter.correlation_ids))
        .fetch_all(&mut *connection)
        .await?;
    let complete = i64::try_from(matches.len()).is_ok_and(|found| found < rows);
    let (positions, times) = matches.into_iter().unzip();
    Ok(Looked::Places { positions, times, to, complete, took: started.elapsed() })
}

impl Looked {
    /// Fetches it and hands it over. `RowNotFound`: it is no longer there, or does not begin where it has to, unless that
    /// gap is known; nothing was handed over then.
    pub(super) async fn hand_over(
        self,
        connection: &mut PgConnection,
        scan: &mut LogScan,
        step: &mut Step,
        gap_is_known: bool,
        take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Nothing(up_to) => scan.skip_to(up_to),
            Self::All(part) => {
                let rows = scan.rows_of(step.wanted);
                scan.earliest = part.earliest;
                let query = sqlx::query(LOG_EVENTS)
                    .bind(part.after)
                    .bind(part.to)
                    .bind(part.earliest)
                    .bind(part.latest)
                    .bind(rows);
                let from = if gap_is_known { None } else { Some(part.after + 1) };
                let events = hand_over(connection, query, scan, step, Expected::Consecutive { from }, take).await?;
                // A part ends with an event: the head, the last one of a month, or the last one before a time.
                if !step.broken_off && events == 0 && scan.after != part.to {
                    return Err(sqlx::Error::RowNotFound);
                }
            }
            Self::Places { positions, times, to, complete, took } => {
                scan.learn_window(took);
                let found = i64::try_from(positions.len()).unwrap_or(i64::MAX);
                let mut events = 0;
                if let (Some(&earliest), Some(&latest)) = (times.first(), times.last()) {
                    let query = sqlx::query(EVENTS_AT).bind(positions).bind(times).bind(earliest).bind(latest);
                    events = hand_over(connection, query, scan, step, Expected::Anything, take).await?;
                }
                if !step.broken_off && events < found {
                    // Events never go: the database is not what the index said.
                    return Err(sqlx::Error::RowNotFound);
                }
                if !step.broken_off && complete {
                    scan.skip_to(to);
                }
            }
        }
        Ok(())
    }
}

/// What the positions of events that come in order have to be.
enum Expected {
    Anything,
    /// One after the other, beginning with a certain one if that is known.
    Consecutive {
        from: Option<Position>,
    },
}

/// Runs a statement that lists events in order, and hands them over; how many there were. It ends before a gap that is not
/// expected; if that is before the first event, it fails with `RowNotFound`.
async fn hand_over(
    connection: &mut PgConnection,
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    scan: &mut LogScan,
    step: &mut Step,
    expected: Expected,
    take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
) -> Result<i64, sqlx::Error> {
    let (mut events, mut bytes) = (0, 0);
    let (consecutive, mut next) = match expected {
        Expected::Anything => (false, None),
        Expected::Consecutive { from } => (true, from),
    };
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let event = event_from_row(&row)?;
        if next.is_some_and(|next| event.global_position != next) {
            if events == 0 {
                return Err(sqlx::Error::RowNotFound);
            }
            break;
        }
        next = consecutive.then_some(event.global_position + 1);
        scan.saw(&event);
        events += 1;
        bytes += event.payload_bytes();
        if !scan.filter().may_see(event.aggregate_type) {
            continue;
        }
        if step.hand_over(&event, take) {
            break;
        }
    }
    if events > 0 {
        scan.pace.learn(events, bytes);
    }
    Ok(events)
}
