//! Event streams: a subscription as server-sent events (HTML Living Standard, section 9.2).
//!
//! The frames are written here and not by a library, because the ring buffer holds the JSON of each event once for all
//! subscribers. A frame is `id:`, `data:` in one line (no JSON text has a line break) and an empty line.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::app::App;
use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::domain::version::Version;
use crate::http::erasure_guard::PART_BYTES;
use crate::http::missing_events::report_if_event_missing;
use crate::metrics::Metrics;
use crate::store::erasures::known::ReadMark;
use crate::store::log::head::LogHead;
use crate::subscriptions::feed::{Feed, FeedLimits};
use crate::subscriptions::subscription::{Batch, Delivery, Subscription};
use crate::wire::event::write_number;

/// The first frame, and the last one before the server ends the stream: the milliseconds after which a client
/// reconnects.
const RETRY: &[u8] = b"retry: 2000\n\n";
/// A comment line, which clients ignore.
const COMMENT: &[u8] = b":\n\n";

/// The content of `id:`.
#[derive(Debug, Clone, Copy)]
pub enum EventIdFormat {
    /// `epoch:position`
    Position,
    /// The version of an event in its stream. The value is the last version that the client has.
    Version(Version),
}

struct EventStream {
    subscription: Subscription,
    feed: Arc<Feed>,
    limits: FeedLimits,
    metrics: Arc<Metrics>,
    id_format: EventIdFormat,
    epoch: Epoch,
    /// Every event up to this position was examined.
    position: Position,
    /// The last position that was sent to the client.
    last_reported: Position,
    /// The head of the log at the start of the request; `None` after `caught-up` was sent.
    catch_up_to: Option<Position>,
    sent_at: Instant,
    /// The last time at which the subscription was asked for events.
    checked_at: Instant,
    /// The rest of the frames that were read at once.
    parts: VecDeque<Bytes>,
    /// The newest erasure when they were read.
    mark: ReadMark,
}

/// Returns the body of a response that sends the events of a subscription after a position. `head` is the head of the
/// log at the start of the request.
pub fn event_stream(
    app: &App,
    subscription: Subscription,
    id_format: EventIdFormat,
    after: Position,
    head: &LogHead,
) -> Body {
    let stream = EventStream {
        subscription,
        feed: app.feed.clone(),
        limits: *app.feed.limits(),
        metrics: app.metrics.clone(),
        id_format,
        epoch: head.epoch,
        position: after,
        last_reported: after,
        catch_up_to: Some(head.global_position),
        sent_at: Instant::now(),
        checked_at: Instant::now(),
        parts: VecDeque::new(),
        mark: app.feed.read_mark(),
    };
    let first = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(RETRY)) });
    let rest = stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        let (frames, continues) = stream.next_part().await;
        Some((Ok::<_, Infallible>(frames), continues.then_some(stream)))
    });
    Body::from_stream(first.chain(rest).fuse())
}

/// Splits frames into parts. A frame ends with an empty line.
fn parts(mut frames: Bytes) -> VecDeque<Bytes> {
    let mut parts = VecDeque::new();
    while frames.len() > PART_BYTES {
        let end = frames[PART_BYTES..].windows(2).position(|pair| pair == b"\n\n");
        parts.push_back(frames.split_to(end.map_or(frames.len(), |end| PART_BYTES + end + 2)));
    }
    if !frames.is_empty() {
        parts.push_back(frames);
    }
    parts
}

impl EventStream {
    /// Waits for the next frames. Returns the next part of them, and whether more can follow.
    ///
    /// A client may take the parts slowly. If events were erased since the frames were read, the stream ends, and the
    /// client resumes after the last event that it has received.
    async fn next_part(&mut self) -> (Bytes, bool) {
        if self.parts.is_empty() {
            let (frames, continues) = self.next_frames().await;
            if frames.len() <= PART_BYTES || !continues {
                return (frames, continues);
            }
            self.mark = self.feed.read_mark();
            self.parts = parts(frames);
        } else if self.mark.is_void() {
            return (Bytes::from_static(RETRY), false);
        }
        (self.parts.pop_front().unwrap_or_default(), true)
    }

    /// Waits for the next frames. Returns them, and whether more can follow.
    async fn next_frames(&mut self) -> (Bytes, bool) {
        let mut frames = Vec::new();
        while frames.is_empty() {
            self.write_caught_up(&mut frames);
            if !frames.is_empty() {
                break;
            }
            // At the deadline the subscription moves past events that it does not want.
            let FeedLimits { heartbeat, keep_alive, .. } = self.limits;
            let is_reported = self.position == self.last_reported;
            let last = if is_reported { self.sent_at.max(self.checked_at) } else { self.sent_at };
            let deadline = (last + heartbeat).min(self.sent_at + keep_alive);
            match self.subscription.next(deadline).await {
                Ok(Delivery::Batch(batch)) => self.write_events(&mut frames, batch),
                Ok(Delivery::Nothing) => {}
                Ok(Delivery::Ended) => return (Bytes::from_static(RETRY), false),
                Err(error) => {
                    report_if_event_missing(&self.metrics, &error);
                    tracing::error!(%error, "event stream aborted");
                    return (Bytes::from_static(RETRY), false);
                }
            }
            self.checked_at = Instant::now();
            let silence = if self.position > self.last_reported { heartbeat } else { keep_alive };
            if frames.is_empty() && self.sent_at.elapsed() >= silence {
                if silence == keep_alive {
                    frames.extend_from_slice(COMMENT);
                }
                self.write_position(&mut frames, "heartbeat");
            }
        }
        self.sent_at = Instant::now();
        (frames.into(), true)
    }

    fn write_events(&mut self, frames: &mut Vec<u8>, batch: Batch) {
        self.epoch = batch.epoch;
        frames.reserve(batch.events.iter().map(|event| event.json.len() + 48).sum());
        for event in &batch.events {
            self.last_reported = event.global_position;
            if let EventIdFormat::Version(version) = &mut self.id_format {
                *version = event.version;
            }
            self.write_id(frames);
            frames.extend_from_slice(b"data: ");
            frames.extend_from_slice(&event.json);
            frames.extend_from_slice(b"\n\n");
        }
        self.position = batch.position;
    }

    /// Writes `caught-up` once every event that existed at the start was sent.
    fn write_caught_up(&mut self, frames: &mut Vec<u8>) {
        if self.catch_up_to.is_some_and(|head| self.position >= head) {
            self.catch_up_to = None;
            self.write_position(frames, "caught-up");
        }
    }

    /// Writes a named event with the position of the subscription.
    fn write_position(&mut self, frames: &mut Vec<u8>, name: &str) {
        self.last_reported = self.position;
        frames.extend_from_slice(format!("event: {name}\n").as_bytes());
        self.write_id(frames);
        frames.extend_from_slice(format!("data: {{\"position\":{}}}\n\n", self.position).as_bytes());
    }

    fn write_id(&self, frames: &mut Vec<u8>) {
        frames.extend_from_slice(b"id: ");
        match self.id_format {
            EventIdFormat::Position => {
                write_number(frames, self.epoch);
                frames.push(b':');
                write_number(frames, self.last_reported);
            }
            EventIdFormat::Version(version) => write_number(frames, version),
        }
        frames.push(b'\n');
    }
}
