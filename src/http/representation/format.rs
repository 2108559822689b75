//! The four representations of a list of events, selected by `Accept`.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::http::cache::NO_CACHE;
use crate::http::extract::accepts::accepted;
use crate::http::extract::query::Query;
use crate::http::media_type::{CLOUD_EVENTS, EVENT_STREAM, JSON, NDJSON};
use crate::http::problem::error::ApiResult;

/// The default number of events in a page, or of streams in a list.
pub const LIMIT_DEFAULT: usize = 100;
/// The largest number of events in a page, or of streams in a list.
pub const LIMIT_MAX: usize = 1_000;
/// The longest wait for events, in seconds.
pub const WAIT_SECONDS_MAX: u64 = 60;

/// The representation of a list of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representation {
    /// A JSON object with a list of events. It is built in memory, up to 8 MiB.
    Page,
    /// NDJSON: one event in each line, and an end line. It is sent piece by piece.
    Lines,
    /// Server-sent events: existing events, and new ones as they are appended.
    EventStream,
    /// A page as a batch of CloudEvents.
    CloudEvents,
}

impl Representation {
    const ALL: [Self; 4] = [Self::Page, Self::Lines, Self::EventStream, Self::CloudEvents];

    /// Returns the representation that the client prefers.
    pub fn from_headers(headers: &HeaderMap) -> ApiResult<Self> {
        let media_type = accepted(headers, &Self::ALL.map(Self::media_type))?;
        Ok(Self::ALL.into_iter().find(|known| known.media_type() == media_type).expect("it is one of those"))
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Page => JSON,
            Self::Lines => NDJSON,
            Self::EventStream => EVENT_STREAM,
            Self::CloudEvents => CLOUD_EVENTS,
        }
    }

    /// Returns the headers of every response in this representation.
    pub fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type()));
        headers.insert(header::CACHE_CONTROL, NO_CACHE);
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        if self == Self::EventStream {
            // Without it, nginx collects events until its buffer is full.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        headers
    }

    /// Takes `limit`: 1 to 1,000 for a page, any number for lines, none for an event stream.
    pub fn take_limit(self, query: &mut Query) -> ApiResult<Option<usize>> {
        match self {
            Self::Page | Self::CloudEvents => query.take_number("limit", 1, LIMIT_MAX),
            Self::Lines => query.take_number("limit", 1, usize::MAX),
            Self::EventStream => {
                query.refuse(&["limit"], "is not supported for an event stream, which has no end").map(|()| None)
            }
        }
    }
}
