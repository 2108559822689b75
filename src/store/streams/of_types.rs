//! The list of the streams of several types, in the byte order of types and ids.
//!
//! A statement walks from one stream to the next, and from one type to the next, by probes of the index of `streams`.
//! So a page costs what it returns, and a prefix of ids that few types have costs two probes for each type. A page ends
//! when its time is up, and returns the place up to which it has read.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::domain::name_range::NameRange;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::reader::Reader;
use crate::store::streams::head::StreamHead;

/// The largest number of types that one statement visits.
const TYPES_MAX: usize = 1_000;

const STREAMS_OF_TYPES: &str = include_str!("../sql/streams_of_types.sql");

/// A place in the list: all streams of types before `aggregate_type`, and its streams up to `aggregate_id`, are listed.
/// The id is empty if the streams of the type are not listed yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPlace {
    pub aggregate_type: String,
    pub aggregate_id: String,
}

/// A stream in the list.
#[derive(Debug, Clone)]
pub struct StreamOfType {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub head: StreamHead,
}

/// Which streams a page of the list has.
#[derive(Debug, Clone, Copy)]
pub struct ListRead<'r> {
    /// In order, without overlaps.
    pub types: &'r [NameRange],
    pub ids: &'r NameRange,
    pub after: &'r ListPlace,
    /// The largest number of streams.
    pub limit: usize,
    /// No further statement begins after this time.
    pub time: Duration,
}

/// A page of the list.
#[derive(Debug, Clone)]
pub struct StreamPage {
    pub streams: Vec<StreamOfType>,
    /// Where the list continues; `None` at its end.
    pub next: Option<ListPlace>,
}

/// A step of the walk: a stream with its head, or the beginning of a type.
type Step = (String, String, bool, Option<Version>, Option<DateTime<Utc>>, Option<DateTime<Utc>>);

impl Reader {
    /// Returns a page of the list.
    pub async fn list_streams_of_types(&self, read: ListRead<'_>) -> Result<StreamPage, StoreError> {
        let ListRead { types, ids, after, limit, time } = read;
        let deadline = Instant::now() + time;
        let mut place = after.clone();
        let mut streams = Vec::new();
        let mut remaining = types.iter().filter_map(|range| range.starting_at(&after.aggregate_type));
        let mut range = remaining.next();
        while let Some(types) = range {
            if place.aggregate_type < types.from {
                place = ListPlace { aggregate_type: types.from.clone(), aggregate_id: String::new() };
            }
            // One more than requested shows whether there is a next page.
            let wanted = limit + 1 - streams.len();
            let steps = self.walk_streams(&types, ids, &place, wanted).await?;
            let begun = steps.iter().filter(|step| !step.2).count();
            let found = steps.len() - begun;
            if let Some((aggregate_type, aggregate_id, ..)) = steps.last() {
                place = ListPlace { aggregate_type: aggregate_type.clone(), aggregate_id: aggregate_id.clone() };
            }
            streams.extend(steps.into_iter().filter_map(stream_of_step));
            if streams.len() > limit {
                streams.truncate(limit);
                let last: Option<&StreamOfType> = streams.last();
                let next = last.map_or(place, StreamOfType::place);
                return Ok(StreamPage { streams, next: Some(next) });
            }
            // With fewer streams and fewer types than requested, the walk has reached the end of the range.
            let is_at_end = found < wanted && begun < TYPES_MAX;
            range = if is_at_end { remaining.next() } else { types.starting_at(&place.aggregate_type) };
            if let Some(next) = &range
                && Instant::now() >= deadline
            {
                if place.aggregate_type < next.from {
                    place = ListPlace { aggregate_type: next.from.clone(), aggregate_id: String::new() };
                }
                return Ok(StreamPage { streams, next: Some(place) });
            }
        }
        Ok(StreamPage { streams, next: None })
    }

    /// Runs one walk through the types of a range, from a place on.
    async fn walk_streams(
        &self,
        types: &NameRange,
        ids: &NameRange,
        place: &ListPlace,
        limit: usize,
    ) -> Result<Vec<Step>, StoreError> {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let steps = sqlx::query_as(STREAMS_OF_TYPES)
            .bind(&place.aggregate_type)
            .bind(&types.end)
            .bind(&place.aggregate_id)
            .bind(&ids.from)
            .bind(&ids.end)
            .bind(number(limit))
            .bind(number(TYPES_MAX))
            .bind(self.open_from())
            .fetch_all(&mut *self.acquire().await?)
            .await?;
        Ok(steps)
    }
}

impl StreamOfType {
    /// Returns the place after this stream.
    fn place(&self) -> ListPlace {
        ListPlace { aggregate_type: self.aggregate_type.clone(), aggregate_id: self.aggregate_id.clone() }
    }
}

/// Returns the stream of a step; `None` if a type begins.
fn stream_of_step(step: Step) -> Option<StreamOfType> {
    let (aggregate_type, aggregate_id, _, version, first_occurred_at, last_occurred_at) = step;
    let head =
        StreamHead { version: version?, first_occurred_at: first_occurred_at?, last_occurred_at: last_occurred_at? };
    Some(StreamOfType { aggregate_type, aggregate_id, head })
}
