//! Months: partitions of `events` made ahead of time, and rolled up when they are over.
//!
//! A month that is over never changes again, because times never go backwards along the log: a later event says that it
//! is over, no clock does. Rolling it up notes in `streams` how far each stream got, so that a stream's head is looked
//! for in the open months only; those are few. Rolled-up months are always the oldest ones, and rolling up can be
//! repeated, interrupted and done by several replicas at once.

use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Months, Utc};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Executor, Row};

use super::error::StoreError;
use super::log::LogHead;
use super::{BEGINNING_OF_TIME, Store, epochs, log};
use crate::domain::cursor::Epoch;
use crate::domain::event::Position;

/// Months kept ahead of the log.
const MONTHS_AHEAD: u32 = 3;
/// Streams rolled up in one statement.
const ROLL_UP_STREAMS: i64 = 10_000;

const CREATE_MONTHS: &str = include_str!("sql/create_months.sql");
const OPEN_FROM: &str = include_str!("sql/open_from.sql");
const CLOSED_MONTHS: &str = include_str!("sql/closed_months.sql");
const MONTHS_TO_ROLL_UP: &str = include_str!("sql/months_to_roll_up.sql");
const ROLL_UP_STREAMS_SQL: &str = include_str!("sql/roll_up_streams.sql");
const CLOSE_MONTH: &str = include_str!("sql/close_month.sql");

/// A month that is rolled up: nothing in it changes any more.
#[derive(Debug, Clone)]
pub(super) struct ClosedMonth {
    pub(super) starts_at: DateTime<Utc>,
    pub(super) ends_at: DateTime<Utc>,
    pub(super) last_position: Position,
    /// Its folder in the archive; `None`: it is in the database.
    pub(super) archived_to: Option<Arc<str>>,
}

/// What a process knows of the months. Within an epoch it may lag behind, which does no harm: an open month that was
/// closed since is read as what it was.
#[derive(Debug, Clone)]
pub(super) struct Catalogue {
    /// 0: nothing is known.
    epoch: Epoch,
    /// Start of the oldest month that is not rolled up.
    pub(super) open_from: DateTime<Utc>,
    /// Those that are, and have events, oldest first.
    closed: Vec<ClosedMonth>,
    /// How often a month had been closed, left the database or come back before this was read.
    changes: i64,
}

impl ClosedMonth {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let archived_to: Option<String> = row.try_get("archived_to")?;
        Ok(Self {
            starts_at: row.try_get("starts_at")?,
            ends_at: row.try_get("ends_at")?,
            last_position: row.try_get("last_position")?,
            archived_to: archived_to.map(Into::into),
        })
    }
}

impl Catalogue {
    pub(super) fn unknown() -> Self {
        Self { epoch: 0, open_from: BEGINNING_OF_TIME, closed: Vec::new(), changes: 0 }
    }

    /// Whether it is of the log that stands there: of its epoch, not of a longer one, and no month has changed since.
    pub(super) fn is_of(&self, head: &LogHead) -> bool {
        let last_closed = self.closed.last().map_or(0, |month| month.last_position);
        self.epoch == head.epoch && head.global_position >= last_closed && self.changes == head.month_changes
    }

    /// The closed month that the event after `position` is in; `None` if it is in an open one.
    pub(super) fn closed_month_after(&self, position: Position) -> Option<&ClosedMonth> {
        self.closed.get(self.closed.partition_point(|month| month.last_position <= position))
    }

    /// The folders of the archived months between two times, both included, oldest first.
    pub(super) fn archived_between(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<Arc<str>> {
        let months = self.closed.iter().filter(|month| month.ends_at > from && month.starts_at <= to);
        months.filter_map(|month| month.archived_to.clone()).collect()
    }

    /// While the log is empty an older month can still come, by an import: no month counts then. That is why an event is
    /// looked for before the months are.
    async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        // First: a change that comes in between is noticed by the next who asks.
        let head = log::head(connection, BEGINNING_OF_TIME).await?;
        let changes = head.month_changes;
        if head.global_position == 0 {
            return Ok(Self { epoch: head.epoch, changes, ..Self::unknown() });
        }
        let open_from = open_from(connection).await?;
        let rows = sqlx::query(CLOSED_MONTHS).fetch_all(&mut *connection).await?;
        let closed: Vec<_> = rows.iter().map(ClosedMonth::from_row).collect::<Result<_, _>>()?;
        // One that was closed between the two statements is still open for us.
        let closed = closed.into_iter().filter(|month| month.ends_at <= open_from).collect();
        Ok(Self { epoch: head.epoch, open_from, closed, changes })
    }
}

impl Store {
    /// One pass of the maintenance task: makes months ahead, rolls up those that are over.
    pub async fn keep_months(&self) -> Result<(), StoreError> {
        let mut connection = self.connector.owner().await?;
        // Before anything is served: whoever comes with a cursor of before is told.
        epochs::keep(&mut connection).await?;
        if !epochs::is_told(&mut connection).await? {
            tracing::warn!(
                "PostgreSQL does not tell its timeline: after a failover or a restore, begin an epoch by hand (annals epoch)"
            );
        }
        create_missing(&mut connection, self.clock.set_to()).await?;
        roll_up(&mut connection).await?;
        self.learn_months(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// What is known of the months, read again if one was closed, archived or restored since; the same one, if not.
    ///
    /// A month is in the catalogue as archived before its table goes. So a statement that did not see the table is found out
    /// by asking afterwards: if the answer is not what was known before, what the statement said is void.
    pub(super) async fn still_known(
        &self,
        connection: &mut PgConnection,
        known: &Arc<Catalogue>,
    ) -> Result<Arc<Catalogue>, StoreError> {
        if log::head(connection, known.open_from).await?.month_changes == known.changes {
            return Ok(known.clone());
        }
        self.learn_months(connection).await?;
        Ok(self.catalogue())
    }

    /// Reads the catalogue.
    pub(super) async fn learn_months(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let catalogue = Catalogue::read(connection).await?;
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
        Ok(())
    }
}

/// Makes the month of the next event, and those ahead of it, where they are missing. `now`: a clock that a test set.
pub(super) async fn create_missing(
    connection: &mut PgConnection,
    now: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    let now: DateTime<Utc> = match now {
        Some(now) => now,
        None => sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *connection).await?,
    };
    // An empty catalogue has no open month: then there is no event either.
    let last = match sqlx::query_scalar(OPEN_FROM).fetch_optional(&mut *connection).await? {
        Some(open_from) => log::head(connection, open_from).await?.occurred_at,
        None => None,
    };
    let next = last.map_or(now, |last| last.max(now));
    create_between(connection, next, next + Months::new(MONTHS_AHEAD)).await
}

/// Makes the months from that of `from` to that of `to` where they are missing.
pub(super) async fn create_between(
    connection: &mut PgConnection,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let made: i64 = sqlx::query_scalar(CREATE_MONTHS).bind(from).bind(to).fetch_one(connection).await?;
    if made > 0 {
        tracing::info!(made, from = %from.format("%Y-%m"), to = %to.format("%Y-%m"), "made partitions for months");
    }
    Ok(())
}

pub(super) async fn open_from(connection: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar(OPEN_FROM).fetch_one(connection).await
}

pub(super) async fn roll_up(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let open_from = open_from(connection).await?;
    let Some(last) = log::head(connection, open_from).await?.occurred_at else { return Ok(()) };
    let months: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as(MONTHS_TO_ROLL_UP).bind(last).fetch_all(&mut *connection).await?;
    for (starts_at, ends_at) in &months {
        let mut done = Some((String::new(), String::new()));
        while let Some((aggregate_type, aggregate_id)) = done {
            done = sqlx::query_as(ROLL_UP_STREAMS_SQL)
                .bind(starts_at)
                .bind(ends_at)
                .bind(aggregate_type)
                .bind(aggregate_id)
                .bind(ROLL_UP_STREAMS)
                .fetch_optional(&mut *connection)
                .await?;
        }
        sqlx::query(CLOSE_MONTH).bind(starts_at).bind(ends_at).execute(&mut *connection).await?;
    }
    if let (Some((first, _)), Some((last, _))) = (months.first(), months.last()) {
        let (from, to) = (first.format("%Y-%m"), last.format("%Y-%m"));
        tracing::info!(%from, %to, "rolled up the months that are over");
        // Who appends and knows the end of the log knows the oldest open month, too: it looks again.
        connection.execute("SELECT nextval('append_turns')").await?;
        // Autovacuum looks after each month, and never after their parent.
        connection.execute("ANALYZE events").await?;
    }
    Ok(())
}
