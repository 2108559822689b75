//! The connection over which the tailer follows the log while the process runs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::event::StoredEvent;
use crate::store::connection::session::Session;
use crate::store::error::StoreError;
use crate::store::log::head::LogHead;
use crate::store::log::scan::LogScan;
use crate::store::reader::Reader;

/// The longest time of a read. After it, the connection is closed, because PostgreSQL may never respond over it again.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that follows the log.
pub struct Follower {
    reader: Arc<Reader>,
    connection: Session,
}

impl Follower {
    /// Connects to the primary.
    pub async fn connect(reader: Arc<Reader>) -> Result<Self, StoreError> {
        let connection = reader.connector.tailer(reader.role).await?;
        Ok(Self { reader, connection })
    }

    /// Returns the head of the log.
    pub async fn head(&mut self) -> Result<LogHead, StoreError> {
        let read = self.reader.catalogue_and_head(&mut self.connection);
        let read = tokio::time::timeout(STATEMENT_TIMEOUT, read).await;
        let read = read.unwrap_or_else(|_| Err(StoreError::timed_out("reading the head of the log")));
        Ok(read.inspect_err(|error| self.reader.note_outage(error))?.1)
    }

    /// Delivers the next events, up to the head; see [`Reader::read_log`].
    pub async fn read(
        &mut self,
        scan: &mut LogScan,
        deliver: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<LogHead, StoreError> {
        let read = self.reader.read_log_over(&mut self.connection, scan, deliver);
        let read = tokio::time::timeout(STATEMENT_TIMEOUT, read).await;
        let read = read.unwrap_or_else(|_| Err(StoreError::timed_out("following the log")));
        read.inspect_err(|error| self.reader.note_outage(error))
    }
}
