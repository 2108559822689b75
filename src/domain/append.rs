//! Append requests, each committed as a whole or not at all, and their outcomes.

use uuid::Uuid;

use crate::domain::cursor::Epoch;
use crate::domain::event::{NewEvent, Recorded};
use crate::domain::name::StreamId;
use crate::domain::version::{ExpectedVersion, Version};

/// The largest number of events in one request, summed over all of its streams.
pub const REQUEST_EVENTS_MAX: usize = 1_000;
/// The largest number of streams in one request.
pub const REQUEST_STREAMS_MAX: usize = 100;

/// The largest size of a request body that can be configured, in bytes. A line of an import may have as large documents.
pub const BODY_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// New events for one stream, with the version that the client expects.
#[derive(Debug, Clone)]
pub struct Append {
    pub stream: StreamId,
    pub expected: ExpectedVersion,
    pub events: Vec<NewEvent>,
}

/// One or more appends that are committed together or not at all.
///
/// No stream and no event id occurs twice, and no append is empty.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    pub appends: Vec<Append>,
}

impl AppendRequest {
    /// Returns the events of all appends, in order.
    pub fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.appends.iter().flat_map(|append| &append.events)
    }

    /// Returns the number of events of all appends.
    pub fn event_count(&self) -> usize {
        self.appends.iter().map(|append| append.events.len()).sum()
    }

    /// Returns the approximate size of the request in the queue and in a batch, in bytes.
    pub fn size(&self) -> usize {
        self.events().map(NewEvent::size).sum()
    }
}

/// The places of the events of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The epoch of the log when the request was decided.
    pub epoch: Epoch,
    /// The events of each append, in the order of the request.
    pub appends: Vec<Vec<Recorded>>,
}

/// The outcome of a request. The list of `VersionConflict` has one element for each append, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The events are committed and durable.
    Written(Places),
    /// An earlier request wrote all events, with the same ids and equal content.
    Replayed(Places),
    /// An expected version does not match. The versions are those of the streams when the request was checked.
    VersionConflict(Vec<Version>),
    /// The log contains these event ids with different content, or in another stream.
    EventIdReused(Vec<Uuid>),
    /// The log contains these event ids, but the other ones of the request are new, or the order differs.
    EventPartlyKnown(Vec<Uuid>),
}
