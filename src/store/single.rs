//! One call of `append_event`: a batch of a single event, without arrays.
//!
//! Under little load nearly every batch is one. What is not plain, the procedure leaves to `append_events` undecided.

use chrono::{DateTime, Utc};
use sqlx::Row;

use super::append_session::{AppendSession, LogEnd};
use super::batch::Decided;
use crate::domain::append::{AppendRequest, Outcome};
use crate::domain::event::{NewEvent, Position, Recorded};
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

    /// Writes the event; `None` if it was not, and [`Batch::call`](super::batch::Batch::call) has to decide. What that says
    /// about errors and parameters holds here.
    pub(super) async fn call(
        &self,
        session: &mut AppendSession,
        floor: Position,
        now: Option<DateTime<Utc>>,
    ) -> Result<Option<Decided>, sqlx::Error> {
        let event = self.event;
        let end = session.take_end();
        let answer = sqlx::query(APPEND_EVENT)
            .bind(self.stream.aggregate_type())
            .bind(self.stream.aggregate_id())
            .bind(self.expected.encoded())
            .bind(event.event_id)
            .bind(&*event.event_type)
            .bind(&*event.event_data)
            .bind(event.metadata.as_deref())
            .bind(event.correlation_id)
            .bind(event.causation_id)
            .bind(floor)
            .bind(now)
            .bind(end.turn)
            .bind(end.position)
            .bind(end.time)
            .bind(end.open_from)
            .fetch_one(&mut session.connection)
            .await?;
        session.end = LogEnd::from_row(&answer)?;
        let version: Option<Version> = answer.try_get("version")?;
        let LogEnd { position: Some(global_position), time: Some(occurred_at), .. } = session.end else {
            return Ok(None);
        };
        let Some(version) = version else { return Ok(None) };
        let recorded = Recorded { event_id: event.event_id, version, global_position, occurred_at };
        let outcomes = vec![Outcome::Written(vec![vec![recorded]])];
        Ok(Some(Decided { outcomes, last_position: Some(global_position) }))
    }
}
