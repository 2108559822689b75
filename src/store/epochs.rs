//! Epochs of the log: which there are, and how a new one begins. migrations/0005_epochs.sql says when.

use chrono::{DateTime, Utc};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::Store;
use super::error::StoreError;
use crate::domain::cursor::{Cursor, Epoch};
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
        let epoch = sqlx::query_scalar("SELECT begin_epoch($1)").bind(reason).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(epoch)
    }

    /// Whether a cursor leads on from where it stands; if an epoch that began since has changed what was before it, the
    /// position up to which nothing has changed.
    pub async fn rewind_to(&self, cursor: Cursor) -> Result<Option<Position>, StoreError> {
        let Some(epoch) = cursor.epoch else { return Ok(None) };
        let kept: Option<Position> =
            sqlx::query_scalar(REWIND_TO).bind(epoch).fetch_one(&mut *self.acquire().await?).await?;
        Ok(kept.filter(|kept| *kept < cursor.position))
    }
}

/// Begins an epoch if the log has moved to another timeline or cluster. Every connection that appends does this first.
pub(super) async fn keep(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let began: bool = sqlx::query_scalar("SELECT keep_epoch()").fetch_one(connection).await?;
    if began {
        tracing::warn!("the log has moved to another timeline or cluster: a new epoch begins");
    }
    Ok(())
}
