//! NDJSON: events as lines, read and sent piece by piece, so that any number of lines needs the same memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::app::App;
use crate::domain::event::{Position, StoredEvent};
use crate::domain::version::Version;
use crate::http::base_path;
use crate::http::erasure_guard::PART_BYTES;
use crate::http::missing_events::report_if_event_missing;
use crate::http::problem::error::ApiError;
use crate::http::request_id::RequestId;
use crate::shares::client::ClientId;
use crate::store::erasures::known::ReadMark;
use crate::store::error::StoreError;
use crate::wire::event::write_event;

/// The approximate size of a piece, which is read at once, and sent in parts.
const PIECE_BYTES: usize = 256 * 1024;

/// A read that returns its events as lines.
pub trait LineSource: Clone + Send + Sized + 'static {
    /// Reads the next events into `lines`, until the piece is full or the read is complete. Returns the members of the
    /// end line, beside the count, if it is complete.
    fn read(&mut self, lines: &mut LineBuffer) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Goes back to the events after an event that this source has read.
    fn rewind_to(&mut self, last: LastLine);
}

/// The event of the last line that was sent.
#[derive(Debug, Clone, Copy)]
pub struct LastLine {
    pub global_position: Position,
    pub version: Version,
}

/// The lines of the next piece.
pub struct LineBuffer {
    buffer: Vec<u8>,
    progress: LineProgress,
    /// Where parts of the piece end, and the progress there.
    ends: Vec<(usize, LineProgress)>,
}

/// How many lines were written, in all pieces.
#[derive(Debug, Clone, Copy)]
struct LineProgress {
    /// The number of lines that may still be written.
    left: usize,
    count: usize,
    last: Option<LastLine>,
}

impl LineBuffer {
    /// Returns the number of lines that may still be written.
    pub fn left(&self) -> usize {
        self.progress.left
    }

    /// Adds an event. Stops the read when the piece is full.
    pub fn push(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        write_event(&mut self.buffer, event);
        self.buffer.push(b'\n');
        self.progress.count += 1;
        self.progress.left -= 1;
        self.progress.last = Some(LastLine { global_position: event.global_position, version: event.version });
        let part = self.buffer.len() - self.ends.last().map_or(0, |(end, _)| *end);
        if part >= PART_BYTES {
            self.ends.push((self.buffer.len(), self.progress));
        }
        if self.buffer.len() < PIECE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// The lines of a response, which are sent part by part.
struct Lines<S> {
    /// The source before the piece that is being sent, and the progress then.
    source: S,
    progress: LineProgress,
    /// The source after the piece; `None` after the last piece.
    next: Option<S>,
    /// The rest of the piece.
    parts: VecDeque<(Bytes, LineProgress)>,
    /// The newest erasure when the piece was read.
    mark: ReadMark,
    app: Arc<App>,
    request_id: RequestId,
}

/// Returns a body with at most `limit` events as lines, and one more line: the end line, or the error that ended the
/// read.
pub fn lines(app: &Arc<App>, source: impl LineSource, limit: usize, request_id: RequestId) -> Body {
    let (client, base) = (ClientId::current(), base_path::current());
    let lines = Lines {
        next: Some(source.clone()),
        source,
        progress: LineProgress { left: limit, count: 0, last: None },
        parts: VecDeque::new(),
        mark: app.feed.read_mark(),
        app: app.clone(),
        request_id,
    };
    let parts = stream::unfold(lines, move |mut lines| {
        client.clone().scope(base_path::scope(base.clone(), async move {
            let part = lines.next_part().await?;
            Some((Ok::<_, Infallible>(part), lines))
        }))
    });
    // The compression polls again after the end, which an unfold does not allow.
    Body::from_stream(parts.fuse())
}

impl<S: LineSource> Lines<S> {
    /// Returns the next part; `None` at the end.
    ///
    /// A client may take the parts of a piece slowly. If events were erased since the piece was read, its rest is read
    /// again.
    async fn next_part(&mut self) -> Option<Bytes> {
        if !self.parts.is_empty() && self.mark.is_void() {
            self.parts.clear();
            let mut source = self.source.clone();
            self.progress.last.into_iter().for_each(|last| source.rewind_to(last));
            self.next = Some(source);
        }
        if self.parts.is_empty() {
            let next = self.next.take()?;
            self.read_piece(next).await;
        }
        let (part, progress) = self.parts.pop_front()?;
        self.progress = progress;
        Some(part)
    }

    async fn read_piece(&mut self, mut source: S) {
        loop {
            self.mark = self.app.feed.read_mark();
            self.source = source.clone();
            let mut lines = LineBuffer { buffer: Vec::new(), progress: self.progress, ends: Vec::new() };
            let read = source.read(&mut lines).await;
            if self.mark.is_void() {
                source = self.source.clone();
                continue;
            }
            let LineBuffer { buffer: mut piece, progress, mut ends } = lines;
            match read {
                Ok(None) => self.next = Some(source),
                Ok(Some(end)) => {
                    let line = format!("{{\"end\":{{\"count\":{},{end}}}}}\n", progress.count);
                    piece.extend_from_slice(line.as_bytes());
                }
                Err(error) => {
                    report_if_event_missing(&self.app.metrics, &error);
                    piece.extend_from_slice(b"{\"error\":");
                    piece.extend_from_slice(&ApiError::from(error).problem().to_json(self.request_id.as_str()));
                    piece.extend_from_slice(b"}\n");
                }
            }
            ends.push((piece.len(), progress));
            let piece = Bytes::from(piece);
            let starts = std::iter::once(0).chain(ends.iter().map(|(end, _)| *end));
            let parts = starts.zip(&ends).map(|(start, (end, progress))| (piece.slice(start..*end), *progress));
            self.parts = parts.collect();
            return;
        }
    }
}
