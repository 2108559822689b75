//! Erases events of the database, and notes those of the archive, in one transaction.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::erasure::{ErasedContent, ErasureNo};
use crate::domain::event::{Position, StoredEvent};
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::error::{DatabaseError, StoreError, has_sqlstate};
use crate::store::jsonb::JsonbText;
use crate::store::primary::Primary;

const ERASE_EVENTS: &str = include_str!("../sql/erase_events.sql");
const RECORD_ANNOUNCEMENT: &str = include_str!("../sql/record_announcement.sql");

/// The SQLSTATE that `erase_events` raises if a month was archived or restored at this moment.
const MONTH_MOVED: &str = "AN004";
/// The number of attempts while months are archived or restored.
const ATTEMPTS_MAX: u32 = 5;

/// An event to erase.
#[derive(Debug, Clone)]
pub struct ErasableEvent {
    pub global_position: Position,
    pub occurred_at: DateTime<Utc>,
    pub event_id: Uuid,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub version: Version,
}

/// A new erasure.
#[derive(Debug, Clone, Copy)]
pub struct NewErasure<'e> {
    pub reason: &'e str,
    /// The request as JSON.
    pub request: &'e str,
    /// The id of the API key; `None` if keys are not required.
    pub requested_by: Option<&'e str>,
    pub content: &'e ErasedContent,
    /// The number and the time of the erasure in the log from which it was exported; `None`: it is a new one.
    pub exported: Option<(ErasureNo, DateTime<Utc>)>,
    /// The events that have the content.
    pub events: &'e [ErasableEvent],
}

/// The place of a `$erased` event.
#[derive(Debug, Clone)]
pub struct Announced {
    pub stream: StreamId,
    pub version: Version,
    pub global_position: Position,
}

impl ErasableEvent {
    /// Copies the place of an event.
    pub fn new(event: &StoredEvent<'_>) -> Self {
        Self {
            global_position: event.global_position,
            occurred_at: event.occurred_at,
            event_id: event.event_id,
            aggregate_type: event.aggregate_type.to_owned(),
            aggregate_id: event.aggregate_id.to_owned(),
            version: event.version,
        }
    }
}

impl Primary {
    /// Erases events. Returns the number of the erasure; `None` if all of it was erased before. When this returns, no
    /// statement returns the content any more.
    pub async fn erase(&self, new: NewErasure<'_>) -> Result<Option<ErasureNo>, StoreError> {
        fn column<T>(events: &[ErasableEvent], field: impl Fn(&ErasableEvent) -> T) -> Vec<T> {
            events.iter().map(field).collect()
        }
        let events = new.events;
        let mut attempts = 0;
        loop {
            let mut connection = self.acquire_to_write().await?;
            let erased = sqlx::query_scalar(ERASE_EVENTS)
                .bind(new.reason)
                .bind(JsonbText(new.request))
                .bind(new.requested_by)
                .bind(new.content.members())
                .bind(column(events, |event| event.global_position))
                .bind(column(events, |event| event.occurred_at))
                .bind(column(events, |event| event.event_id))
                .bind(column(events, |event| event.aggregate_type.clone()))
                .bind(column(events, |event| event.aggregate_id.clone()))
                .bind(column(events, |event| event.version))
                .bind(new.exported.map(|(erasure, _)| erasure))
                .bind(new.exported.map(|(_, requested_at)| requested_at))
                .fetch_one(&mut *connection)
                .await
                .map_err(DatabaseError::from);
            match erased {
                Ok(erasure) => {
                    self.erasures().raise(Option::unwrap_or(erasure, 0));
                    return Ok(erasure);
                }
                Err(error) if has_sqlstate(&error, MONTH_MOVED) && attempts < ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Records that the `$erased` events of an erasure are appended. From now on its content counts as hidden.
    pub async fn record_announcement(&self, erasure: ErasureNo, announced: &[Announced]) -> Result<(), StoreError> {
        let last = announced.iter().map(|event| event.global_position).max();
        sqlx::query(RECORD_ANNOUNCEMENT)
            .bind(erasure)
            .bind(last)
            .bind(announced.iter().map(|event| event.stream.aggregate_type().to_owned()).collect::<Vec<_>>())
            .bind(announced.iter().map(|event| event.stream.aggregate_id().to_owned()).collect::<Vec<_>>())
            .bind(announced.iter().map(|event| event.version).collect::<Vec<_>>())
            .execute(&mut *self.acquire_to_write().await?)
            .await?;
        Ok(())
    }
}
