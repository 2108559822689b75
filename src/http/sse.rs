//! Server-sent events (HTML Living Standard, section 9.2): a subscription as an endless answer.
//!
//! The frames are written here and not by a library, because the ring holds each event serialised once for all who follow;
//! all there is to them is `id:`, `data:` in one line (no JSON text has a line break) and an empty line.

use std::convert::Infallible;
use std::io::Write;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::Position;
use crate::domain::version::Version;
use crate::store::log::LogHead;
use crate::subscriptions::{Batch, Delivery, FeedLimits, Subscription};

/// First, and last before a shutdown: when a client that lost the stream comes back, in milliseconds.
const RETRY: &[u8] = b"retry: 2000\n\n";
/// A line that clients pass over.
const COMMENT: &[u8] = b":\n\n";

/// What `id:` says.
#[derive(Debug, Clone, Copy)]
pub enum Ids {
    /// `epoch:position`
    Positions,
    /// The version of a stream; the last one that the client has.
    Versions(Version),
}

struct EventStream {
    subscription: Subscription,
    limits: FeedLimits,
    ids: Ids,
    epoch: Epoch,
    /// Everything up to here was looked at.
    position: Position,
    /// The position that the client knows.
    told: Position,
    /// Where the log stood at the beginning; `None` once the client knows that it has come that far.
    catch_up_to: Option<Position>,
    sent_at: Instant,
}

/// The answer to whoever follows from `after` on; `head` is where the log stands.
pub fn event_stream(subscription: Subscription, limits: FeedLimits, ids: Ids, after: Position, head: &LogHead) -> Body {
    let stream = EventStream {
        subscription,
        limits,
        ids,
        epoch: head.epoch,
        position: after,
        told: after,
        catch_up_to: Some(head.global_position),
        sent_at: Instant::now(),
    };
    let begin = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(RETRY)) });
    let rest = stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        let (piece, goes_on) = stream.piece().await;
        Some((Ok::<_, Infallible>(piece), goes_on.then_some(stream)))
    });
    Body::from_stream(begin.chain(rest).fuse())
}

impl EventStream {
    /// The next frames, and whether others follow.
    async fn piece(&mut self) -> (Bytes, bool) {
        let mut piece = Vec::new();
        while piece.is_empty() {
            self.say_that_it_has_caught_up(&mut piece);
            if !piece.is_empty() {
                break;
            }
            let quiet = if self.position > self.told { self.limits.heartbeat } else { self.limits.keep_alive };
            match self.subscription.next(self.sent_at + quiet).await {
                Ok(Delivery::Batch(batch)) => self.write_events(&mut piece, batch),
                Ok(Delivery::Nothing) => {}
                Ok(Delivery::Ended) => return (Bytes::from_static(RETRY), false),
                Err(error) => {
                    tracing::error!(%error, "an event stream breaks off");
                    return (Bytes::from_static(RETRY), false);
                }
            }
            if piece.is_empty() && self.sent_at.elapsed() >= quiet {
                if quiet == self.limits.keep_alive {
                    piece.extend_from_slice(COMMENT);
                }
                self.write_note(&mut piece, "heartbeat");
            }
        }
        self.sent_at = Instant::now();
        (piece.into(), true)
    }

    fn write_events(&mut self, piece: &mut Vec<u8>, batch: Batch) {
        self.epoch = batch.epoch;
        piece.reserve(batch.events.iter().map(|event| event.json.len() + 48).sum());
        for event in &batch.events {
            self.told = event.global_position;
            if let Ids::Versions(version) = &mut self.ids {
                *version = event.version;
            }
            self.write_id(piece);
            piece.extend_from_slice(b"data: ");
            piece.extend_from_slice(&event.json);
            piece.extend_from_slice(b"\n\n");
        }
        self.position = batch.position;
    }

    fn say_that_it_has_caught_up(&mut self, piece: &mut Vec<u8>) {
        if self.catch_up_to.is_some_and(|head| self.position >= head) {
            self.catch_up_to = None;
            self.write_note(piece, "caught-up");
        }
    }

    /// A named event that says where the subscription stands.
    fn write_note(&mut self, piece: &mut Vec<u8>, name: &str) {
        self.told = self.position;
        piece.extend_from_slice(format!("event: {name}\n").as_bytes());
        self.write_id(piece);
        piece.extend_from_slice(format!("data: {{\"position\":{}}}\n\n", self.position).as_bytes());
    }

    fn write_id(&self, piece: &mut Vec<u8>) {
        match self.ids {
            Ids::Positions => writeln!(piece, "id: {}", Cursor { epoch: Some(self.epoch), position: self.told }),
            Ids::Versions(version) => writeln!(piece, "id: {version}"),
        }
        .expect("writing to memory does not fail");
    }
}
