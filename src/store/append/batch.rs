//! One call of `append_events`: requests become arrays, and arrays become outcomes.
//!
//! Invariant: no event id occurs twice in a batch. The writer and the import ensure this when they build a batch.

use std::collections::HashMap;
use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::domain::append::{AppendRequest, Outcome, Places};
use crate::domain::cursor::Epoch;
use crate::domain::event::{Position, Recorded};
use crate::domain::name::StreamId;
use crate::domain::version::{ExpectedVersion, Version};
use crate::store::append::session::{AppendSession, CachedStream, Call, null_if_all_none};
use crate::store::error::DatabaseError;
use crate::store::jsonb::JsonbText;

const APPEND_EVENTS: &str = include_str!("../sql/append_events.sql");

/// A batch, ready to be sent.
pub(super) struct Batch {
    /// The call with all parameters except those of the session's cache.
    call: Call,
    streams: Vec<StreamId>,
    layout: Layout,
}

/// Which appends and events a batch has. Numbers of streams and appends begin at 1, offsets at 0.
#[derive(Default)]
struct Layout {
    request_appends: Vec<i32>,
    append_streams: Vec<i32>,
    append_offsets: Vec<i32>,
    event_ids: Vec<Uuid>,
    /// The time of each event, for an import.
    event_times: Option<Vec<DateTime<Utc>>>,
}

/// The result of a batch.
pub(super) struct BatchResult {
    /// One for each request, in order.
    pub(super) outcomes: Vec<Outcome>,
    /// The highest position that was written or found.
    pub(super) last_position: Option<Position>,
}

/// What the result of an append depends on besides the requests and the session's cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppendContext {
    /// The log contains none of the event ids: all were generated, and this is the first submission.
    pub(super) ids_are_new: bool,
    /// The highest position that this process has served.
    pub(super) position_floor: Position,
    /// The time of a clock that a test has set.
    pub(super) now: Option<DateTime<Utc>>,
    /// The time by the clock of the service; `None` for an import.
    pub(super) service_time: Option<DateTime<Utc>>,
}

impl AppendContext {
    /// Binds the parameters to the call.
    pub(super) fn bind_to(self, call: Call) -> Call {
        call.bind(self.ids_are_new).bind(self.position_floor).bind(self.now).bind(self.service_time)
    }
}

impl Batch {
    /// Prepares a batch. For an import, `event_times` has the time of each event.
    pub(super) fn new<'r>(
        requests: impl IntoIterator<Item = &'r AppendRequest>,
        event_times: Option<Vec<DateTime<Utc>>>,
        context: AppendContext,
    ) -> Self {
        let mut arrays = Arrays::default();
        for request in requests {
            arrays.push(request);
        }
        arrays.layout.event_times = event_times;
        let call = context.bind_to(arrays.bind_to(sqlx::query(APPEND_EVENTS)));
        let Arrays { streams, layout, .. } = arrays;
        Self { call, streams: streams.into_iter().cloned().collect(), layout }
    }

    /// Writes the batch. It is durable when this returns. After an error it is not written, or its outcome is unknown.
    pub(super) async fn write(self, session: &mut AppendSession) -> Result<BatchResult, DatabaseError> {
        let Self { call, streams, layout } = self;
        let row = session.append_events(call, &streams).await?;
        let result = ProcedureResult::from_row(&row)?;
        for (stream, cached) in streams.into_iter().zip(result.streams(&layout)) {
            if let Some(cached) = cached {
                session.cache_stream(stream, cached);
            }
        }
        result.outcomes(&layout, session.epoch()?)
    }
}

/// The parameters of the call while they are collected; `append_events_locked.sql` describes each array.
#[derive(Default)]
struct Arrays<'r> {
    layout: Layout,
    streams: Vec<&'r StreamId>,
    stream_indexes: HashMap<&'r StreamId, i32>,
    stream_types: Vec<&'r str>,
    stream_ids: Vec<&'r str>,
    stream_offsets: Vec<i32>,
    /// The number of events of each stream in the requests that were added.
    stream_events: Vec<i32>,
    append_expected: Vec<i32>,
    append_earlier: Vec<i32>,
    event_appends: Vec<i32>,
    event_offsets: Vec<i32>,
    event_types: Vec<&'r str>,
    event_data: Vec<JsonbText<'r>>,
    metadata: Vec<Option<JsonbText<'r>>>,
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
            self.append_expected.push(encode(append.expected));
            self.append_earlier.push(*stream_events);
            *stream_events += count(append.events.len());
            let index = count(self.layout.append_streams.len());
            for (offset, event) in append.events.iter().enumerate() {
                self.layout.event_ids.push(event.event_id.uuid());
                self.event_appends.push(index);
                self.event_offsets.push(count(offset));
                self.event_types.push(&event.event_type);
                self.event_data.push(JsonbText(&event.event_data));
                self.metadata.push(event.metadata.as_deref().map(JsonbText));
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
            .bind(null_if_all_none(&self.metadata))
            .bind(null_if_all_none(&self.correlation_ids))
            .bind(null_if_all_none(&self.causation_ids))
            .bind(&self.layout.event_times)
    }
}

impl Layout {
    /// Returns the indexes of the events of an append.
    fn events_of(&self, append: usize) -> Range<usize> {
        let offset = |append: usize| self.append_offsets.get(append).map(|offset| *offset as usize);
        offset(append).unwrap_or(self.event_ids.len())..offset(append + 1).unwrap_or(self.event_ids.len())
    }
}

/// Encodes an expected version for the procedure: a version, -1 for any, -2 for "the stream exists".
pub(super) fn encode(expected: ExpectedVersion) -> i32 {
    match expected {
        ExpectedVersion::Any => -1,
        ExpectedVersion::Exists => -2,
        ExpectedVersion::None => 0,
        // No stream has a version beyond the range of the column, so this fails like any other wrong version.
        ExpectedVersion::Exact(version) => i32::try_from(version).unwrap_or(i32::MAX),
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).expect("a batch is bounded far below 2^31")
}

/// The result of the procedure, array by array.
struct ProcedureResult {
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

impl ProcedureResult {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
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

    /// Returns the head of each stream after the batch, from the last append to it; `None` for a stream that does not
    /// exist.
    fn streams(&self, layout: &Layout) -> Vec<Option<CachedStream>> {
        let mut streams = vec![None; self.stream_nos.len()];
        for (append, &stream) in layout.append_streams.iter().enumerate() {
            let written = if self.append_first_versions[append] > 0 { layout.events_of(append).len() } else { 0 };
            let head = self.append_current_versions[append] + count(written);
            let stream = stream as usize - 1;
            // The number of a new stream that was not written is never used again.
            streams[stream] = (head > 0).then(|| CachedStream { stream_no: self.stream_nos[stream], head });
        }
        streams
    }

    fn outcomes(&self, layout: &Layout, epoch: Epoch) -> Result<BatchResult, DatabaseError> {
        let mut outcomes = Vec::with_capacity(layout.request_appends.len());
        let mut last_position = None;
        let mut append = 0;
        for (request, &appends) in layout.request_appends.iter().enumerate() {
            let appends = append..append + appends as usize;
            let events: Vec<_> = appends.clone().map(|append| layout.events_of(append)).collect();
            let outcome = match self.request_outcomes[request] {
                0 => {
                    let written = appends.clone().zip(&events);
                    let appends = written.map(|(append, events)| self.written(layout, append, events.clone()));
                    Outcome::Written(Places { epoch, appends: appends.collect() })
                }
                1 => {
                    let appends = events.iter().map(|events| self.replayed(layout, events.clone()));
                    Outcome::Replayed(Places { epoch, appends: appends.collect::<Result<_, _>>()? })
                }
                2 => Outcome::VersionConflict(self.append_current_versions[appends.clone()].to_vec()),
                3 => Outcome::EventIdReused(self.known(layout, &events)),
                4 => Outcome::EventPartlyKnown(self.known(layout, &events)),
                other => return Err(unexpected(format!("append_events returned the outcome {other}"))),
            };
            if let Outcome::Written(places) | Outcome::Replayed(places) = &outcome {
                let events = places.appends.iter();
                last_position = last_position.max(events.flatten().map(|event| event.global_position).max());
            }
            outcomes.push(outcome);
            append = appends.end;
        }
        Ok(BatchResult { outcomes, last_position })
    }

    fn written(&self, layout: &Layout, append: usize, events: Range<usize>) -> Vec<Recorded> {
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

    fn replayed(&self, layout: &Layout, events: Range<usize>) -> Result<Vec<Recorded>, DatabaseError> {
        events
            .map(|event| {
                let recorded = || {
                    Some(Recorded {
                        event_id: layout.event_ids[event],
                        version: self.event_versions.as_ref()?[event]?,
                        global_position: self.event_positions.as_ref()?[event]?,
                        occurred_at: self.event_times.as_ref()?[event]?,
                    })
                };
                recorded().ok_or_else(|| unexpected("append_events returned a replay of an unknown event".to_owned()))
            })
            .collect()
    }

    fn known(&self, layout: &Layout, events: &[Range<usize>]) -> Vec<Uuid> {
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

fn unexpected(what: String) -> DatabaseError {
    DatabaseError::UnexpectedResult(what)
}
