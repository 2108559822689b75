//! One call of `append_events`: requests become arrays, and arrays become outcomes.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::append_session::{AppendSession, Call, Known, KnownStream};
use super::document::Document;
use crate::domain::append::{AppendRequest, Outcome};
use crate::domain::event::{Position, Recorded};
use crate::domain::name::StreamId;
use crate::domain::version::Version;

const APPEND: &str = include_str!("sql/append.sql");

/// A batch, ready to be sent.
///
/// No event id stands in a batch twice: who builds one sees to it.
pub(super) struct Batch {
    /// With every value but those that the session knows.
    call: Call,
    streams: Vec<StreamId>,
    layout: Layout,
}

/// Which appends a batch has, and which events.
#[derive(Default)]
struct Layout {
    request_appends: Vec<i32>,
    append_streams: Vec<i32>,
    append_offsets: Vec<i32>,
    event_ids: Vec<Uuid>,
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

/// What else an append depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// No event id can be known: all were made for this submission, the first one.
    pub(super) ids_are_new: bool,
    /// The highest position that this process has seen.
    pub(super) floor: Position,
    /// The clock that a test set.
    pub(super) now: Option<DateTime<Utc>>,
}

impl Circumstances {
    pub(super) fn bind_to(self, call: Call) -> Call {
        call.bind(self.ids_are_new).bind(self.floor).bind(self.now)
    }
}

impl Batch {
    /// `event_times` says when each event occurred, for an import.
    pub(super) fn new<'r>(
        requests: impl IntoIterator<Item = &'r AppendRequest>,
        event_times: Option<Vec<DateTime<Utc>>>,
        circumstances: Circumstances,
    ) -> Self {
        let mut arrays = Arrays::default();
        for request in requests {
            arrays.push(request);
        }
        arrays.layout.event_times = event_times;
        let call = circumstances.bind_to(arrays.bind_to(sqlx::query(APPEND)));
        let Arrays { streams, layout, .. } = arrays;
        Self { call, streams: streams.into_iter().cloned().collect(), layout }
    }

    /// Writes the batch. It is durable when this returns; after an error it is not written, or nobody knows.
    pub(super) async fn write(self, session: &mut AppendSession) -> Result<Decided, sqlx::Error> {
        let Self { call, streams, layout } = self;
        let mut known = session.take_known();
        let known_streams = streams.iter().map(|stream| known.stream(stream));
        let (heads, stream_nos) =
            known_streams.map(|stream| (stream.map(|s| s.head), stream.map(|s| s.stream_no))).unzip();
        let call = known.end.bind_to(call.bind(where_any(&heads)).bind(where_any(&stream_nos)));
        let row = call.fetch_one(&mut session.connection).await?;
        known.hear(&row)?;
        let answer = Answer::read(&row)?;
        answer.note_streams(streams, &layout, &mut known);
        session.keep(known);
        answer.decide(&layout)
    }
}

/// The values of the call while they are collected; migrations/0003_append.sql explains each array.
#[derive(Default)]
struct Arrays<'r> {
    layout: Layout,
    streams: Vec<&'r StreamId>,
    stream_indexes: HashMap<&'r StreamId, i32>,
    stream_types: Vec<&'r str>,
    stream_ids: Vec<&'r str>,
    stream_offsets: Vec<i32>,
    /// How many events of each stream were collected.
    stream_events: Vec<i32>,
    append_expected: Vec<i32>,
    append_earlier: Vec<i32>,
    event_appends: Vec<i32>,
    event_offsets: Vec<i32>,
    event_types: Vec<&'r str>,
    event_data: Vec<Document<'r>>,
    metadata: Vec<Option<Document<'r>>>,
    correlation_ids: Vec<Option<Uuid>>,
    causation_ids: Vec<Option<Uuid>>,
}

impl<'r> Arrays<'r> {
    fn push(&mut self, request: &'r AppendRequest) {
        self.layout.request_appends.push(count(request.appends.len()));
        for append in &request.appends {
            let stream = self.stream_index(&append.stream);
            let stream_events = &mut self.stream_events[stream as usize - 1];
            self.layout.append_streams.push(stream);
            self.layout.append_offsets.push(count(self.layout.event_ids.len()));
            self.append_expected.push(append.expected.encoded());
            self.append_earlier.push(*stream_events);
            *stream_events += count(append.events.len());
            let index = count(self.layout.append_streams.len());
            for (offset, event) in append.events.iter().enumerate() {
                self.layout.event_ids.push(event.event_id);
                self.event_appends.push(index);
                self.event_offsets.push(count(offset));
                self.event_types.push(&event.event_type);
                self.event_data.push(Document(&event.event_data));
                self.metadata.push(event.metadata.as_deref().map(Document));
                self.correlation_ids.push(event.correlation_id);
                self.causation_ids.push(event.causation_id);
            }
        }
    }

    fn stream_index(&mut self, stream: &'r StreamId) -> i32 {
        let next = count(self.streams.len()) + 1;
        let index = *self.stream_indexes.entry(stream).or_insert(next);
        if index == next {
            self.streams.push(stream);
            self.stream_types.push(stream.aggregate_type());
            self.stream_ids.push(stream.aggregate_id());
            self.stream_offsets.push(count(self.layout.event_ids.len()));
            self.stream_events.push(0);
        }
        index
    }

    fn bind_to(&self, call: Call) -> Call {
        call.bind(&self.stream_types)
            .bind(&self.stream_ids)
            .bind(&self.stream_offsets)
            .bind(&self.layout.request_appends)
            .bind(&self.layout.append_streams)
            .bind(&self.append_expected)
            .bind(&self.layout.append_offsets)
            .bind(&self.append_earlier)
            .bind(&self.event_appends)
            .bind(&self.event_offsets)
            .bind(&self.layout.event_ids)
            .bind(&self.event_types)
            .bind(&self.event_data)
            .bind(where_any(&self.metadata))
            .bind(where_any(&self.correlation_ids))
            .bind(where_any(&self.causation_ids))
            .bind(&self.layout.event_times)
    }
}

impl Layout {
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
    stream_nos: Vec<i64>,
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
            stream_nos: row.try_get("stream_nos")?,
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

    /// Where the streams stand now: the last append to each tells it.
    fn note_streams(&self, streams: Vec<StreamId>, layout: &Layout, known: &mut Known) {
        let mut heads = vec![0; streams.len()];
        for (append, &stream) in layout.append_streams.iter().enumerate() {
            let written = if self.append_first_versions[append] > 0 { layout.events_of(append).len() } else { 0 };
            heads[stream as usize - 1] = self.append_current_versions[append] + count(written);
        }
        for ((stream, head), &stream_no) in streams.into_iter().zip(heads).zip(&self.stream_nos) {
            // A new stream that was refused has a number, which nobody will see again.
            if head > 0 {
                known.note(stream, KnownStream { stream_no, head });
            }
        }
    }

    fn decide(&self, layout: &Layout) -> Result<Decided, sqlx::Error> {
        let mut outcomes = Vec::with_capacity(layout.request_appends.len());
        let mut last_position = None;
        let mut append = 0;
        for (request, &appends) in layout.request_appends.iter().enumerate() {
            let appends = append..append + appends as usize;
            let events: Vec<_> = appends.clone().map(|append| layout.events_of(append)).collect();
            let outcome = match self.request_outcomes[request] {
                0 => Outcome::Written(
                    appends.clone().zip(&events).map(|(a, events)| self.written(layout, a, events.clone())).collect(),
                ),
                1 => Outcome::Replayed(
                    events.iter().map(|events| self.found(layout, events.clone())).collect::<Result<_, _>>()?,
                ),
                2 => Outcome::VersionConflict(self.append_current_versions[appends.clone()].to_vec()),
                3 => Outcome::EventIdReused(self.known(layout, &events)),
                4 => Outcome::EventPartlyKnown(self.known(layout, &events)),
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

    fn written(&self, layout: &Layout, append: usize, events: std::ops::Range<usize>) -> Vec<Recorded> {
        let (version, position) = (self.append_first_versions[append], self.append_first_positions[append]);
        events
            .enumerate()
            .map(|(offset, event)| Recorded {
                event_id: layout.event_ids[event],
                version: version + count(offset),
                global_position: position + offset as Position,
                occurred_at: layout.event_times.as_ref().map_or(self.written_at, |times| times[event]),
            })
            .collect()
    }

    fn found(&self, layout: &Layout, events: std::ops::Range<usize>) -> Result<Vec<Recorded>, sqlx::Error> {
        events
            .map(|event| {
                let stands = || {
                    Some(Recorded {
                        event_id: layout.event_ids[event],
                        version: self.event_versions.as_ref()?[event]?,
                        global_position: self.event_positions.as_ref()?[event]?,
                        occurred_at: self.event_times.as_ref()?[event]?,
                    })
                };
                stands().ok_or_else(|| impossible("append_events called an unknown event a replay".to_owned()))
            })
            .collect()
    }

    fn known(&self, layout: &Layout, events: &[std::ops::Range<usize>]) -> Vec<Uuid> {
        let versions = self.event_versions.as_deref().unwrap_or_default();
        events
            .iter()
            .cloned()
            .flatten()
            .filter(|&event| versions.get(event).is_some_and(Option::is_some))
            .map(|event| layout.event_ids[event])
            .collect()
    }
}

fn impossible(what: String) -> sqlx::Error {
    sqlx::Error::Decode(what.into())
}
