//! NDJSON: events as lines, read and sent piece by piece, so that any number of lines needs the same memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

use crate::app::App;
use crate::domain::event::{Position, StoredEvent};
use crate::domain::version::Version;
use crate::http::base_path;
use crate::http::erasure_guard::PART_BYTES;
use crate::http::missing_events::report_if_event_missing;
use crate::http::problem::error::ApiError;
use crate::http::request_id::RequestId;
use crate::shares::client::ClientId;
use crate::shares::limit::Share;
use crate::store::erasures::known::ReadMark;
use crate::store::error::StoreError;
use crate::subscriptions::feed::AHEAD_BYTES;
use crate::wire::event::write_event;
use crate::wire::path::BasePath;

/// The approximate size of a piece, which is read at once, and sent in parts, if its reader may not read ahead.
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
    piece_bytes: usize,
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
    fn new(piece_bytes: usize, progress: LineProgress) -> Self {
        // The last event of a piece exceeds its size.
        let bytes = progress.left.saturating_mul(512).min(piece_bytes + piece_bytes / 16);
        Self { piece_bytes, buffer: Vec::with_capacity(bytes), progress, ends: Vec::new() }
    }

    /// Returns the approximate size of a piece.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

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
        if self.buffer.len() < self.piece_bytes { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// The lines of a response, which are sent part by part. If the client may read ahead, the next piece is read while the
/// parts of one are sent. A client that reads slowly holds these pieces; the connection is released when a piece is read.
struct Lines<S> {
    piece: Piece<S>,
    /// The progress at the end of the last part that was sent.
    sent: LineProgress,
    /// The piece after this one; `None` after the last piece.
    next: Option<NextPiece<S>>,
    /// The permission to read ahead, which a response needs after its first piece.
    read_ahead: Option<Share>,
    context: Arc<ReadContext>,
}

enum NextPiece<S> {
    StartsAt(PieceStart<S>),
    /// A task reads it. The task ends when the handle is dropped.
    Read(AbortOnDropHandle<Piece<S>>),
}

/// A piece of the lines.
struct Piece<S> {
    start: PieceStart<S>,
    /// The parts that were not sent yet, and the progress at the end of each.
    parts: VecDeque<(Bytes, LineProgress)>,
    /// The newest erasure when the piece was read.
    mark: ReadMark,
    /// Where the next piece starts; `None` after the last one.
    end: Option<PieceStart<S>>,
}

/// Where a piece starts.
#[derive(Clone)]
struct PieceStart<S> {
    source: S,
    progress: LineProgress,
}

/// What every read of a piece needs.
struct ReadContext {
    app: Arc<App>,
    request_id: RequestId,
    client: ClientId,
    base: BasePath,
}

/// Returns a body with at most `limit` events as lines, and one more line: the end line, or the error that ended the
/// read.
pub fn lines(app: &Arc<App>, source: impl LineSource, limit: usize, request_id: RequestId) -> Body {
    let (client, base) = (ClientId::current(), base_path::current());
    let context = Arc::new(ReadContext { app: app.clone(), request_id, client, base });
    let start = PieceStart { source, progress: LineProgress { left: limit, count: 0, last: None } };
    let lines = Lines {
        sent: start.progress,
        next: Some(NextPiece::StartsAt(start.clone())),
        piece: Piece { start, parts: VecDeque::new(), mark: app.feed.read_mark(), end: None },
        read_ahead: None,
        context,
    };
    let parts = stream::unfold(lines, |mut lines| async move {
        let part = lines.next_part().await?;
        Some((Ok::<_, Infallible>(part), lines))
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
        if self.piece.parts.is_empty() {
            let next = self.next.take()?;
            self.piece = self.read(next).await?;
        }
        if self.piece.mark.is_void() {
            let mut start = self.piece.start.clone();
            start.progress = self.sent;
            self.sent.last.into_iter().for_each(|last| start.source.rewind_to(last));
            self.piece = self.read(NextPiece::StartsAt(start)).await?;
        }
        let (part, progress) = self.piece.parts.pop_front()?;
        self.sent = progress;
        Some(part)
    }

    /// Reads a piece, and begins to read the one after it. Returns `None` if the runtime ends.
    async fn read(&mut self, piece: NextPiece<S>) -> Option<Piece<S>> {
        let reading = match piece {
            NextPiece::StartsAt(start) => self.start_read(start),
            NextPiece::Read(reading) => reading,
        };
        let mut piece = match reading.await {
            Ok(piece) => piece,
            // A panic of the task is a panic of the request.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return None,
        };
        self.next = piece.end.take().map(|start| {
            if self.read_ahead.is_none() {
                self.read_ahead = self.context.app.feed.try_read_ahead(self.context.client.clone());
            }
            match self.read_ahead {
                Some(_) => NextPiece::Read(self.start_read(start)),
                None => NextPiece::StartsAt(start),
            }
        });
        Some(piece)
    }

    /// Starts a task that reads a piece.
    fn start_read(&self, start: PieceStart<S>) -> AbortOnDropHandle<Piece<S>> {
        let piece_bytes = if self.read_ahead.is_some() { AHEAD_BYTES } else { PIECE_BYTES };
        let context = self.context.clone();
        let (client, base) = (context.client.clone(), context.base.clone());
        let read = async move { context.read_piece(start, piece_bytes).await };
        AbortOnDropHandle::new(tokio::spawn(client.scope(base_path::scope(base, read))))
    }
}

impl ReadContext {
    async fn read_piece<S: LineSource>(&self, start: PieceStart<S>, piece_bytes: usize) -> Piece<S> {
        loop {
            let mark = self.app.feed.read_mark();
            let mut source = start.source.clone();
            let mut lines = LineBuffer::new(piece_bytes, start.progress);
            let read = source.read(&mut lines).await;
            if mark.is_void() {
                continue;
            }
            let LineBuffer { buffer: mut piece, progress, mut ends, .. } = lines;
            let mut end = None;
            match read {
                Ok(None) => end = Some(PieceStart { source, progress }),
                Ok(Some(members)) => {
                    let line = format!("{{\"end\":{{\"count\":{},{members}}}}}\n", progress.count);
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
            return Piece { start, parts: parts.collect(), mark, end };
        }
    }
}
