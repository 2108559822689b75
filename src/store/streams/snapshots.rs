//! Stored snapshots: the state of an aggregate at a version.

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::erasure::ErasureNo;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::jsonb::JsonbText;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const PUT_SNAPSHOT: &str = include_str!("../sql/put_snapshot.sql");
const SNAPSHOT: &str = include_str!("../sql/snapshot.sql");
const DELETE_SNAPSHOT: &str = include_str!("../sql/delete_snapshot.sql");

/// The state of an aggregate at a version.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub version: Version,
    pub revision: Option<String>,
    /// JSON, as PostgreSQL prints it.
    pub state: String,
    pub created_at: DateTime<Utc>,
}

/// A snapshot to store.
#[derive(Debug, Clone, Copy)]
pub struct NewSnapshot<'s> {
    pub version: Version,
    /// JSON.
    pub state: &'s str,
    pub revision: Option<&'s str>,
    /// The time of the event with this version.
    pub occurred_at: DateTime<Utc>,
    /// The revision of the reducer that computed the state, which must still be the reducer of the type. `None`: a
    /// client computed the state, and the type must have no reducer.
    pub reducer: Option<i64>,
    /// The last erasure in the stream when the computation of the reducer began; `None` if there was none.
    pub erasure: Option<ErasureNo>,
}

/// The result of storing a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct PutSnapshotResult {
    /// Whether the aggregate had no snapshot before.
    pub created: bool,
    pub created_at: DateTime<Utc>,
}

impl Snapshot {
    /// Decodes the snapshot columns of a row.
    pub(super) fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            version: row.try_get("snapshot_version")?,
            revision: row.try_get("snapshot_revision")?,
            state: row.try_get::<JsonbText<'_>, _>("snapshot_state")?.0.to_owned(),
            created_at: row.try_get("snapshot_created_at")?,
        })
    }
}

impl Reader {
    /// Returns the stored snapshot, usable or not.
    pub async fn snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        let row = sqlx::query(SNAPSHOT)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        Ok(row.map(|row| Snapshot::from_row(&row)).transpose()?)
    }
}

impl Primary {
    /// Stores a snapshot. Returns `None` if a later one of the same revision is stored, if the reducer of the type is not
    /// the expected one, or if events of the stream were erased since the state was computed.
    pub async fn put_snapshot(
        &self,
        stream: &StreamId,
        new: NewSnapshot<'_>,
    ) -> Result<Option<PutSnapshotResult>, StoreError> {
        let row: Option<(bool, DateTime<Utc>)> = sqlx::query_as(PUT_SNAPSHOT)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(new.version)
            .bind(JsonbText(new.state))
            .bind(new.revision)
            .bind(new.occurred_at)
            .bind(new.reducer)
            .bind(new.erasure)
            .fetch_optional(&mut *self.acquire_to_write().await?)
            .await?;
        Ok(row.map(|(created, created_at)| PutSnapshotResult { created, created_at }))
    }

    /// Deletes a snapshot. Returns whether it existed.
    pub async fn delete_snapshot(&self, stream: &StreamId) -> Result<bool, StoreError> {
        let deleted = sqlx::query(DELETE_SNAPSHOT)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .execute(&mut *self.acquire_to_write().await?)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }
}
