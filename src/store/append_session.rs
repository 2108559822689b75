//! A connection that appends, and what it knows of the end of the log.
//!
//! Under the append lock every append takes a turn. Whose own turn was the last one need not look where the log ends
//! (`migrations/0003_append.sql`). Invariant: the end belongs to the connection that told it, and after an error nothing of it
//! is known: then the next append looks.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use crate::domain::event::Position;

pub(super) struct AppendSession {
    pub(super) connection: PgConnection,
    pub(super) end: LogEnd,
}

/// Where the log ended after an append, which was this turn.
#[derive(Debug, Default)]
pub(super) struct LogEnd {
    pub(super) turn: Option<i64>,
    pub(super) position: Option<Position>,
    pub(super) time: Option<DateTime<Utc>>,
    /// Start of the oldest month that is not rolled up.
    pub(super) open_from: Option<DateTime<Utc>>,
}

impl AppendSession {
    pub(super) fn new(connection: PgConnection) -> Self {
        Self { connection, end: LogEnd::default() }
    }

    /// What is known, for the append that comes now. Nothing is until its answer is here, which may never be.
    pub(super) fn take_end(&mut self) -> LogEnd {
        std::mem::take(&mut self.end)
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

impl LogEnd {
    pub(super) fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            turn: row.try_get("turn")?,
            position: row.try_get("log_position")?,
            time: row.try_get("log_time")?,
            open_from: row.try_get("open_from")?,
        })
    }
}
