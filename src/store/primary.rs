//! The primary: the database that accepts writes.
//!
//! Every method that writes belongs to [`Primary`], so a write on a read replica does not compile. All reads of
//! [`Reader`] are available, too.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Executor, Row};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::connection::config::DatabaseConfig;
use crate::store::connection::connector::is_read_only;
use crate::store::connection::read_pool::ReadConnection;
use crate::store::connection::session::Session;
use crate::store::error::{DatabaseError, StoreError};
use crate::store::reader::{Reader, ServerKind};

const LONGEST_WAIT: &str = include_str!("sql/longest_wait.sql");
const WAITING_COMMITS: &str = include_str!("sql/waiting_commits.sql");

/// Reads and writes of the primary.
pub struct Primary {
    reader: Arc<Reader>,
    /// Notified when this process has committed appends.
    committed: Notify,
}

impl Deref for Primary {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Primary {
    /// Connects to a database whose schema is up to date.
    pub async fn connect(
        config: &DatabaseConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StoreError> {
        let reader = Reader::connect(config, clock, metrics, ServerKind::Primary, Default::default()).await?;
        Ok(Arc::new(Self { reader: Arc::new(reader), committed: Notify::new() }))
    }

    /// Returns the reads of the primary, for code that also accepts a read replica.
    pub fn reader(&self) -> Arc<Reader> {
        self.reader.clone()
    }

    /// Returns an error unless PostgreSQL responds and accepts writes.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let mut connection = self.acquire().await?;
        if is_read_only(&mut *connection).await? { Err(DatabaseError::ReadOnly.into()) } else { Ok(()) }
    }

    /// Acquires a pooled connection for one statement that writes. It has a limit of time, after which the outcome is
    /// unknown.
    pub(super) async fn acquire_to_write(&self) -> Result<ReadConnection<'_>, StoreError> {
        let mut connection = self.acquire().await?;
        self.check_commits(&mut connection).await?;
        connection.begin_writing();
        Ok(connection)
    }

    /// Returns an error if a write got no response in time, and commits still wait for a synchronous standby.
    pub(super) async fn check_commits(&self, connection: &mut Session) -> Result<(), DatabaseError> {
        if !self.connector.server_state.commits_may_wait() {
            return Ok(());
        }
        match connection.fetch_optional(WAITING_COMMITS).await? {
            Some(row) => Err(DatabaseError::CommitsWait(row.try_get(0)?)),
            None => {
                self.connector.server_state.set_commits_may_wait(false);
                Ok(())
            }
        }
    }

    /// Records that a write got no response in time, or could not begin in time. Returns an error if commits wait for a
    /// synchronous standby.
    pub(super) async fn explain_slow_commits(&self) -> Result<(), StoreError> {
        const EXPLAIN_MAX: Duration = Duration::from_secs(1);
        self.connector.server_state.set_commits_may_wait(true);
        let check = async { Ok(self.check_commits(&mut *self.acquire().await?).await?) };
        tokio::time::timeout(EXPLAIN_MAX, check).await.unwrap_or(Ok(()))
    }

    /// Describes the wait of the session that has waited longest; `None` if none waits for a lock or a standby.
    pub async fn longest_wait(&self) -> Result<Option<String>, StoreError> {
        let row = (&mut *self.acquire().await?).fetch_optional(LONGEST_WAIT).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Returns whether the log of another database is moving to this one, which is not complete.
    pub async fn is_target_of_move(&self) -> Result<bool, StoreError> {
        const IS_TARGET: &str = "SELECT EXISTS (SELECT FROM log_moves WHERE side = 'target')";
        Ok(sqlx::query_scalar(IS_TARGET).fetch_one(&mut *self.acquire().await?).await?)
    }

    /// Waits until this process has committed an append since the last call. There is one waiter: the tailer.
    pub async fn wait_for_commit(&self) {
        self.committed.notified().await;
    }

    /// Wakes the tailer after a commit.
    pub(super) fn notify_commit(&self) {
        self.committed.notify_one();
    }
}
