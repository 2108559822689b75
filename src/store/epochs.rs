//! Epochs of the log: which there are, and how a new one begins. migrations/0005_epochs.sql says when.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use super::Store;
use super::error::StoreError;
use crate::domain::cursor::Epoch;
use crate::domain::event::Position;

const EPOCHS: &str = include_str!("sql/epochs.sql");
const REWIND_TO: &str = include_str!("sql/rewind_to.sql");

/// A stretch of the log in which a position means one event.
#[derive(Debug, Clone)]
pub struct EpochBegin {
    pub epoch: Epoch,
    /// Positions before this one are the same as in the epoch before.
    pub first_position: Position,
    pub began_at: DateTime<Utc>,
    pub reason: String,
}

impl Store {
    /// All epochs, oldest first.
    pub async fn epochs(&self) -> Result<Vec<EpochBegin>, StoreError> {
        let rows: Vec<(Epoch, Position, DateTime<Utc>, String)> =
            sqlx::query_as(EPOCHS).fetch_all(&mut *self.acquire().await?).await?;
        let begin = |(epoch, first_position, began_at, reason)| EpochBegin { epoch, first_position, began_at, reason };
        Ok(rows.into_iter().map(begin).collect())
    }

    /// Begins an epoch after the last event, as the owner of the tables.
    pub async fn begin_epoch(&self, reason: &str) -> Result<Epoch, StoreError> {
        let mut connection = self.connector.owner().await?;
        // Appends wait behind it.
        connection.execute("SET lock_timeout = '10s'").await?;
        let epoch = sqlx::query_scalar("SELECT begin_epoch($1)").bind(reason).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(epoch)
    }
}

/// The last position that is the same in an epoch and in all that followed it; `None` if none did.
pub(super) async fn kept(connection: &mut PgConnection, epoch: Epoch) -> Result<Option<Position>, sqlx::Error> {
    sqlx::query_scalar(REWIND_TO).bind(epoch).fetch_one(connection).await
}

/// Begins an epoch if the log has moved to another timeline, cluster or table. Every connection that appends does this
/// first.
pub(super) async fn keep(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let began: bool = sqlx::query_scalar("SELECT keep_epoch()").fetch_one(connection).await?;
    if began {
        tracing::warn!("the log has moved to another timeline, cluster or table: a new epoch begins");
    }
    Ok(())
}

/// Whether PostgreSQL tells where the log is, as the owner of the tables may ask. If not, no epoch begins by itself.
pub(super) async fn is_told(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT log_origin() IS NOT NULL").fetch_one(connection).await
}
