//! Heads of streams, and the streams of a type. `migrations/functions/stream_head.sql` says how a head is found.

use chrono::{DateTime, Utc};

use crate::domain::name::StreamId;
use crate::domain::name_range::NameRange;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::reader::Reader;

const STREAM_HEAD: &str = include_str!("../sql/stream_head.sql");
const STREAM_VERSIONS: &str = include_str!("../sql/stream_versions.sql");
const STREAMS_OF_TYPE: &str = include_str!("../sql/streams_of_type.sql");

/// The head of a stream. Its times bound the partitions that contain the stream's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    /// The version of the last event, at least 1.
    pub version: Version,
    pub first_occurred_at: DateTime<Utc>,
    pub last_occurred_at: DateTime<Utc>,
}

/// A stream in a listing.
#[derive(Debug, Clone)]
pub struct ListedStream {
    pub aggregate_id: String,
    pub head: StreamHead,
}

impl Reader {
    /// Returns the head of a stream; `None` if the stream does not exist.
    pub async fn stream_head(&self, stream: &StreamId) -> Result<Option<StreamHead>, StoreError> {
        let mut connection = self.acquire().await?;
        // fetch_all reads the result to its end, which fetch_optional does not: then the connection can be handed off.
        let rows: Vec<(Version, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(STREAM_HEAD)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(self.open_from())
            .fetch_all(&mut *connection)
            .await?;
        connection.hand_off();
        Ok(rows.first().copied().map(|(version, first_occurred_at, last_occurred_at)| StreamHead {
            version,
            first_occurred_at,
            last_occurred_at,
        }))
    }

    /// Returns the versions of some streams, in the order of their names; 0 for a stream that does not exist.
    pub async fn stream_versions(
        &self,
        aggregate_types: &[String],
        aggregate_ids: &[String],
    ) -> Result<Vec<Version>, StoreError> {
        let versions = sqlx::query_scalar(STREAM_VERSIONS)
            .bind(aggregate_types)
            .bind(aggregate_ids)
            .bind(self.open_from())
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(versions)
    }

    /// Lists the streams of a type after `after` whose ids are in a range, at most `limit`, in byte order of their ids.
    pub async fn list_streams(
        &self,
        aggregate_type: &str,
        ids: &NameRange,
        after: &str,
        limit: usize,
    ) -> Result<Vec<ListedStream>, StoreError> {
        let rows: Vec<(String, Version, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(STREAMS_OF_TYPE)
            .bind(aggregate_type)
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .bind(self.open_from())
            .bind(&ids.from)
            .bind(&ids.end)
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(aggregate_id, version, first_occurred_at, last_occurred_at)| ListedStream {
                aggregate_id,
                head: StreamHead { version, first_occurred_at, last_occurred_at },
            })
            .collect())
    }
}
