//! The primary: the database that accepts writes.
//!
//! Every method that writes belongs to [`Primary`], so a write on a read replica does not compile. All reads of
//! [`Reader`] are available, too.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::connection::config::DatabaseConfig;
use crate::store::error::{DatabaseError, StoreError};
use crate::store::reader::{Reader, ServerKind};

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
        let reader = Reader::connect(config, clock, metrics, ServerKind::Primary, Arc::default()).await?;
        Ok(Arc::new(Self { reader: Arc::new(reader), committed: Notify::new() }))
    }

    /// Returns the reads of the primary, for code that also accepts a read replica.
    pub fn reader(&self) -> Arc<Reader> {
        self.reader.clone()
    }

    /// Returns an error unless PostgreSQL responds and accepts writes.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let mut connection = self.acquire().await?;
        let read_only: bool = sqlx::query_scalar("SELECT current_setting('transaction_read_only')::boolean")
            .fetch_one(&mut *connection)
            .await?;
        if read_only { Err(DatabaseError::ReadOnly.into()) } else { Ok(()) }
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
