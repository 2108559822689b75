//! Pages: lists of events that are built in memory.

use std::ops::ControlFlow;

use axum::http::HeaderValue;

use crate::domain::event::StoredEvent;
use crate::http::representation::format::Representation;
use crate::wire::event::{write_cloud_event, write_event};

/// The largest link of the log in the header `Link`. The body of a page has the link in any case.
pub const LOG_LINK_BYTES_MAX: usize = 2_000;
/// A page ends at this size, even if `limit` is not reached.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A page whose events are being written.
pub struct PageEvents {
    buffer: Vec<u8>,
    cloud_events: bool,
    count: usize,
}

impl PageEvents {
    /// Begins the list of events after `head`, which is part of the page. A batch of CloudEvents is the list only.
    pub fn new(head: &[u8], representation: Representation) -> Self {
        let cloud_events = representation == Representation::CloudEvents;
        let mut buffer = Vec::with_capacity(4 * 1024);
        if !cloud_events {
            buffer.extend_from_slice(head);
        }
        buffer.push(b'[');
        Self { buffer, cloud_events, count: 0 }
    }

    /// Returns the number of events.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns whether the page has its largest size.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= PAGE_BYTES_MAX
    }

    /// Adds an event. Stops the read when the page is full.
    pub fn push(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        if self.count > 0 {
            self.buffer.push(b',');
        }
        self.count += 1;
        let write = if self.cloud_events { write_cloud_event } else { write_event };
        write(&mut self.buffer, event);
        if self.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the list, and ends the page with `tail`.
    pub fn finish(mut self, tail: &str) -> Vec<u8> {
        self.buffer.push(b']');
        if !self.cloud_events {
            self.buffer.extend_from_slice(tail.as_bytes());
        }
        self.buffer
    }
}

/// Formats the last member of a page. Links are percent-encoded, so JSON needs no escapes.
pub fn next_member(next: Option<&str>) -> String {
    next.map_or(",\"next\":null}".to_owned(), |next| format!(",\"next\":\"{next}\"}}"))
}

/// Formats the header `Link` to the next page.
pub fn link_to_next(next: &str) -> HeaderValue {
    HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).expect("links are percent-encoded")
}
