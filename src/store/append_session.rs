//! A connection that appends, and what it knows of the log.
//!
//! Under the append lock every append takes a turn. A session whose own turn was the last one still knows where
//! the log ends, and where the streams that it has seen stand (`migrations/0003_append.sql`). Invariants:
//! - What is known belongs to the connection that told it, and after an error nothing is: then the next append looks.
//! - Streams are known as long as every turn since was this connection's own.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{Connection, Row};

use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::Version;

/// With more streams than these, some megabytes, all are forgotten.
const STREAMS_MAX: usize = 20_000;

pub(super) struct AppendSession {
    pub(super) connection: PgConnection,
    known: Known,
}

/// A call that appends, with some of its values.
pub(super) type Call = Query<'static, Postgres, PgArguments>;

/// What the appends over a connection told.
#[derive(Default)]
pub(super) struct Known {
    pub(super) end: LogEnd,
    streams: HashMap<StreamId, KnownStream>,
}

/// Where the log ended after an append, which was this turn.
#[derive(Debug, Default)]
pub(super) struct LogEnd {
    turn: Option<i64>,
    pub(super) position: Option<Position>,
    pub(super) time: Option<DateTime<Utc>>,
    /// Start of the oldest month that is not rolled up.
    open_from: Option<DateTime<Utc>>,
}

/// A stream that has events.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownStream {
    pub(super) stream_no: i64,
    pub(super) head: Version,
}

impl AppendSession {
    pub(super) fn new(connection: PgConnection) -> Self {
        Self { connection, known: Known::default() }
    }

    /// What is known, for the append that comes now. Nothing is until its answer is here, which may never be.
    pub(super) fn take_known(&mut self) -> Known {
        std::mem::take(&mut self.known)
    }

    /// What is known after it.
    pub(super) fn keep(&mut self, known: Known) {
        self.known = known;
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

impl Known {
    pub(super) fn stream(&self, stream: &StreamId) -> Option<KnownStream> {
        self.streams.get(stream).copied()
    }

    /// Takes the answer of the next append.
    pub(super) fn hear(&mut self, row: &PgRow) -> Result<(), sqlx::Error> {
        let end = LogEnd::from_row(row)?;
        let is_next = end.turn.is_some() && end.turn == self.end.turn.map(|turn| turn + 1);
        if !is_next {
            self.streams.clear();
        }
        self.end = end;
        Ok(())
    }

    /// Notes where a stream stands after that append.
    pub(super) fn note(&mut self, stream: StreamId, now: KnownStream) {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&stream) {
            self.streams.clear();
        }
        self.streams.insert(stream, now);
    }
}

impl LogEnd {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            turn: row.try_get("turn")?,
            position: row.try_get("log_position")?,
            time: row.try_get("log_time")?,
            open_from: row.try_get("open_from")?,
        })
    }

    pub(super) fn bind_to(&self, call: Call) -> Call {
        call.bind(self.turn).bind(self.position).bind(self.time).bind(self.open_from)
    }
}
