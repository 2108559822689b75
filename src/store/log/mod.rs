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
//!
//! A month that is archived is read there, by [`super::archived`]. What a process knows of that may be old; the database
//! is asked again whenever it could have hidden an event.

mod look;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgConnection;

use super::error::StoreError;
use super::months::Catalogue;
use super::read::Pace;
use super::{BEGINNING_OF_TIME, Store, StoredEvent, epochs};
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use look::{Looked, look};

const LOG_HEAD: &str = include_str!("../sql/log_head.sql");

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
    /// How often a month has been closed, left the database or come back.
    pub(super) month_changes: i64,
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
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) after: Position,
    pub(super) to: Position,
    earliest: DateTime<Utc>,
    latest: DateTime<Utc>,
    /// The month's folder in the archive.
    archived_to: Option<Arc<str>>,
}

impl Part {
    /// Whether nothing in it is of the filter's times.
    pub(super) fn is_outside(&self, filter: &EventFilter) -> bool {
        filter.occurred_from.is_some_and(|from| from > self.latest)
            || filter.occurred_to.is_some_and(|to| to <= self.earliest)
    }
}

/// What is left to do in one step of a read.
pub(super) struct Step {
    /// Events that are still wanted.
    wanted: usize,
    /// Whoever takes them wants no more.
    broken_off: bool,
    /// When its time is up; it looks at something in any case.
    until: Instant,
    has_looked: bool,
}

impl Step {
    fn new(wanted: usize, limits: ScanLimits) -> Self {
        Self { wanted, broken_off: false, until: Instant::now() + limits.time, has_looked: false }
    }

    /// Hands an event over; whether no more are wanted.
    pub(super) fn hand_over(
        &mut self,
        event: &StoredEvent<'_>,
        take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> bool {
        self.wanted -= 1;
        self.broken_off = take(event).is_break();
        self.broken_off || self.wanted == 0
    }

    pub(super) fn is_over(&self) -> bool {
        self.broken_off || self.wanted == 0 || self.has_looked && Instant::now() >= self.until
    }

    pub(super) fn has_looked(&mut self) {
        self.has_looked = true;
    }
}

/// How far a step came in the database.
enum Came {
    ToItsEnd,
    /// To a part that is archived.
    ToTheArchive(Arc<str>, Part),
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
        let month = catalogue.closed_month_after(self.after);
        let (to, earliest, latest) = match month {
            Some(month) => (month.last_position.min(end), month.starts_at, month.ends_at - moment),
            None => (end, catalogue.open_from, head),
        };
        let archived_to = month.and_then(|month| month.archived_to.clone());
        let earliest = earliest.max(self.earliest);
        Part { after: self.after, to, earliest, latest, archived_to }
    }

    /// Rows to ask for when so many events are wanted: more, where not all that match may be seen.
    fn rows_of(&self, wanted: usize) -> i64 {
        const AT_LEAST: usize = 1_000;
        self.pace.rows_of(if self.filter.readable.is_some() { wanted.max(AT_LEAST) } else { wanted })
    }

    pub(super) fn filter(&self) -> &EventFilter {
        &self.filter
    }

    /// Nothing that is wanted comes up to there.
    pub(super) fn skip_to(&mut self, position: Position) {
        self.after = position;
    }

    pub(super) fn saw(&mut self, event: &StoredEvent<'_>) {
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
        self.check_epoch(&mut connection, cursor, &head).await?;
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
        mut take: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<LogHead, StoreError> {
        let mut step = Step::new(limit, scan.limits);
        loop {
            let mut connection = self.acquire().await?;
            let (came, head) = self.read_database(&mut connection, scan, to, &mut step, &mut take).await?;
            // No connection is held while the archive is read.
            drop(connection);
            match came {
                Came::ToTheArchive(folder, part) => {
                    self.read_archived_part(&folder, scan, &part, &mut step, &mut take).await?;
                }
                Came::ToItsEnd => return Ok(head),
            }
        }
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
        let mut step = Step::new(limit, scan.limits);
        loop {
            match self.read_database(connection, scan, to, &mut step, &mut take).await? {
                (Came::ToTheArchive(folder, part), _) => {
                    self.read_archived_part(&folder, scan, &part, &mut step, &mut take).await?;
                }
                (Came::ToItsEnd, head) => return Ok(head),
            }
        }
    }

    /// Reads until the step is over, the end is reached, or what follows is archived.
    async fn read_database(
        &self,
        connection: &mut PgConnection,
        scan: &mut LogScan,
        to: Position,
        step: &mut Step,
        take: &mut impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(Came, LogHead), StoreError> {
        let (mut catalogue, head) = self.current(connection).await?;
        self.check_epoch(connection, scan.cursor(), &head).await?;
        scan.epoch = Some(head.epoch);
        let Some(head_time) = head.occurred_at else { return Ok((Came::ToItsEnd, head)) };
        let end = to.min(head.global_position);
        let mut gap_is_known = false;
        while !step.is_over() && scan.after < end {
            let part = scan.part(&catalogue, end, head_time);
            if let Some(folder) = part.archived_to.clone() {
                return Ok((Came::ToTheArchive(folder, part), head));
            }
            let looked = look(connection, scan, part, end, step.wanted).await?;
            // A month that leaves the database looks empty: what was found there is void. Events that are read one after
            // the other show it themselves.
            if !matches!(looked, Looked::All(_)) {
                let known = self.still_known(connection, &catalogue).await?;
                if !Arc::ptr_eq(&known, &catalogue) {
                    catalogue = known;
                    continue;
                }
            }
            step.has_looked();
            match looked.hand_over(connection, scan, step, gap_is_known, take).await {
                Err(sqlx::Error::RowNotFound) => {
                    let known = self.still_known(connection, &catalogue).await?;
                    if !Arc::ptr_eq(&known, &catalogue) {
                        catalogue = known;
                    } else if gap_is_known {
                        return Err(self.why_missing(connection, scan).await?);
                    } else {
                        // No month has gone: an epoch may have begun with a gap.
                        gap_is_known = true;
                    }
                }
                handed_over => {
                    handed_over?;
                    gap_is_known = false;
                }
            }
        }
        Ok((Came::ToItsEnd, head))
    }
}

impl Store {
    /// The alarm: an event that must be there is not. The log was cut in between, or somebody has deleted by hand.
    async fn why_missing(&self, connection: &mut PgConnection, scan: &LogScan) -> Result<StoreError, StoreError> {
        let (_, head) = self.current(connection).await?;
        self.check_epoch(connection, scan.cursor(), &head).await?;
        Ok(sqlx::Error::RowNotFound.into())
    }

    /// Fails if the epoch has changed since, and with it what the cursor has seen.
    async fn check_epoch(
        &self,
        connection: &mut PgConnection,
        cursor: Cursor,
        head: &LogHead,
    ) -> Result<(), StoreError> {
        let Some(epoch) = cursor.epoch.filter(|epoch| *epoch != head.epoch) else { return Ok(()) };
        if epoch > head.epoch && self.is_replica {
            // It has not heard of the epoch yet.
            return Err(StoreError::Behind(head.global_position));
        }
        // Nobody here knows where an epoch of another history has parted from this one.
        let kept = if epoch > head.epoch { Some(0) } else { epochs::kept(connection, epoch).await? };
        match kept.filter(|kept| *kept < cursor.position) {
            Some(kept) => Err(StoreError::EpochChanged { epoch: head.epoch, kept }),
            None => Ok(()),
        }
    }
}

/// Where the log stands, looked for from the oldest open month on: the month of the last event is always open.
pub(super) async fn head(connection: &mut PgConnection, open_from: DateTime<Utc>) -> Result<LogHead, sqlx::Error> {
    let (epoch, global_position, occurred_at, month_changes) =
        sqlx::query_as(LOG_HEAD).bind(open_from).fetch_one(connection).await?;
    Ok(LogHead { epoch, global_position, occurred_at, month_changes })
}
