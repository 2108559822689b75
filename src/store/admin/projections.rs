//! Projection positions: the checkpoints of readers of the log, moved by compare-and-set.
//!
//! The log does not wait for projections. A projection stores its position here to resume after a restart, and so that
//! other clients can wait for it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::domain::event::Position;
use crate::store::error::{DatabaseError, StoreError};
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const SET_PROJECTION: &str = include_str!("../sql/set_projection.sql");
const STALE_PROJECTIONS: &str = include_str!("../sql/stale_projections.sql");
const PROJECTION_POSITIONS: &str = include_str!("../sql/projection_positions.sql");
const ALL_PROJECTION_POSITIONS: &str = include_str!("../sql/all_projection_positions.sql");
const PROJECTIONS: &str = include_str!("../sql/projections.sql");
const DELETE_PROJECTION: &str = include_str!("../sql/delete_projection.sql");

/// The largest number of projections, and of those that one key has created.
pub const PROJECTIONS_MAX: i64 = 10_000;
pub const PROJECTIONS_OF_KEY_MAX: i64 = 1_000;

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

/// A projection that holds back the archive.
#[derive(Debug, Clone)]
pub struct StaleProjection {
    pub projection_name: String,
    pub last_processed_position: Position,
    pub last_processed_at: DateTime<Utc>,
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

/// A new position of a projection. The caller has checked that it is not beyond the head.
#[derive(Debug, Clone, Copy)]
pub struct NewPosition<'p> {
    pub projection_name: &'p str,
    pub position: Position,
    pub expected: ExpectedPosition,
    pub movement: Movement,
    /// The API key of the client; `None` if keys are not required.
    pub key_id: Option<&'p str>,
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
    /// A group moves the projection.
    MovedByGroup,
    /// The store has [`PROJECTIONS_MAX`] projections.
    TooMany,
    /// The key has created [`PROJECTIONS_OF_KEY_MAX`] of them.
    TooManyOfKey,
}

/// Whether a position may move backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    ForwardOnly,
    /// In both directions: a reset.
    Any,
}

impl Primary {
    /// Sets a position.
    pub async fn set_projection(&self, new: NewPosition<'_>) -> Result<SetProjectionResult, StoreError> {
        let NewPosition { projection_name, position, expected, movement, key_id } = new;
        let exact = if let ExpectedPosition::Exact(position) = expected { Some(position) } else { None };
        let (outcome, current): (String, Option<Position>) = sqlx::query_as(SET_PROJECTION)
            .bind(projection_name)
            .bind(position)
            .bind(exact)
            .bind(matches!(expected, ExpectedPosition::Any | ExpectedPosition::None))
            .bind(expected != ExpectedPosition::None)
            .bind(movement == Movement::Any)
            .bind(key_id)
            .bind(PROJECTIONS_MAX)
            .bind(PROJECTIONS_OF_KEY_MAX)
            .fetch_one(&mut *self.acquire_to_write().await?)
            .await?;
        match (outcome.as_str(), current) {
            ("created", _) => Ok(SetProjectionResult::Created),
            ("updated", _) => Ok(SetProjectionResult::Updated),
            ("conflict", current) => Ok(SetProjectionResult::Conflict(current)),
            ("regressed", Some(current)) => Ok(SetProjectionResult::Regressed(current)),
            ("group", _) => Ok(SetProjectionResult::MovedByGroup),
            ("limit", _) => Ok(SetProjectionResult::TooMany),
            ("key_limit", _) => Ok(SetProjectionResult::TooManyOfKey),
            (outcome, _) => Err(DatabaseError::UnexpectedResult(format!("set_projection returned {outcome:?}")).into()),
        }
    }

    /// Deletes a projection's position. Returns whether it existed.
    pub async fn delete_projection(&self, name: &str) -> Result<bool, StoreError> {
        let deleted = sqlx::query(DELETE_PROJECTION).bind(name).execute(&mut *self.acquire_to_write().await?).await?;
        Ok(deleted.rows_affected() > 0)
    }
}

impl Reader {
    /// Returns a projection; `None` if it does not exist.
    pub async fn projection(&self, name: &str) -> Result<Option<Projection>, StoreError> {
        Ok(self.read_projections(Some(name)).await?.into_iter().next())
    }

    /// Returns the positions of some projections. One that does not exist is absent.
    pub async fn projection_positions(&self, names: &[String]) -> Result<HashMap<String, Position>, StoreError> {
        let positions: Vec<(String, Position)> =
            sqlx::query_as(PROJECTION_POSITIONS).bind(names).fetch_all(&mut *self.acquire().await?).await?;
        Ok(positions.into_iter().collect())
    }

    /// Returns the positions of all projections, in byte order of their names.
    pub async fn all_projection_positions(&self) -> Result<Vec<(String, Position)>, StoreError> {
        let positions = sqlx::query_as(ALL_PROJECTION_POSITIONS)
            .bind(PROJECTIONS_MAX)
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(positions)
    }

    /// Returns all projections, in byte order of their names.
    pub async fn projections(&self) -> Result<Vec<Projection>, StoreError> {
        self.read_projections(None).await
    }

    /// Returns the projections that have not passed the events of the months that ended before a time, at most `limit`,
    /// the least advanced first.
    pub async fn stale_projections(
        &self,
        before: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<StaleProjection>, StoreError> {
        let rows: Vec<(String, Position, DateTime<Utc>)> =
            sqlx::query_as(STALE_PROJECTIONS).bind(before).bind(limit).fetch_all(&mut *self.acquire().await?).await?;
        let stale = |(projection_name, last_processed_position, last_processed_at)| StaleProjection {
            projection_name,
            last_processed_position,
            last_processed_at,
        };
        Ok(rows.into_iter().map(stale).collect())
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
