//! NDJSON: events as lines, read and sent piece by piece, so that any number of lines needs the same memory.

use std::convert::Infallible;
use std::ops::ControlFlow;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::app::App;
use crate::domain::event::StoredEvent;
use crate::http::missing_events::report_if_event_missing;
use crate::http::problem::error::ApiError;
use crate::http::request_id::RequestId;
use crate::shares::client::ClientId;
use crate::store::error::StoreError;
use crate::wire::event::write_event;

/// The approximate size of a piece.
const PIECE_BYTES: usize = 256 * 1024;

/// A read that returns its events as lines.
pub trait LineSource: Send + Sized + 'static {
    /// Reads the next events into `lines`, until the piece is full or the read is complete. Returns the members of the
    /// end line, beside the count, if it is complete.
    fn read(&mut self, lines: &mut LineBuffer) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
}

/// The lines of the next piece.
pub struct LineBuffer {
    buffer: Vec<u8>,
    /// The number of lines that may still be written, in all pieces.
    left: usize,
    /// The number of lines that were written, in all pieces.
    count: usize,
}

impl LineBuffer {
    /// Returns the number of lines that may still be written.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Adds an event. Stops the read when the piece is full.
    pub fn push(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        write_event(&mut self.buffer, event);
        self.buffer.push(b'\n');
        self.count += 1;
        self.left -= 1;
        if self.buffer.len() < PIECE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// Returns a body with at most `limit` events as lines, and one more line: the end line, or the error that ended the
/// read.
pub fn lines(app: &App, source: impl LineSource, limit: usize, request_id: RequestId) -> Body {
    let (metrics, client) = (app.metrics.clone(), ClientId::current());
    let first = Some((source, LineBuffer { buffer: Vec::new(), left: limit, count: 0 }));
    let pieces = stream::unfold(first, move |state| {
        let (metrics, request_id) = (metrics.clone(), request_id.clone());
        client.clone().scope(async move {
            let (mut source, mut lines) = state?;
            let read = source.read(&mut lines).await;
            let mut piece = std::mem::take(&mut lines.buffer);
            let next = match read {
                Ok(None) => Some((source, lines)),
                Ok(Some(end)) => {
                    let line = format!("{{\"end\":{{\"count\":{},{end}}}}}\n", lines.count);
                    piece.extend_from_slice(line.as_bytes());
                    None
                }
                Err(error) => {
                    report_if_event_missing(&metrics, &error);
                    piece.extend_from_slice(b"{\"error\":");
                    piece.extend_from_slice(&ApiError::from(error).problem().to_json(request_id.as_str()));
                    piece.extend_from_slice(b"}\n");
                    None
                }
            };
            Some((Ok::<_, Infallible>(Bytes::from(piece)), next))
        })
    });
    // The compression polls again after the end, which an unfold does not allow.
    Body::from_stream(pieces.fuse())
}
