//! Import: events that happened elsewhere, before, enter through the same procedure as any append.
//!
//! Their times may be kept, which is why an import has a connection of its own: no service may set the time of an event.

use chrono::{DateTime, Utc};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::batch::Batch;
use super::connect::Connector;
use super::{BEGINNING_OF_TIME, months};
use crate::config::DatabaseConfig;
use crate::domain::append::{AppendRequest, Outcome};
use crate::domain::version::Version;

const KNOWN_EVENT_IDS: &str = include_str!("sql/known_event_ids.sql");
const STREAM_HEAD: &str = include_str!("sql/stream_head.sql");

/// A connection that imports.
pub struct Importer {
    connection: PgConnection,
}

impl Importer {
    pub async fn open(config: &DatabaseConfig) -> Result<Self, sqlx::Error> {
        let connection = Connector::new(config).writer(None).await?;
        Ok(Self { connection })
    }

    /// When the last event of the log occurred; `None` while it is empty.
    pub async fn last_occurred_at(&mut self) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
        months::create_missing(&mut self.connection, None).await?;
        let open_from = months::open_from(&mut self.connection).await?;
        Ok(months::head(&mut self.connection, open_from).await?.map(|head| head.occurred_at))
    }

    /// Which of these events the log has already.
    pub async fn known(&mut self, event_ids: &[Uuid]) -> Result<Vec<bool>, sqlx::Error> {
        sqlx::query_scalar(KNOWN_EVENT_IDS).bind(event_ids).fetch_one(&mut self.connection).await
    }

    /// Version of a stream; 0 if it does not exist.
    pub async fn stream_version(&mut self, aggregate_type: &str, aggregate_id: &str) -> Result<Version, sqlx::Error> {
        let head: Option<(Version, DateTime<Utc>, DateTime<Utc>)> = sqlx::query_as(STREAM_HEAD)
            .bind(aggregate_type)
            .bind(aggregate_id)
            .bind(BEGINNING_OF_TIME)
            .fetch_optional(&mut self.connection)
            .await?;
        Ok(head.map_or(0, |(version, ..)| version))
    }

    /// Makes the months that events between these times need.
    pub async fn create_months(&mut self, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<(), sqlx::Error> {
        months::create_between(&mut self.connection, from, to).await
    }

    /// Writes events in order, each with the time that it is given; without times they occur now.
    pub async fn write(
        &mut self,
        requests: &[AppendRequest],
        times: Option<Vec<DateTime<Utc>>>,
    ) -> Result<Vec<Outcome>, sqlx::Error> {
        let batch = Batch::new(requests);
        let batch = if let Some(times) = times { batch.with_times(times) } else { batch };
        Ok(batch.call(&mut self.connection, 0, None).await?.outcomes)
    }

    /// Rolls up the months that the import left behind.
    pub async fn finish(mut self) -> Result<(), sqlx::Error> {
        months::roll_up(&mut self.connection).await?;
        self.connection.close().await
    }
}
