//! The import, which writes events that occurred elsewhere by the same procedure as any append.
//!
//! An import may set the times of its events. That is why it has a connection of its own: the writer of a service never
//! sets the time of an event.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::append::{AppendRequest, Outcome};
use crate::domain::derived_id::DerivedIds;
use crate::domain::erasure::Announcement;
use crate::domain::event::{BEGINNING_OF_TIME, Recorded};
use crate::domain::name::StreamId;
use crate::store::admin::secret::read_derived_ids;
use crate::store::append::batch::{AppendContext, Batch};
use crate::store::append::session::AppendSession;
use crate::store::connection::config::DatabaseConfig;
use crate::store::connection::connector::Connector;
use crate::store::error::{StoreError, has_sqlstate};
use crate::store::jsonb::JsonbText;
use crate::store::log::head::read_log_head;
use crate::store::partitions::catalogue::read_open_from;
use crate::store::partitions::maintenance::{create_missing_partitions, create_partitions, seal_partitions};

const KNOWN_EVENT_IDS: &str = include_str!("../sql/known_event_ids.sql");
const IMPORT_ERASURE: &str = include_str!("../sql/import_erasure.sql");
/// The SQLSTATE that `append_events` raises when a time goes backwards.
const TIME_GOES_BACKWARDS: &str = "AN001";

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// An event is older than the end of the log, because another client has appended in the meantime.
    #[error("an event is older than the end of the log")]
    TimeGoesBackwards,
    #[error(transparent)]
    Store(StoreError),
}

/// A connection that imports.
pub struct Importer {
    session: AppendSession,
}

/// A batch that is ready to be sent. It is prepared while PostgreSQL writes the previous batch.
pub struct ImportBatch(Batch);

impl ImportBatch {
    /// Prepares a batch of events in order, each with its time. Without times, the events occur when they are written.
    pub fn new(requests: &[AppendRequest], times: Option<Vec<DateTime<Utc>>>) -> Self {
        let context = AppendContext { ids_are_new: false, position_floor: 0, now: None, service_time: None };
        Self(Batch::new(requests, times, context))
    }
}

impl Importer {
    /// Connects as the owner of the tables.
    pub async fn connect(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let connection = Connector::new(config).writer(None).await?;
        Ok(Self { session: AppendSession::new(connection) })
    }

    /// Returns the derivation of the ids of events that have none.
    pub async fn derived_ids(&mut self) -> Result<DerivedIds, StoreError> {
        Ok(read_derived_ids(&mut self.session.connection).await?)
    }

    /// Returns the time of the last event of the log; `None` while the log is empty.
    pub async fn last_occurred_at(&mut self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let connection = &mut self.session.connection;
        create_missing_partitions(connection, None).await?;
        let open_from = read_open_from(connection).await?.unwrap_or(BEGINNING_OF_TIME);
        Ok(read_log_head(connection, open_from).await?.occurred_at)
    }

    /// Returns the time of each of these events, in order; `None` for an id that the log does not contain.
    pub async fn known_times(&mut self, event_ids: &[Uuid]) -> Result<Vec<Option<DateTime<Utc>>>, StoreError> {
        Ok(sqlx::query_scalar(KNOWN_EVENT_IDS).bind(event_ids).fetch_one(&mut self.session.connection).await?)
    }

    /// Creates the partitions that are missing. Each month is given by a time in it.
    pub async fn create_partitions(&mut self, months: &BTreeMap<String, DateTime<Utc>>) -> Result<(), StoreError> {
        for time in months.values() {
            create_partitions(&mut self.session.connection, *time, *time).await?;
        }
        Ok(())
    }

    /// Writes a batch in one commit. Returns the outcome of each request, in order.
    pub async fn write(&mut self, batch: ImportBatch) -> Result<Vec<Outcome>, ImportError> {
        match batch.0.write(&mut self.session).await {
            Ok(result) => Ok(result.outcomes),
            Err(error) if has_sqlstate(&error, TIME_GOES_BACKWARDS) => Err(ImportError::TimeGoesBackwards),
            Err(error) => Err(ImportError::Store(error.into())),
        }
    }

    /// Notes the events that an imported `$erased` event names as erased.
    pub async fn note_erasure(
        &mut self,
        stream: &StreamId,
        recorded: &Recorded,
        announcement: &Announcement,
    ) -> Result<(), StoreError> {
        let versions = serde_json::json!(announcement.versions).to_string();
        sqlx::query(IMPORT_ERASURE)
            .bind(announcement.erasure)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(JsonbText(&versions))
            .bind(&announcement.members)
            .bind(recorded.version)
            .bind(recorded.global_position)
            .execute(&mut self.session.connection)
            .await?;
        Ok(())
    }

    /// Seals the partitions that are over after the import.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        seal_partitions(&mut self.session.connection).await?;
        Ok(self.session.close().await?)
    }
}
