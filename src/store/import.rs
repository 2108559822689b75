//! Import: events that happened elsewhere, before, enter through the same procedure as any append.
//!
//! Their times may be kept, which is why an import has a connection of its own: no service may set the time of an event.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::append_session::AppendSession;
use super::batch::{Batch, Circumstances};
use super::connect::Connector;
use super::database::DatabaseConfig;
use super::error::StoreError;
use super::{log, months};
use crate::domain::append::{AppendRequest, Outcome};

const KNOWN_EVENT_IDS: &str = include_str!("sql/known_event_ids.sql");
/// What `append_events` raises when a time goes back.
const TIME_GOES_BACK: &str = "AN001";

/// Why a batch could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// An event is older than the end of the log: somebody else has appended in the meantime.
    #[error("an event is older than the end of the log")]
    TimeGoesBack,
    #[error(transparent)]
    Store(StoreError),
}

/// A connection that imports.
pub struct Importer {
    session: AppendSession,
}

/// What one commit will write, ready to be sent: made while PostgreSQL is busy with the batch before it.
pub struct ImportBatch(Batch);

impl ImportBatch {
    /// Events in order, each with the time that it is given; without times they occur now.
    pub fn new(requests: &[AppendRequest], times: Option<Vec<DateTime<Utc>>>) -> Self {
        Self(Batch::new(requests, times, Circumstances { ids_are_new: false, floor: 0, now: None }))
    }
}

impl Importer {
    pub async fn open(config: &DatabaseConfig) -> Result<Self, StoreError> {
        let connection = Connector::new(config).writer(None).await?;
        Ok(Self { session: AppendSession::new(connection) })
    }

    /// When the last event of the log occurred; `None` while it is empty.
    pub async fn last_occurred_at(&mut self) -> Result<Option<DateTime<Utc>>, StoreError> {
        months::create_missing(&mut self.session.connection, None).await?;
        let open_from = months::open_from(&mut self.session.connection).await?;
        Ok(log::head(&mut self.session.connection, open_from).await?.occurred_at)
    }

    /// When these events occurred; `None` for those that the log does not have.
    pub async fn known(&mut self, event_ids: &[Uuid]) -> Result<Vec<Option<DateTime<Utc>>>, StoreError> {
        Ok(sqlx::query_scalar(KNOWN_EVENT_IDS).bind(event_ids).fetch_one(&mut self.session.connection).await?)
    }

    /// Makes the months that are missing, each named by a time in it.
    pub async fn create_months(&mut self, months: &BTreeMap<String, DateTime<Utc>>) -> Result<(), StoreError> {
        for time in months.values() {
            months::create_between(&mut self.session.connection, *time, *time).await?;
        }
        Ok(())
    }

    /// Writes a batch.
    pub async fn write(&mut self, batch: ImportBatch) -> Result<Vec<Outcome>, ImportError> {
        match batch.0.write(&mut self.session).await {
            Ok(decided) => Ok(decided.outcomes),
            Err(error)
                if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(TIME_GOES_BACK)) =>
            {
                Err(ImportError::TimeGoesBack)
            }
            Err(error) => Err(ImportError::Store(error.into())),
        }
    }

    /// Rolls up the months that the import left behind.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        months::roll_up(&mut self.session.connection).await?;
        Ok(self.session.close().await?)
    }
}
