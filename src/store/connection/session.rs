//! A session: a connection to PostgreSQL whose statements end although the server has vanished.
//!
//! When the machine of a server loses its power, no packet ends its connections, and a statement in progress would wait
//! for ever. Two limits end it:
//! - Time: PostgreSQL ends each statement of a pooled connection after 30 s (`statement_timeout`), so silence for longer
//!   than [`SILENCE_MAX`] means that no response will come.
//! - An outage: the tailer, which reads every quarter of a second, has found that the server is away. What began before
//!   that is void, see [`ServerState`].
//!
//! A write has a shorter limit. When it passes, or the connection is lost, the outcome is unknown.
//!
//! Invariant: a session that a limit has ended is void. It is closed, and never used for another statement.

use std::future::ready;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{self, Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres};
use sqlx::{Connection, Either, Execute, Executor, SqlStr};
use tokio::time::{Instant, Sleep, sleep};

/// The longest time for which a statement on a pooled connection waits for the next message of the server.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(35);
/// The longest time for which a write waits for its result: that of the writer for an append.
const WRITE_MAX: Duration = Duration::from_secs(8);
/// The pause between two looks at the limit, while a statement waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Times are counted from here: from before the first connection.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the connections of a process have found out about their server. Clones share it.
#[derive(Debug, Clone)]
pub(in crate::store) struct ServerState {
    /// When the server was last found to be away, in microseconds since [`BEGIN`]; 0 if it never was.
    last_outage: Arc<AtomicU64>,
    /// Whether a write got no response in time. Until it is known that commits do not wait for a standby, no further write
    /// of a pooled connection begins: PostgreSQL does not end a commit that waits when its client is gone, so the
    /// sessions would add up.
    commits_may_wait: Arc<AtomicBool>,
}

impl ServerState {
    pub(super) fn new() -> Self {
        LazyLock::force(&BEGIN);
        Self { last_outage: Arc::default(), commits_may_wait: Arc::default() }
    }

    /// Records that the server does not respond: what waits for it now is void.
    pub(in crate::store) fn record_outage(&self) {
        self.last_outage.store(microseconds(Instant::now()), Ordering::Relaxed);
    }

    /// Records that a write got no response in time, or that commits do not wait.
    pub(in crate::store) fn set_commits_may_wait(&self, may_wait: bool) {
        self.commits_may_wait.store(may_wait, Ordering::Relaxed);
    }

    /// Returns whether a write got no response in time.
    pub(in crate::store) fn commits_may_wait(&self) -> bool {
        self.commits_may_wait.load(Ordering::Relaxed)
    }

    /// Returns whether a connection of this age was opened before the server was last away.
    pub(super) fn created_before_outage(&self, age: Duration) -> bool {
        self.was_away_after(Instant::now().checked_sub(age).unwrap_or(*BEGIN))
    }

    /// Returns whether the server was found to be away after `time`.
    fn was_away_after(&self, time: Instant) -> bool {
        microseconds(time) < self.last_outage.load(Ordering::Relaxed)
    }
}

fn microseconds(time: Instant) -> u64 {
    u64::try_from(time.saturating_duration_since(*BEGIN).as_micros()).unwrap_or(u64::MAX)
}

/// When a wait for a server ends without a response.
#[derive(Debug, Clone)]
pub(super) struct WaitLimit {
    server_state: ServerState,
    /// Outages after this time end the wait.
    since: Instant,
    silence_max: Option<Duration>,
}

impl WaitLimit {
    /// Creates the limit of what begins now. Without `silence_max` only an outage ends it.
    pub(super) fn new(server_state: &ServerState, silence_max: Option<Duration>) -> Self {
        Self { server_state: server_state.clone(), since: Instant::now(), silence_max }
    }

    /// Returns the response of the server, or an error when a limit has passed.
    pub(super) async fn response<T>(
        &self,
        response: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let began = Instant::now();
        let limit = async {
            while !self.has_passed(began) {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            response = response => response,
            () = limit => Err(no_response()),
        }
    }

    fn has_passed(&self, began: Instant) -> bool {
        self.server_state.was_away_after(self.since) || self.silence_max.is_some_and(|max| began.elapsed() >= max)
    }
}

fn no_response() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not respond"))
}

/// Why the outcome of a write is unknown. It is the inner error of an [`sqlx::Error::Io`].
#[derive(Debug, thiserror::Error)]
#[error("the result of a write did not arrive: {0}")]
pub(in crate::store) struct OutcomeUnknown(String);

/// Returns whether the connection was lost during a statement. A pooler reports that with an error of its own.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("08")),
        _ => false,
    }
}

/// A connection with limits. It executes statements like the driver's connection.
#[derive(Debug)]
pub(in crate::store) struct Session {
    connection: Raw,
    limit: WaitLimit,
    /// Whether the statements write. If their results do not arrive, the error says that their outcome is unknown.
    writes: bool,
    /// A statement has begun, and its result was not read to the end.
    is_busy: bool,
    is_void: bool,
}

/// A connection of the driver.
#[derive(Debug)]
enum Raw {
    Own(PgConnection),
    Pooled(PoolConnection<Postgres>),
}

impl Raw {
    fn get(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(connection) => connection,
            Self::Pooled(connection) => connection,
        }
    }
}

impl Session {
    /// Wraps a connection that is not pooled. Its statements may take long: only an outage ends them.
    pub(super) fn own(connection: PgConnection, server_state: &ServerState) -> Self {
        Self {
            connection: Raw::Own(connection),
            limit: WaitLimit::new(server_state, None),
            writes: false,
            is_busy: false,
            is_void: false,
        }
    }

    /// Wraps a connection of a pool, which has acquired it now.
    pub(super) fn pooled(connection: PoolConnection<Postgres>, server_state: &ServerState) -> Self {
        let limit = WaitLimit::new(server_state, Some(SILENCE_MAX));
        Self { connection: Raw::Pooled(connection), limit, writes: false, is_busy: false, is_void: false }
    }

    /// Returns whether the connection can be used for another statement.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_void && !self.limit.server_state.was_away_after(self.limit.since)
    }

    /// Returns a pooled connection to its pool, which reads the rest of a result first. The connection is closed instead if
    /// a limit has ended a statement, or if the server does not respond in time. So is that of a write that its client no
    /// longer waits for: its commit may take long.
    pub(super) fn release(self) {
        let Raw::Pooled(mut connection) = self.connection else { return };
        if self.is_busy && self.writes {
            self.limit.server_state.set_commits_may_wait(true);
        }
        if self.is_void || self.is_busy && self.writes {
            connection.close_on_drop();
            return;
        }
        let limit = WaitLimit::new(&self.limit.server_state, Some(SILENCE_MAX));
        let returned = connection.return_to_pool();
        tokio::spawn(async move {
            // Dropping the unfinished return closes the connection.
            drop(limit.response(returned.map(Ok)).await);
        });
    }

    /// Declares that the following statements write.
    pub(in crate::store) fn begin_writing(&mut self) {
        self.writes = true;
        self.limit.silence_max = Some(WRITE_MAX);
    }

    /// Ends a transaction that `BEGIN` has begun, with a commit if its result is no error.
    pub(in crate::store) async fn end_transaction<T, E: From<sqlx::Error>>(
        &mut self,
        result: Result<T, E>,
    ) -> Result<T, E> {
        match result {
            Ok(value) => {
                self.execute("COMMIT").await?;
                Ok(value)
            }
            Err(error) => {
                // Without a response, the end of the connection rolls back.
                drop(self.execute("ROLLBACK").await);
                Err(error)
            }
        }
    }

    /// Waits for a response of the server.
    pub(in crate::store) async fn ping(&mut self) -> Result<(), sqlx::Error> {
        let ping = self.limit.response(self.connection.get().ping()).await;
        self.is_void |= ping.is_err();
        ping
    }

    /// Returns the driver's connection, whose statements have no limits.
    pub(in crate::store) fn driver(&mut self) -> &mut PgConnection {
        self.connection.get()
    }

    /// Ends the session.
    pub(in crate::store) async fn close(self) -> Result<(), sqlx::Error> {
        match self.connection {
            Raw::Own(connection) => connection.close().await,
            Raw::Pooled(connection) => connection.close().await,
        }
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Session { connection, limit, writes, is_busy, is_void } = self;
        if *is_void {
            return Box::pin(stream::once(ready(Err(no_response()))));
        }
        let writes = *writes;
        *is_busy = true;
        let rows = connection.get().fetch_many(query);
        Box::pin(LimitedRows { rows, limit, writes, waiting_since: None, sleep: None, is_busy, is_void })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let mut steps = self.fetch_many(query);
        Box::pin(async move {
            let mut first = None;
            // To the end, so that the session is ready for the next statement.
            while let Some(step) = steps.try_next().await? {
                first = first.or(step.right());
            }
            Ok(first)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        let Session { connection, limit, is_void, .. } = self;
        Box::pin(async move {
            let prepared = limit.response(connection.get().prepare_with(sql, parameters)).await;
            *is_void |= prepared.is_err();
            prepared
        })
    }
}

/// The rows of a statement, until the server does not respond.
struct LimitedRows<'e> {
    rows: BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>,
    limit: &'e WaitLimit,
    writes: bool,
    /// Since when no row is there.
    waiting_since: Option<Instant>,
    /// Until the next look at the limit, while no row is there.
    sleep: Option<Pin<Box<Sleep>>>,
    is_busy: &'e mut bool,
    is_void: &'e mut bool,
}

impl LimitedRows<'_> {
    /// Returns the error of the statement.
    fn failed(&self, error: sqlx::Error) -> sqlx::Error {
        match error {
            error if self.writes && is_lost(&error) => {
                sqlx::Error::Io(std::io::Error::other(OutcomeUnknown(error.to_string())))
            }
            error => error,
        }
    }
}

impl Stream for LimitedRows<'_> {
    type Item = Result<Either<PgQueryResult, PgRow>, sqlx::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(row) = self.rows.poll_next_unpin(context) {
            self.waiting_since = None;
            // An error of the server ends the statement, too.
            if matches!(row, None | Some(Err(_))) {
                *self.is_busy = false;
            }
            return Poll::Ready(row.map(|row| row.map_err(|error| self.failed(error))));
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        loop {
            if self.limit.has_passed(since) {
                *self.is_void = true;
                if self.writes {
                    self.limit.server_state.set_commits_may_wait(true);
                }
                return Poll::Ready(Some(Err(self.failed(no_response()))));
            }
            let look = self.sleep.get_or_insert_with(|| Box::pin(sleep(LOOK_EVERY)));
            task::ready!(look.poll_unpin(context));
            self.sleep = None;
        }
    }
}
