//! One call of `append_event`: a batch of a single event, without arrays.
//!
//! Under little load nearly every batch is a single event. If the append is not plain, the procedure writes nothing,
//! and `append_events` decides the request.

use chrono::{DateTime, Utc};
use sqlx::Row;

use crate::domain::append::{AppendRequest, Outcome, Places};
use crate::domain::event::{NewEvent, Position, Recorded};
use crate::domain::name::StreamId;
use crate::domain::version::{ExpectedVersion, Version};
use crate::store::append::batch::{AppendContext, BatchResult, encode};
use crate::store::append::session::{AppendSession, CachedStream};
use crate::store::error::DatabaseError;
use crate::store::jsonb::JsonbText;

const APPEND_EVENT: &str = include_str!("../sql/append_event.sql");

/// The only event of a batch.
pub(super) struct SingleEventAppend<'r> {
    stream: &'r StreamId,
    expected: ExpectedVersion,
    event: &'r NewEvent,
}

impl<'r> SingleEventAppend<'r> {
    /// Returns `None` if the request has more than one event.
    pub(super) fn from_request(request: &'r AppendRequest) -> Option<Self> {
        let [append] = request.appends.as_slice() else { return None };
        let [event] = append.events.as_slice() else { return None };
        Some(Self { stream: &append.stream, expected: append.expected, event })
    }

    /// Writes the event. Returns `None` if nothing is written, and a [`Batch`](crate::store::append::batch::Batch) has
    /// to decide the request.
    pub(super) async fn write(
        &self,
        session: &mut AppendSession,
        context: AppendContext,
    ) -> Result<Option<BatchResult>, DatabaseError> {
        let event = self.event;
        let call = sqlx::query(APPEND_EVENT)
            .bind(self.stream.aggregate_type())
            .bind(self.stream.aggregate_id())
            .bind(encode(self.expected))
            .bind(event.event_id.uuid())
            .bind(&*event.event_type)
            .bind(JsonbText(&event.event_data))
            .bind(event.metadata.as_deref().map(JsonbText))
            .bind(event.correlation_id)
            .bind(event.causation_id);
        let row = session.append_event(context.bind_to(call), self.stream).await?;
        let version: Option<Version> = row.try_get("version")?;
        let stream_no: Option<i64> = row.try_get("stream_no")?;
        let (Some(version), Some(stream_no)) = (version, stream_no) else { return Ok(None) };
        session.cache_stream(self.stream.clone(), CachedStream { stream_no, head: version });
        let global_position: Position = row.try_get("log_position")?;
        let occurred_at: DateTime<Utc> = row.try_get("log_time")?;
        let recorded = Recorded { event_id: event.event_id.uuid(), version, global_position, occurred_at };
        Ok(Some(BatchResult {
            outcomes: vec![Outcome::Written(Places { epoch: session.epoch()?, appends: vec![vec![recorded]] })],
            last_position: Some(global_position),
        }))
    }
}
