//! Projection positions: how far each reader of the log has come, moved by compare-and-set.
//!
//! The log does not wait for projections; a position is a note that a projection keeps here, so that it knows where to go
//! on and others can wait for it.

use chrono::{DateTime, Utc};

use super::Store;
use super::error::StoreError;
use crate::domain::event::Position;

const SET_PROJECTION: &str = include_str!("sql/set_projection.sql");
const PROJECTIONS: &str = include_str!("sql/projections.sql");
const DELETE_PROJECTION: &str = include_str!("sql/delete_projection.sql");

/// How far a projection has come.
#[derive(Debug, Clone)]
pub struct Projection {
    pub projection_name: String,
    pub last_processed_position: Position,
    pub last_processed_at: DateTime<Utc>,
    /// How long its first unprocessed event has waited; `None` if there is none.
    pub waits_seconds: Option<f64>,
}

impl Projection {
    /// Events between it and the head of the log.
    pub fn lag(&self, head: Position) -> Position {
        (head - self.last_processed_position).max(0)
    }
}

/// What the mover of a position expects of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedPosition {
    Any,
    /// The projection is new.
    None,
    /// The projection exists.
    Exists,
    Exact(Position),
}

/// How moving a position ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    Created,
    Updated,
    /// What was expected is not so; the projection stands there (`None`: it does not exist).
    Conflict(Option<Position>),
    /// The new position is before this one, and no reset was asked for.
    Regressed(Position),
}

impl Store {
    /// Moves a position. The caller has made sure that it is not beyond the head.
    pub async fn set_projection(
        &self,
        name: &str,
        position: Position,
        expected: ExpectedPosition,
        reset: bool,
    ) -> Result<Moved, StoreError> {
        let exact = if let ExpectedPosition::Exact(position) = expected { Some(position) } else { None };
        let created: Option<bool> = sqlx::query_scalar(SET_PROJECTION)
            .bind(name)
            .bind(position)
            .bind(exact)
            .bind(matches!(expected, ExpectedPosition::Any | ExpectedPosition::None))
            .bind(expected != ExpectedPosition::None)
            .bind(reset)
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        match created {
            Some(true) => Ok(Moved::Created),
            Some(false) => Ok(Moved::Updated),
            None => {
                let current = self.projection(name).await?.map(|projection| projection.last_processed_position);
                Ok(match (current, expected) {
                    (Some(current), ExpectedPosition::Any | ExpectedPosition::Exists) => Moved::Regressed(current),
                    (Some(current), ExpectedPosition::Exact(expected)) if current == expected => {
                        Moved::Regressed(current)
                    }
                    (current, _) => Moved::Conflict(current),
                })
            }
        }
    }

    pub async fn projection(&self, name: &str) -> Result<Option<Projection>, StoreError> {
        Ok(self.read_projections(Some(name)).await?.into_iter().next())
    }

    pub async fn projections(&self) -> Result<Vec<Projection>, StoreError> {
        self.read_projections(None).await
    }

    /// Forgets a projection; whether it existed.
    pub async fn delete_projection(&self, name: &str) -> Result<bool, StoreError> {
        let deleted = sqlx::query(DELETE_PROJECTION).bind(name).execute(&mut *self.acquire().await?).await?;
        Ok(deleted.rows_affected() > 0)
    }

    async fn read_projections(&self, name: Option<&str>) -> Result<Vec<Projection>, StoreError> {
        let rows: Vec<(String, Position, DateTime<Utc>, Option<f64>)> = sqlx::query_as(PROJECTIONS)
            .bind(name)
            .bind(self.catalogue().open_from)
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(projection_name, last_processed_position, last_processed_at, waits_seconds)| Projection {
                projection_name,
                last_processed_position,
                last_processed_at,
                waits_seconds,
            })
            .collect())
    }
}
