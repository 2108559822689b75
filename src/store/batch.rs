//! One call of `append_events`: requests become arrays, and arrays become outcomes.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::append_session::{AppendSession, LogEnd};
use crate::domain::append::{AppendRequest, Outcome};
use crate::domain::event::{Position, Recorded};
use crate::domain::name::StreamId;
use crate::domain::version::Version;

const APPEND: &str = include_str!("sql/append.sql");

/// A batch in the form that the procedure takes; migrations/0003_append.sql explains each array.
///
/// No event id stands in a batch twice: who builds one sees to it.
#[derive(Default)]
pub(super) struct Batch<'r> {
    stream_types: Vec<&'r str>,
    stream_ids: Vec<&'r str>,
    stream_indexes: HashMap<&'r StreamId, i32>,
    request_appends: Vec<i32>,
    append_streams: Vec<i32>,
    append_expected: Vec<i32>,
    append_offsets: Vec<i32>,
    event_appends: Vec<i32>,
    event_offsets: Vec<i32>,
    event_ids: Vec<Uuid>,
    event_types: Vec<&'r str>,
    event_data: Vec<&'r str>,
    metadata: Vec<Option<&'r str>>,
    correlation_ids: Vec<Option<Uuid>>,
    causation_ids: Vec<Option<Uuid>>,
    /// When each event occurred, for an import.
    event_times: Option<Vec<DateTime<Utc>>>,
}

/// What the procedure answered.
pub(super) struct Decided {
    /// One a request, in order.
    pub(super) outcomes: Vec<Outcome>,
    /// The highest position that was written or found.
    pub(super) last_position: Option<Position>,
}

impl<'r> Batch<'r> {
    pub(super) fn new(requests: impl IntoIterator<Item = &'r AppendRequest>) -> Self {
        let mut batch = Self::default();
        for request in requests {
            batch.push(request);
        }
        batch
    }

    /// The same with times that are kept, one an event.
    pub(super) fn with_times(mut self, times: Vec<DateTime<Utc>>) -> Self {
        self.event_times = Some(times);
        self
    }

    fn push(&mut self, request: &'r AppendRequest) {
        self.request_appends.push(count(request.appends.len()));
        for append in &request.appends {
            let stream = self.stream_index(&append.stream);
            self.append_streams.push(stream);
            self.append_expected.push(append.expected.encoded());
            self.append_offsets.push(count(self.event_ids.len()));
            let index = count(self.append_streams.len());
            for (offset, event) in append.events.iter().enumerate() {
                self.event_appends.push(index);
                self.event_offsets.push(count(offset));
                self.event_ids.push(event.event_id);
                self.event_types.push(&event.event_type);
                self.event_data.push(&event.event_data);
                self.metadata.push(event.metadata.as_deref());
                self.correlation_ids.push(event.correlation_id);
                self.causation_ids.push(event.causation_id);
            }
        }
    }

    fn stream_index(&mut self, stream: &'r StreamId) -> i32 {
        let next = count(self.stream_types.len()) + 1;
        let index = *self.stream_indexes.entry(stream).or_insert(next);
        if index == next {
            self.stream_types.push(stream.aggregate_type());
            self.stream_ids.push(stream.aggregate_id());
        }
        index
    }

    /// Writes the batch. It is durable when this returns; after an error it is not written, or nobody knows.
    ///
    /// `floor` is the highest position that this process has seen, `now` the clock that a test set.
    pub(super) async fn call(
        &self,
        session: &mut AppendSession,
        floor: Position,
        now: Option<DateTime<Utc>>,
    ) -> Result<Decided, sqlx::Error> {
        let end = session.take_end();
        let answer = sqlx::query(APPEND)
            .bind(&self.stream_types)
            .bind(&self.stream_ids)
            .bind(&self.request_appends)
            .bind(&self.append_streams)
            .bind(&self.append_expected)
            .bind(&self.append_offsets)
            .bind(&self.event_appends)
            .bind(&self.event_offsets)
            .bind(&self.event_ids)
            .bind(&self.event_types)
            .bind(&self.event_data)
            .bind(where_any(&self.metadata))
            .bind(where_any(&self.correlation_ids))
            .bind(where_any(&self.causation_ids))
            .bind(&self.event_times)
            .bind(floor)
            .bind(now)
            .bind(end.turn)
            .bind(end.position)
            .bind(end.time)
            .bind(end.open_from)
            .fetch_one(&mut session.connection)
            .await?;
        session.end = LogEnd::from_row(&answer)?;
        Answer::read(&answer)?.decide(self)
    }

    /// The events of an append.
    fn events_of(&self, append: usize) -> std::ops::Range<usize> {
        let offset = |append: usize| self.append_offsets.get(append).map(|offset| *offset as usize);
        offset(append).unwrap_or(self.event_ids.len())..offset(append + 1).unwrap_or(self.event_ids.len())
    }
}

/// The procedure takes no array instead of one with nothing in it.
fn where_any<T>(values: &Vec<Option<T>>) -> Option<&Vec<Option<T>>> {
    values.iter().any(Option::is_some).then_some(values)
}

fn count(length: usize) -> i32 {
    i32::try_from(length).expect("a batch is bounded far below 2^31")
}

/// The procedure's answer, array by array.
struct Answer {
    request_outcomes: Vec<i32>,
    append_first_versions: Vec<Version>,
    append_first_positions: Vec<Position>,
    append_current_versions: Vec<Version>,
    event_versions: Option<Vec<Option<Version>>>,
    event_positions: Option<Vec<Option<Position>>>,
    event_times: Option<Vec<Option<DateTime<Utc>>>>,
    written_at: DateTime<Utc>,
}

impl Answer {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            request_outcomes: row.try_get("request_outcomes")?,
            append_first_versions: row.try_get("append_first_versions")?,
            append_first_positions: row.try_get("append_first_positions")?,
            append_current_versions: row.try_get("append_current_versions")?,
            event_versions: row.try_get("event_versions")?,
            event_positions: row.try_get("event_positions")?,
            event_times: row.try_get("event_times")?,
            written_at: row.try_get("written_at")?,
        })
    }

    fn decide(&self, batch: &Batch<'_>) -> Result<Decided, sqlx::Error> {
        let mut outcomes = Vec::with_capacity(batch.request_appends.len());
        let mut last_position = None;
        let mut append = 0;
        for (request, &appends) in batch.request_appends.iter().enumerate() {
            let appends = append..append + appends as usize;
            let events: Vec<_> = appends.clone().map(|append| batch.events_of(append)).collect();
            let outcome = match self.request_outcomes[request] {
                0 => Outcome::Written(
                    appends.clone().zip(&events).map(|(a, events)| self.written(batch, a, events.clone())).collect(),
                ),
                1 => Outcome::Replayed(
                    events.iter().map(|events| self.found(batch, events.clone())).collect::<Result<_, _>>()?,
                ),
                2 => Outcome::VersionConflict(self.append_current_versions[appends.clone()].to_vec()),
                3 => Outcome::EventIdReused(self.known(batch, &events)),
                4 => Outcome::EventPartlyKnown(self.known(batch, &events)),
                other => return Err(impossible(format!("append_events answered outcome {other}"))),
            };
            if let Outcome::Written(appended) | Outcome::Replayed(appended) = &outcome {
                last_position = last_position.max(appended.iter().flatten().map(|event| event.global_position).max());
            }
            outcomes.push(outcome);
            append = appends.end;
        }
        Ok(Decided { outcomes, last_position })
    }

    fn written(&self, batch: &Batch<'_>, append: usize, events: std::ops::Range<usize>) -> Vec<Recorded> {
        let (version, position) = (self.append_first_versions[append], self.append_first_positions[append]);
        events
            .enumerate()
            .map(|(offset, event)| Recorded {
                event_id: batch.event_ids[event],
                version: version + count(offset),
                global_position: position + offset as Position,
                occurred_at: batch.event_times.as_ref().map_or(self.written_at, |times| times[event]),
            })
            .collect()
    }

    fn found(&self, batch: &Batch<'_>, events: std::ops::Range<usize>) -> Result<Vec<Recorded>, sqlx::Error> {
        events
            .map(|event| {
                let stands = || {
                    Some(Recorded {
                        event_id: batch.event_ids[event],
                        version: self.event_versions.as_ref()?[event]?,
                        global_position: self.event_positions.as_ref()?[event]?,
                        occurred_at: self.event_times.as_ref()?[event]?,
                    })
                };
                stands().ok_or_else(|| impossible("append_events called an unknown event a replay".to_owned()))
            })
            .collect()
    }

    fn known(&self, batch: &Batch<'_>, events: &[std::ops::Range<usize>]) -> Vec<Uuid> {
        let versions = self.event_versions.as_deref().unwrap_or_default();
        events
            .iter()
            .cloned()
            .flatten()
            .filter(|&event| versions.get(event).is_some_and(Option::is_some))
            .map(|event| batch.event_ids[event])
            .collect()
    }
}

fn impossible(what: String) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}
