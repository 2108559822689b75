//! Events in an answer: four representations of one resource, chosen by `Accept`.
//!
//! Pages (JSON or CloudEvents) are built in memory, up to 8 MiB; lines are read and sent piece by piece; an event stream
//! (in `sse`) goes on for as long as somebody reads.

use std::convert::Infallible;
use std::ops::ControlFlow;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::conditional::NO_CACHE;
use super::middleware::RequestId;
use super::negotiate::{self, CLOUD_EVENTS, EVENT_STREAM, JSON, NDJSON};
use super::problem::{FieldError, Problem};
use super::query::Query;
use super::wire::{write_cloud_event, write_event};
use crate::store::StoredEvent;
use crate::store::error::StoreError;

/// Events of a page, and streams of a listing.
pub const LIMIT_DEFAULT: usize = 100;
pub const LIMIT_MAX: usize = 1_000;
/// A page ends here even if `limit` is not reached.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines are sent in pieces of about this size, so that memory stays the same for any number of them.
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Representation {
    /// A JSON object with a list of events.
    Page,
    /// NDJSON: an event a line, and a line that says that it was all.
    Lines,
    /// Server-sent events.
    EventStream,
    /// A batch of CloudEvents.
    CloudEvents,
}

impl Representation {
    const ALL: [Self; 4] = [Self::Page, Self::Lines, Self::EventStream, Self::CloudEvents];

    /// The one that the client likes best.
    pub fn of(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        let media_type = negotiate::accepted(headers, &Self::ALL.map(Self::media_type))?;
        Ok(Self::ALL.into_iter().find(|known| known.media_type() == media_type).expect("it was offered"))
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Page => JSON,
            Self::Lines => NDJSON,
            Self::EventStream => EVENT_STREAM,
            Self::CloudEvents => CLOUD_EVENTS,
        }
    }

    /// The headers that every answer in this representation has.
    pub fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type()));
        headers.insert(header::CACHE_CONTROL, NO_CACHE);
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        if self == Self::EventStream {
            // nginx would otherwise collect events until its buffer is full.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        }
        headers
    }

    /// Takes `limit`: of a page's events 1 to 1,000, of lines any; an event stream has none.
    pub fn take_limit(self, query: &mut Query) -> Result<Option<usize>, Box<Problem>> {
        match self {
            Self::Page | Self::CloudEvents => query.take_number("limit", 1, LIMIT_MAX),
            Self::Lines => query.take_number("limit", 1, usize::MAX),
            Self::EventStream => {
                refuse(query, &["limit"], "is not for an event stream, which has no end").map(|()| None)
            }
        }
    }
}

/// Refuses parameters that make no sense in a representation.
pub fn refuse(query: &mut Query, names: &[&str], why: &str) -> Result<(), Box<Problem>> {
    for name in names {
        if query.take(name)?.is_some() {
            return Err(Problem::invalid(FieldError::parameter(*name, why)));
        }
    }
    Ok(())
}

/// The answer that needs no body: the client has this version already, or asks for the headers alone.
pub fn without_body(method: &Method, unchanged: bool, headers: &HeaderMap) -> Option<Response> {
    if unchanged {
        let mut headers = headers.clone();
        headers.remove(header::CONTENT_TYPE);
        return Some((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    // A body of unknown length: no Content-Length may say that the page is empty (RFC 9110 section 8.6).
    let no_body = || Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    (method == Method::HEAD).then(|| (headers.clone(), no_body()).into_response())
}

/// The end of a page that leads on, or is the last; a link has nothing that JSON would escape.
pub fn next_member(next: Option<&str>) -> String {
    next.map_or(",\"next\":null}".to_owned(), |next| format!(",\"next\":\"{next}\"}}"))
}

/// The value of a `Link` header.
pub fn link_to_next(next: &str) -> HeaderValue {
    HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).expect("links are percent-encoded")
}

/// A page's events, on their way into its buffer.
pub struct PageEvents {
    buffer: Vec<u8>,
    cloud_events: bool,
    count: usize,
}

impl PageEvents {
    /// The list begins after `head`, which is part of the page.
    pub fn after(head: &[u8], representation: Representation) -> Self {
        let cloud_events = representation == Representation::CloudEvents;
        let mut buffer = Vec::with_capacity(4 * 1024);
        if !cloud_events {
            buffer.extend_from_slice(head);
        }
        buffer.push(b'[');
        Self { buffer, cloud_events, count: 0 }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_full(&self) -> bool {
        self.buffer.len() >= PAGE_BYTES_MAX
    }

    /// Adds an event; breaks off when the page is full.
    pub fn take(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        if self.count > 0 {
            self.buffer.push(b',');
        }
        self.count += 1;
        let write = if self.cloud_events { write_cloud_event } else { write_event };
        write(&mut self.buffer, event);
        if self.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The page, which ends with `tail`; a batch of CloudEvents is the list alone.
    pub fn finish(mut self, tail: &str) -> Vec<u8> {
        self.buffer.push(b']');
        if !self.cloud_events {
            self.buffer.extend_from_slice(tail.as_bytes());
        }
        self.buffer
    }
}

/// Where lines come from.
pub trait LineSource: Send + Sized + 'static {
    /// Reads the next lines into `piece`, until it is full or there are no more; at the end, what the end line says besides
    /// the count.
    fn read(&mut self, piece: &mut Piece) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
}

/// Lines that are sent together.
pub struct Piece {
    buffer: Vec<u8>,
    /// Lines that may still be written, of this piece and all others.
    left: usize,
    count: usize,
}

impl Piece {
    pub fn left(&self) -> usize {
        self.left
    }

    pub fn take(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        write_event(&mut self.buffer, event);
        self.buffer.push(b'\n');
        self.count += 1;
        self.left -= 1;
        if self.buffer.len() < PIECE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// At most `limit` lines, and one more that says whether they are all.
pub fn lines(source: impl LineSource, limit: usize, request_id: RequestId) -> Body {
    let begin = Some((source, Piece { buffer: Vec::new(), left: limit, count: 0 }));
    let pieces = stream::unfold(begin, move |state| {
        let request_id = request_id.clone();
        async move {
            let (mut source, mut piece) = state?;
            let read = source.read(&mut piece).await;
            let mut buffer = std::mem::take(&mut piece.buffer);
            let going_on = match read {
                Ok(None) => Some((source, piece)),
                Ok(Some(end)) => {
                    let line = format!("{{\"end\":{{\"count\":{},{end}}}}}\n", piece.count);
                    buffer.extend_from_slice(line.as_bytes());
                    None
                }
                Err(error) => {
                    buffer.extend_from_slice(b"{\"error\":");
                    buffer.extend_from_slice(&Box::<Problem>::from(error).body(request_id.as_str()));
                    buffer.extend_from_slice(b"}\n");
                    None
                }
            };
            Some((Ok::<_, Infallible>(Bytes::from(buffer)), going_on))
        }
    });
    // The compression asks once more after the end, which an unfold must not be.
    Body::from_stream(pieces.fuse())
}
