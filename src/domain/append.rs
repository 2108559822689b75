//! Appends: what is asked for in one atomic step, and how it was decided.

use uuid::Uuid;

use super::event::{NewEvent, Recorded};
use super::name::StreamId;
use super::version::{ExpectedVersion, Version};

/// Events in one request, over all its streams.
pub const REQUEST_EVENTS_MAX: usize = 1_000;
/// Streams in one request.
pub const REQUEST_STREAMS_MAX: usize = 100;

/// Events for one stream.
#[derive(Debug, Clone)]
pub struct Append {
    pub stream: StreamId,
    pub expected: ExpectedVersion,
    pub events: Vec<NewEvent>,
}

/// One or more appends, all or nothing. No stream and no event id stands in it twice, and no append is empty.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    pub appends: Vec<Append>,
    /// Every event id was made for this request, at random: the log has none of them, unless the request was submitted before.
    pub ids_are_new: bool,
}

impl AppendRequest {
    pub fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.appends.iter().flat_map(|append| &append.events)
    }

    pub fn event_count(&self) -> usize {
        self.appends.iter().map(|append| append.events.len()).sum()
    }

    /// Bytes that the request takes up in the queue and in a batch, roughly.
    pub fn size(&self) -> usize {
        self.events().map(NewEvent::size).sum()
    }
}

/// How a request was decided; each list has one element an append, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Written and durable.
    Written(Vec<Vec<Recorded>>),
    /// All of it was written before, by the same event ids with equal content.
    Replayed(Vec<Vec<Recorded>>),
    /// A precondition failed; the streams were at these versions.
    VersionConflict(Vec<Version>),
    /// A known event id came with other content, or for another stream. These ids are known.
    EventIdReused(Vec<Uuid>),
    /// Some event ids are known and some are new, or they stand elsewhere than in this order. These ids are known.
    EventPartlyKnown(Vec<Uuid>),
}
