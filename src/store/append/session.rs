//! A connection that appends, and its cache of the log.
//!
//! Under the append lock every append increments the append generation (`migrations/0001_schema.sql`). A session whose
//! own append was the last one can cache the end of the log and the heads of the streams to which it has appended.
//! Invariants:
//! - The cache belongs to one connection. After an error it is empty, and the next append reads the tables.
//! - Cached streams are valid as long as every increment of the generation was this session's own.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{Executor, Row};

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::connection::session::Session;
use crate::store::error::DatabaseError;

/// The largest number of cached streams, which take some megabytes. When it is exceeded, the cache is cleared.
const CACHED_STREAMS_MAX: usize = 20_000;

/// A call of `append_events` or `append_event` without the parameters of the cache.
pub(super) type Call = Query<'static, Postgres, PgArguments>;

/// A connection that appends, with its cache.
pub(super) struct AppendSession {
    pub(super) connection: Session,
    cache: WriterCache,
    /// The temporary table of the check exists, or the login may not create it.
    has_check_table: bool,
}

/// What a session has cached from the results of its appends.
#[derive(Default)]
struct WriterCache {
    end: LogEnd,
    streams: HashMap<StreamId, CachedStream>,
}

/// The end of the log after an append of this generation.
#[derive(Debug, Default)]
struct LogEnd {
    generation: Option<i64>,
    position: Option<Position>,
    time: Option<DateTime<Utc>>,
    /// The start of the oldest partition that is not sealed.
    open_from: Option<DateTime<Utc>>,
    epoch: Option<Epoch>,
}

/// A stream that exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct CachedStream {
    pub(super) stream_no: i64,
    pub(super) head: Version,
}

impl AppendSession {
    /// Creates a session with an empty cache.
    pub(super) fn new(connection: Session) -> Self {
        Self { connection, cache: WriterCache::default(), has_check_table: false }
    }

    /// Writes and commits something that no reader sees, and returns the time of PostgreSQL.
    ///
    /// The rows of a temporary table take space on the disk until the commit. A message in the write-ahead log makes
    /// the commit wait for whatever an append waits for, like a synchronous standby.
    pub(super) async fn check_writable(&mut self) -> Result<DateTime<Utc>, DatabaseError> {
        const CREATE: &str = include_str!("../sql/check_table.sql");
        const CHECK: &str = include_str!("../sql/check_writable.sql");
        const STATE: &str = include_str!("../sql/writable_state.sql");
        if !self.has_check_table {
            self.connection.execute(CREATE).await?;
            self.has_check_table = true;
        }
        self.connection.execute(CHECK).await?;
        let (time, is_read_only, is_frozen): (DateTime<Utc>, bool, bool) =
            sqlx::query_as(STATE).fetch_one(&mut self.connection).await?;
        match (is_read_only, is_frozen) {
            (true, _) => Err(DatabaseError::ReadOnly),
            (false, true) => Err(DatabaseError::LogMoving),
            (false, false) => Ok(time),
        }
    }

    /// Completes a call of `append_events` with the cache, and runs it.
    pub(super) async fn append_events(&mut self, call: Call, streams: &[StreamId]) -> Result<PgRow, sqlx::Error> {
        let cached = streams.iter().map(|stream| self.cache.streams.get(stream));
        let (heads, stream_nos): (Vec<_>, Vec<_>) =
            cached.map(|stream| (stream.map(|stream| stream.head), stream.map(|stream| stream.stream_no))).unzip();
        let call = call.bind(null_if_all_none(&heads)).bind(null_if_all_none(&stream_nos));
        self.run(call).await
    }

    /// Completes a call of `append_event` with the cache, and runs it.
    pub(super) async fn append_event(&mut self, call: Call, stream: &StreamId) -> Result<PgRow, sqlx::Error> {
        let cached = self.cache.streams.get(stream);
        let call = call.bind(cached.map(|stream| stream.head)).bind(cached.map(|stream| stream.stream_no));
        self.run(call).await
    }

    /// Binds the cached end of the log, runs the call, and caches the end of the log that it returns.
    ///
    /// During the call the cache is empty. It stays empty after an error, and if the call is cancelled.
    async fn run(&mut self, call: Call) -> Result<PgRow, sqlx::Error> {
        let mut cache = std::mem::take(&mut self.cache);
        let LogEnd { generation, position, time, open_from, epoch } = cache.end;
        let call = call.bind(generation).bind(position).bind(time).bind(open_from);
        let row = call.fetch_one(&mut self.connection).await?;
        let mut end = LogEnd::from_row(&row)?;
        end.epoch = end.epoch.or(epoch);
        let is_next = end.generation.is_some() && end.generation == generation.map(|generation| generation + 1);
        if !is_next {
            cache.streams.clear();
        }
        cache.end = end;
        self.cache = cache;
        Ok(row)
    }

    /// Returns the epoch of the log at the last append.
    pub(super) fn epoch(&self) -> Result<Epoch, DatabaseError> {
        let missing = || DatabaseError::UnexpectedResult("the first append of a session returned no epoch".to_owned());
        self.cache.end.epoch.ok_or_else(missing)
    }

    /// Caches the head of a stream after the last append.
    pub(super) fn cache_stream(&mut self, stream: StreamId, cached: CachedStream) {
        let streams = &mut self.cache.streams;
        if streams.len() >= CACHED_STREAMS_MAX && !streams.contains_key(&stream) {
            streams.clear();
        }
        streams.insert(stream, cached);
    }

    /// Closes the connection.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

impl LogEnd {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            generation: row.try_get("generation")?,
            position: row.try_get("log_position")?,
            time: row.try_get("log_time")?,
            open_from: row.try_get("open_from")?,
            epoch: row.try_get("epoch")?,
        })
    }
}

/// Returns `None` for an array that has only NULLs: the procedure accepts NULL instead.
pub(super) fn null_if_all_none<T>(values: &Vec<Option<T>>) -> Option<&Vec<Option<T>>> {
    values.iter().any(Option::is_some).then_some(values)
}
