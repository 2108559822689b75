//! Reads of the log in order: positions 1, 2, 3 …, over all months, all events or those that match a filter.
//!
//! A read goes month by month: one that is closed is known from the catalogue with its last position, and the open ones
//! are bounded by the head. So each statement names the months that it looks at, and costs the same however many there are.
//!
//! A filtered read first finds where matching events stand, in a window of positions and through the index that fits the
//! filter best, and then fetches them. A window that costs little is followed by a larger one. The read ends when its time
//! is up, and says how far it has looked: nobody waits for a scan of everything.
//!
//! Every step reads the head first and then only up to it, on one connection. If the epoch is no longer the one in which
//! the reader stands, it asks on the same connection whether the reader may go on: a step either continues what was read
//! before, or fails with [`StoreError::EpochChanged`].

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;

use super::error::StoreError;
use super::months::Catalogue;
use super::read::Pace;
use super::{BEGINNING_OF_TIME, Store, StoredEvent, epochs};
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::Position;
use crate::domain::filter::EventFilter;

const LOG_HEAD: &str = include_str!("sql/log_head.sql");
const LOG_EVENTS: &str = include_str!("sql/log_events.sql");
const MATCHES_BY_AGGREGATE_TYPE: &str = include_str!("sql/log_matches_by_aggregate_type.sql");
const MATCHES_BY_AGGREGATE: &str = include_str!("sql/log_matches_by_aggregate.sql");
const MATCHES_BY_EVENT_TYPE: &str = include_str!("sql/log_matches_by_event_type.sql");
const MATCHES_BY_CORRELATION: &str = include_str!("sql/log_matches_by_correlation.sql");
const EVENTS_AT: &str = include_str!("sql/events_at.sql");
const POSITION_BEFORE: &str = include_str!("sql/position_before.sql");

/// A window that took less than the first is followed by one four times as large, one that took more than the second by
/// one of half the size.
const WINDOW_CHEAP: Duration = Duration::from_millis(15);
const WINDOW_DEAR: Duration = Duration::from_millis(60);
const WINDOW_MAX: Position = 1 << 20;

/// Where the log stands, as one snapshot of the database sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    pub epoch: Epoch,
    /// Position of the last event; 0 while the log is empty.
    pub global_position: Position,
    /// When it occurred.
    pub occurred_at: Option<DateTime<Utc>>,
}

/// How much one step of a filtered read looks at.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimits {
    /// Positions in the first window.
    pub first_window: Position,
    /// After this time no further window is begun.
    pub time: Duration,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { first_window: 4_096, time: Duration::from_millis(250) }
    }
}

/// A read of the log on its way.
#[derive(Debug, Clone)]
pub struct LogScan {
    filter: EventFilter,
    limits: ScanLimits,
    /// The epoch in which `after` is meant; `None` until the first step, if the reader did not say.
    epoch: Option<Epoch>,
    /// Everything up to here was looked at.
    after: Position,
    /// Nothing before this time can still come, since times never go backwards along the log.
    earliest: DateTime<Utc>,
    window: Position,
    pace: Pace,
}

/// A part of the log that lies in months which are known.
#[derive(Debug, Clone, Copy)]
struct Part {
    after: Position,
    to: Position,
    earliest: DateTime<Utc>,
    latest: DateTime<Utc>,
}

impl LogScan {
    /// A read of the events after a cursor that match a filter.
    pub fn new(filter: EventFilter, after: Cursor, limits: ScanLimits) -> Self {
        let Cursor { epoch, position } = after;
        let window = limits.first_window;
        Self { filter, limits, epoch, after: position, earliest: BEGINNING_OF_TIME, window, pace: Pace::default() }
    }

    /// Everything up to this position was looked at.
    pub fn after(&self) -> Position {
        self.after
    }

    /// Where it stands, as a cursor.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.after }
    }

    /// Goes on after a cursor up to which somebody else has looked; never back.
    pub fn moved_to(&mut self, cursor: Cursor) {
        self.after = self.after.max(cursor.position);
        self.epoch = cursor.epoch;
    }

    /// What comes next: the rest of a closed month, or of the open ones.
    fn part(&self, catalogue: &Catalogue, end: Position, head: DateTime<Utc>) -> Part {
        let moment = TimeDelta::microseconds(1);
        let (to, earliest, latest) = match catalogue.closed_month_after(self.after) {
            Some(month) => (month.last_position.min(end), month.starts_at, month.ends_at - moment),
            None => (end, catalogue.open_from, head),
        };
        Part { after: self.after, to, earliest: earliest.max(self.earliest), latest }
    }

    fn saw(&mut self, event: &StoredEvent<'_>) {
        (self.after, self.earliest) = (event.global_position, event.occurred_at);
    }

    fn learn_window(&mut self, took: Duration) {
        if took < WINDOW_CHEAP {
            self.window = (self.window * 4).min(WINDOW_MAX);
        } else if took > WINDOW_DEAR {
            self.window = (self.window / 2).max(self.limits.first_window);
        }
    }
}

impl Store {
    /// Where the log stands.
    pub async fn log_head(&self) -> Result<LogHead, StoreError> {
        Ok(self.current(&mut *self.acquire().await?).await?.1)
    }

    /// Where the log stands, if a cursor still leads on from where it is.
    pub async fn log_head_for(&self, cursor: Cursor) -> Result<LogHead, StoreError> {
        let mut connection = self.acquire().await?;
        let (_, head) = self.current(&mut connection).await?;
        check_epoch(&mut connection, cursor, &head).await?;
        Ok(head)
    }

    /// The months as they are in the epoch of the head, and the head.
    pub(super) async fn current(&self, connection: &mut PgConnection) -> Result<(Arc<Catalogue>, LogHead), StoreError> {
        let mut catalogue = self.catalogue();
        let mut head = head(connection, catalogue.open_from).await?;
        if !catalogue.is_of(&head) {
            // The log may have gone back behind months that were closed: what was known of them is void.
            self.learn_months(connection).await?;
            catalogue = self.catalogue();
            head = self::head(connection, catalogue.open_from).await?;
        }
        self.saw_position(Some(head.global_position));
        Ok((catalogue, head))
    }

    /// One step of a read: hands events to `take`, in order, at most `limit`, none beyond `to` nor beyond the head, until
    /// `take` breaks off, the time of a step is up, or the end is reached. Returns the head that it read up to.
    pub async fn read_log(
        &self,
        scan: &mut LogScan,
        to: Position,
        limit: usize,
        take: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<LogHead, StoreError> {
        let mut connection = self.acquire().await?;
        self.read_log_over(&mut connection, scan, to, limit, take).await
    }

    /// The same over a connection of the caller's.
    pub(super) async fn read_log_over(
        &self,
        connection: &mut PgConnection,
        scan: &mut LogScan,
        to: Position,
        limit: usize,
        mut take: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<LogHead, StoreError> {
        let (catalogue, head) = self.current(connection).await?;
        check_epoch(connection, scan.cursor(), &head).await?;
        scan.epoch = Some(head.epoch);
        let Some(head_time) = head.occurred_at else { return Ok(head) };
        let end = to.min(head.global_position);
        let started = Instant::now();
        let mut wanted = i64::try_from(limit).unwrap_or(i64::MAX);
        while wanted > 0 && scan.after < end {
            let part = scan.part(&catalogue, end, head_time);
            let Some(part) = within_times(connection, scan, part, end).await? else { continue };
            let read = if scan.filter.is_by_time_alone() {
                read_part(connection, scan, part, wanted, &mut take).await
            } else {
                read_window(connection, scan, part, wanted, &mut take).await
            };
            let read = match read {
                Err(sqlx::Error::RowNotFound) => return Err(self.why_missing(connection, scan).await?),
                read => read?,
            };
            wanted -= read.events;
            if read.broken_off || started.elapsed() >= scan.limits.time {
                break;
            }
        }
        Ok(head)
    }
}

impl Store {
    /// The alarm: an event that must be there is not. The log was cut in between, or somebody has deleted by hand.
    async fn why_missing(&self, connection: &mut PgConnection, scan: &LogScan) -> Result<StoreError, StoreError> {
        let (_, head) = self.current(connection).await?;
        check_epoch(connection, scan.cursor(), &head).await?;
        Ok(sqlx::Error::RowNotFound.into())
    }
}

/// Fails if the epoch has changed since, and with it what the cursor has seen.
async fn check_epoch(connection: &mut PgConnection, cursor: Cursor, head: &LogHead) -> Result<(), StoreError> {
    let Some(epoch) = cursor.epoch.filter(|epoch| *epoch != head.epoch) else { return Ok(()) };
    // Nobody here knows where an epoch of another history has parted from this one.
    let kept = if epoch > head.epoch { Some(0) } else { epochs::kept(connection, epoch).await? };
    match kept.filter(|kept| *kept < cursor.position) {
        Some(kept) => Err(StoreError::EpochChanged { epoch: head.epoch, kept }),
        None => Ok(()),
    }
}

/// Where the log stands, looked for from the oldest open month on: the month of the last event is always open.
pub(super) async fn head(connection: &mut PgConnection, open_from: DateTime<Utc>) -> Result<LogHead, sqlx::Error> {
    let (epoch, global_position, occurred_at) = sqlx::query_as(LOG_HEAD).bind(open_from).fetch_one(connection).await?;
    Ok(LogHead { epoch, global_position, occurred_at })
}

/// The part, less what is outside the filter's times; `None` if nothing is left of it: then the scan has moved on.
async fn within_times(
    connection: &mut PgConnection,
    scan: &mut LogScan,
    mut part: Part,
    end: Position,
) -> Result<Option<Part>, sqlx::Error> {
    if let Some(from) = scan.filter.occurred_from
        && from > part.earliest
    {
        let later = from > part.latest;
        scan.after = if later { part.to } else { position_before(connection, from, part).await? };
        if !later {
            scan.earliest = from;
        }
        (part.after, part.earliest) = (scan.after, from);
    }
    if let Some(to) = scan.filter.occurred_to
        && to <= part.latest
        && part.after < part.to
    {
        part.to = position_before(connection, to, part).await?;
        if part.to <= part.after {
            // Whatever follows is later still.
            scan.after = end;
        }
    }
    Ok((part.after < part.to).then_some(part))
}

async fn position_before(
    connection: &mut PgConnection,
    time: DateTime<Utc>,
    part: Part,
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

/// What one statement, or a pair of them, has read.
struct Read {
    events: i64,
    broken_off: bool,
}

/// Reads what comes next in a part, all of it.
async fn read_part(
    connection: &mut PgConnection,
    scan: &mut LogScan,
    part: Part,
    wanted: i64,
    take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
) -> Result<Read, sqlx::Error> {
    let rows = wanted.min(scan.pace.rows());
    let query = sqlx::query(LOG_EVENTS).bind(part.after).bind(part.to).bind(part.earliest).bind(part.latest).bind(rows);
    let read = hand_over(connection, query, scan, take).await?;
    // A part ends with an event: the head, the last one of a month, or the last one before a time.
    if !read.broken_off && read.events < rows && scan.after != part.to {
        return Err(sqlx::Error::RowNotFound);
    }
    Ok(read)
}

/// Looks for matching events in the next window of a part, and reads them.
async fn read_window(
    connection: &mut PgConnection,
    scan: &mut LogScan,
    part: Part,
    wanted: i64,
    take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
) -> Result<Read, sqlx::Error> {
    fn any<T>(wanted: &[T]) -> Option<&[T]> {
        (!wanted.is_empty()).then_some(wanted)
    }
    let started = Instant::now();
    let to = part.to.min(part.after.saturating_add(scan.window));
    let rows = wanted.min(scan.pace.rows());
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
    scan.learn_window(started.elapsed());
    let found = i64::try_from(matches.len()).unwrap_or(i64::MAX);
    let mut read = Read { events: 0, broken_off: false };
    let (positions, times): (Vec<_>, Vec<_>) = matches.into_iter().unzip();
    if let (Some(&earliest), Some(&latest)) = (times.first(), times.last()) {
        let query = sqlx::query(EVENTS_AT).bind(positions).bind(times).bind(earliest).bind(latest);
        read = hand_over(connection, query, scan, take).await?;
    }
    if !read.broken_off && read.events < found {
        // Events never go: the database is not what the index said.
        return Err(sqlx::Error::RowNotFound);
    }
    if !read.broken_off && found < rows {
        scan.after = to;
    }
    Ok(read)
}

/// Runs a statement that lists events in order, and hands them over.
async fn hand_over(
    connection: &mut PgConnection,
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    scan: &mut LogScan,
    take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
) -> Result<Read, sqlx::Error> {
    let mut read = Read { events: 0, broken_off: false };
    let mut bytes = 0;
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let event = StoredEvent::from_row(&row)?;
        scan.saw(&event);
        read.events += 1;
        bytes += event.payload_bytes();
        if take(&event).is_break() {
            read.broken_off = true;
            break;
        }
    }
    if read.events > 0 {
        scan.pace.learn(read.events, bytes);
    }
    Ok(read)
}
