//! The clock of PostgreSQL, the time of the last event, and the clock of the service.

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::store::connection::session::Session;
use crate::store::error::StoreError;
use crate::store::log::head::read_log_head;
use crate::store::reader::Reader;

/// A larger difference is reported.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(1);

/// How far the other clocks are ahead of that of the service; negative if they are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockComparison {
    pub database_ahead: TimeDelta,
    /// The time of the last event beyond the clock of the service; zero if it is not in the future.
    pub log_ahead: TimeDelta,
}

impl ClockComparison {
    /// Returns whether a difference is to be reported.
    pub fn is_wrong(&self) -> bool {
        self.is_database_wrong() || self.is_log_ahead()
    }

    /// Returns whether the difference of the clock of PostgreSQL is to be reported.
    pub fn is_database_wrong(&self) -> bool {
        self.database_ahead.abs() > CLOCK_TOLERANCE
    }

    /// Returns whether the time of the last event is to be reported.
    pub fn is_log_ahead(&self) -> bool {
        self.log_ahead > CLOCK_TOLERANCE
    }
}

impl Reader {
    /// Compares the clocks. The result is exact up to the time of a statement.
    pub async fn compare_clocks(&self) -> Result<ClockComparison, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(compare_clocks(&mut connection, &self.clock, self.open_from()).await?)
    }
}

/// Compares the clocks over a connection. `open_from` is the start of the oldest partition that is not sealed.
pub(in crate::store) async fn compare_clocks(
    connection: &mut Session,
    clock: &Clock,
    open_from: DateTime<Utc>,
) -> Result<ClockComparison, sqlx::Error> {
    let head = read_log_head(connection, open_from).await?;
    let before = clock.now();
    let of_database: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(connection).await?;
    let now = clock.now();
    let middle = before + (now - before) / 2;
    let of_database = clock.set_to().unwrap_or(of_database);
    let log_ahead = head.occurred_at.map_or(TimeDelta::zero(), |time| time - now);
    Ok(ClockComparison { database_ahead: of_database - middle, log_ahead: log_ahead.max(TimeDelta::zero()) })
}
