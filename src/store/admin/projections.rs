//! Projection positions: the checkpoints of readers of the log, moved by compare-and-set.
//!
//! The log does not wait for projections. A projection stores its position here to resume after a restart, and so that
//! other clients can wait for it.

use chrono::{DateTime, Utc};

use crate::domain::event::Position;
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const SET_PROJECTION: &str = include_str!("../sql/set_projection.sql");
const PROJECTIONS: &str = include_str!("../sql/projections.sql");
const DELETE_PROJECTION: &str = include_str!("../sql/delete_projection.sql");

/// A projection and its position.
#[derive(Debug, Clone)]
pub struct Projection {
    pub projection_name: String,
    pub last_processed_position: Position,
    pub last_processed_at: DateTime<Utc>,
    /// The seconds since its first unprocessed event occurred; `None` if it has processed all events.
    pub waiting_seconds: Option<f64>,
}

impl Projection {
    /// Returns the number of events between its position and the head of the log.
    pub fn lag(&self, head: Position) -> Position {
        (head - self.last_processed_position).max(0)
    }
}

/// The position that a client expects a projection to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedPosition {
    Any,
    /// The projection is new.
    None,
    /// The projection exists.
    Exists,
    Exact(Position),
}

/// The result of setting a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetProjectionResult {
    Created,
    Updated,
    /// The projection has another position than expected (`None`: it does not exist).
    Conflict(Option<Position>),
    /// The new position is before the current one (the field), and a reset was not requested.
    Regressed(Position),
}

/// Whether a position may move backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    ForwardOnly,
    /// In both directions: a reset.
    Any,
}

impl Primary {
    /// Sets a position. The caller has checked that it is not beyond the head.
    pub async fn set_projection(
        &self,
        name: &str,
        position: Position,
        expected: ExpectedPosition,
        movement: Movement,
    ) -> Result<SetProjectionResult, StoreError> {
        let exact = if let ExpectedPosition::Exact(position) = expected { Some(position) } else { None };
        let created: Option<bool> = sqlx::query_scalar(SET_PROJECTION)
            .bind(name)
            .bind(position)
            .bind(exact)
            .bind(matches!(expected, ExpectedPosition::Any | ExpectedPosition::None))
            .bind(expected != ExpectedPosition::None)
            .bind(movement == Movement::Any)
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        match created {
            Some(true) => Ok(SetProjectionResult::Created),
            Some(false) => Ok(SetProjectionResult::Updated),
            None => {
                let current = self.projection(name).await?.map(|projection| projection.last_processed_position);
                Ok(match (current, expected) {
                    (Some(current), ExpectedPosition::Any | ExpectedPosition::Exists) => {
                        SetProjectionResult::Regressed(current)
                    }
                    (Some(current), ExpectedPosition::Exact(expected)) if current == expected => {
                        SetProjectionResult::Regressed(current)
                    }
                    (current, _) => SetProjectionResult::Conflict(current),
                })
            }
        }
    }

    /// Deletes a projection's position. Returns whether it existed.
    pub async fn delete_projection(&self, name: &str) -> Result<bool, StoreError> {
        let deleted = sqlx::query(DELETE_PROJECTION).bind(name).execute(&mut *self.acquire().await?).await?;
        Ok(deleted.rows_affected() > 0)
    }
}

impl Reader {
    /// Returns a projection; `None` if it does not exist.
    pub async fn projection(&self, name: &str) -> Result<Option<Projection>, StoreError> {
        Ok(self.read_projections(Some(name)).await?.into_iter().next())
    }

    /// Returns all projections, in byte order of their names.
    pub async fn projections(&self) -> Result<Vec<Projection>, StoreError> {
        self.read_projections(None).await
    }

    async fn read_projections(&self, name: Option<&str>) -> Result<Vec<Projection>, StoreError> {
        let rows: Vec<(String, Position, DateTime<Utc>, Option<f64>)> = sqlx::query_as(PROJECTIONS)
            .bind(name)
            .bind(self.open_from())
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(projection_name, last_processed_position, last_processed_at, waiting_seconds)| Projection {
                projection_name,
                last_processed_position,
                last_processed_at,
                waiting_seconds,
            })
            .collect())
    }
}
