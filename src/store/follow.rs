//! The connection of the tailer, which follows the log for as long as the process runs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnection;

use super::connect::timed_out;
use super::error::StoreError;
use super::log::{LogHead, LogScan};
use super::{Store, StoredEvent};
use crate::domain::event::Position;

/// A look that takes longer is given up with its connection: it may be one that leads nowhere any more.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Follower {
    store: Arc<Store>,
    connection: PgConnection,
}

impl Follower {
    pub async fn connect(store: Arc<Store>) -> Result<Self, StoreError> {
        let connection = store.connector.tailer(store.role).await?;
        Ok(Self { store, connection })
    }

    /// Where the log stands.
    pub async fn head(&mut self) -> Result<LogHead, StoreError> {
        let current = tokio::time::timeout(LOOK_TIMEOUT, self.store.current(&mut self.connection)).await;
        let current = current.unwrap_or_else(|_| Err(timed_out("looking for the head took too long").into()));
        Ok(current?.1)
    }

    /// Reads on, up to the head; see [`Store::read_log`].
    pub async fn read(
        &mut self,
        scan: &mut LogScan,
        take: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<LogHead, StoreError> {
        let read = self.store.read_log_over(&mut self.connection, scan, Position::MAX, usize::MAX, take);
        tokio::time::timeout(LOOK_TIMEOUT, read)
            .await
            .unwrap_or_else(|_| Err(timed_out("following the log took too long").into()))
    }
}
