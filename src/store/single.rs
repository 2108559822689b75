//! One call of `append_event`: a batch of a single event, without arrays.
//!
//! Under little load nearly every batch is one. What is not plain, the procedure leaves to `append_events` undecided.

use sqlx::Row;

use super::append_session::{AppendSession, KnownStream, LogEnd};
use super::batch::{Circumstances, Decided};
use super::document::Document;
use crate::domain::append::{AppendRequest, Outcome};
use crate::domain::event::{NewEvent, Recorded};
use crate::domain::name::StreamId;
use crate::domain::version::{ExpectedVersion, Version};

const APPEND_EVENT: &str = include_str!("sql/append_event.sql");

/// The only event of a batch.
pub(super) struct Single<'r> {
    stream: &'r StreamId,
    expected: ExpectedVersion,
    event: &'r NewEvent,
}

impl<'r> Single<'r> {
    /// `None` if a request has more than one event.
    pub(super) fn of(request: &'r AppendRequest) -> Option<Self> {
        let [append] = request.appends.as_slice() else { return None };
        let [event] = append.events.as_slice() else { return None };
        Some(Self { stream: &append.stream, expected: append.expected, event })
    }

    /// Writes the event; `None` if it was not, and [`Batch::write`](super::batch::Batch::write) has to decide. What that says
    /// about errors and parameters holds here.
    pub(super) async fn write(
        &self,
        session: &mut AppendSession,
        circumstances: Circumstances,
    ) -> Result<Option<Decided>, sqlx::Error> {
        let event = self.event;
        let mut known = session.take_known();
        let stream = known.stream(self.stream);
        let call = sqlx::query(APPEND_EVENT)
            .bind(self.stream.aggregate_type())
            .bind(self.stream.aggregate_id())
            .bind(self.expected.encoded())
            .bind(event.event_id)
            .bind(&*event.event_type)
            .bind(Document(&event.event_data))
            .bind(event.metadata.as_deref().map(Document))
            .bind(event.correlation_id)
            .bind(event.causation_id);
        let call = circumstances
            .bind_to(call)
            .bind(stream.map(|stream| stream.head))
            .bind(stream.map(|stream| stream.stream_no));
        let answer = known.end.bind_to(call).fetch_one(&mut session.connection).await?;
        known.hear(&answer)?;
        let version: Option<Version> = answer.try_get("version")?;
        let stream_no: Option<i64> = answer.try_get("stream_no")?;
        if let (Some(head), Some(stream_no)) = (version, stream_no) {
            known.note(self.stream.clone(), KnownStream { stream_no, head });
        }
        let LogEnd { position, time, .. } = known.end;
        session.keep(known);
        let (Some(global_position), Some(occurred_at)) = (position, time) else { return Ok(None) };
        let Some(version) = version else { return Ok(None) };
        let recorded = Recorded { event_id: event.event_id, version, global_position, occurred_at };
        let outcomes = vec![Outcome::Written(vec![vec![recorded]])];
        Ok(Some(Decided { outcomes, last_position: Some(global_position) }))
    }
}
