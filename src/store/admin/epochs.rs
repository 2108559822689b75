//! The list of epochs, and the command that begins one.

use chrono::{DateTime, Utc};
use sqlx::Executor;

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const EPOCHS: &str = include_str!("../sql/epochs.sql");

/// An epoch, within which a position identifies one event.
#[derive(Debug, Clone)]
pub struct EpochStart {
    pub epoch: Epoch,
    /// Positions before this one are the same as in the epoch before.
    pub first_position: Position,
    pub began_at: DateTime<Utc>,
    pub reason: String,
}

impl Reader {
    /// Returns all epochs, oldest first.
    pub async fn epochs(&self) -> Result<Vec<EpochStart>, StoreError> {
        let rows: Vec<(Epoch, Position, DateTime<Utc>, String)> =
            sqlx::query_as(EPOCHS).fetch_all(&mut *self.acquire().await?).await?;
        let start = |(epoch, first_position, began_at, reason)| EpochStart { epoch, first_position, began_at, reason };
        Ok(rows.into_iter().map(start).collect())
    }
}

impl Primary {
    /// Begins an epoch after the end of the log, as the owner of the tables.
    pub async fn begin_epoch(&self, reason: &str) -> Result<Epoch, StoreError> {
        let mut connection = self.connector.login().await?;
        // Appends wait behind this statement.
        connection.execute("SET lock_timeout = '10s'").await?;
        let epoch = sqlx::query_scalar("SELECT begin_epoch($1)").bind(reason).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(epoch)
    }
}
