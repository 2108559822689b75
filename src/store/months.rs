//! Months: partitions of `events` made ahead of time, and rolled up when they are over.
//!
//! A month that is over never changes again, because times never go backwards along the log: a later event says that it
//! is over, no clock does. Rolling it up notes in `streams` how far each stream got, so that a stream's head is looked
//! for in the open months only; those are few. Rolled-up months are always the oldest ones, and rolling up can be
//! repeated, interrupted and done by several replicas at once.

use std::sync::atomic::Ordering;

use chrono::{DateTime, Months, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use super::error::StoreError;
use super::{BEGINNING_OF_TIME, Store};
use crate::domain::event::Position;

/// Months kept ahead of the log.
const MONTHS_AHEAD: u32 = 3;
/// Streams rolled up in one statement.
const ROLL_UP_STREAMS: i64 = 10_000;

const CREATE_MONTHS: &str = include_str!("sql/create_months.sql");
const OPEN_FROM: &str = include_str!("sql/open_from.sql");
const LOG_HEAD: &str = include_str!("sql/log_head.sql");
const MONTHS_TO_ROLL_UP: &str = include_str!("sql/months_to_roll_up.sql");
const ROLL_UP_STREAMS_SQL: &str = include_str!("sql/roll_up_streams.sql");
const CLOSE_MONTH: &str = include_str!("sql/close_month.sql");

/// The last event of the log.
#[derive(Debug, Clone, Copy)]
pub struct LogHead {
    pub global_position: Position,
    pub occurred_at: DateTime<Utc>,
}

impl Store {
    /// One pass of the maintenance task: makes months ahead, rolls up those that are over.
    pub async fn keep_months(&self) -> Result<(), StoreError> {
        let mut connection = self.connector.owner().await?;
        create_missing(&mut connection, self.clock.set_to()).await?;
        roll_up(&mut connection).await?;
        // In this order: only while the log is empty can an older month still come, by an import. So an open month is
        // believed to be the oldest one only if there was an event before it was looked for.
        if let Some(head) = head(&mut connection, BEGINNING_OF_TIME).await? {
            let open_from = open_from(&mut connection).await?;
            self.open_from.store(open_from.timestamp_micros(), Ordering::Relaxed);
            self.saw_position(Some(head.global_position));
        }
        connection.close().await?;
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
        Some(open_from) => head(connection, open_from).await?.map(|head| head.occurred_at),
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

/// The last event of the log, looked for from the oldest open month on: the month of the last event is always open.
pub(super) async fn head(
    connection: &mut PgConnection,
    open_from: DateTime<Utc>,
) -> Result<Option<LogHead>, sqlx::Error> {
    let head: Option<(Position, DateTime<Utc>)> =
        sqlx::query_as(LOG_HEAD).bind(open_from).fetch_optional(connection).await?;
    Ok(head.map(|(global_position, occurred_at)| LogHead { global_position, occurred_at }))
}

pub(super) async fn roll_up(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let open_from = open_from(connection).await?;
    let Some(head) = head(connection, open_from).await? else { return Ok(()) };
    let months: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as(MONTHS_TO_ROLL_UP).bind(head.occurred_at).fetch_all(&mut *connection).await?;
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
        // Autovacuum looks after each month, and never after their parent.
        connection.execute("ANALYZE events").await?;
    }
    Ok(())
}
