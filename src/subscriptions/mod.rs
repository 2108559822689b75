//! Live subscriptions: one tailer a process reads the log as it grows, and everybody who follows reads what it has read.
//!
//! ```text
//! table ── tailer ── ring (bounded) ── subscription ── subscription ── …
//!   │        └ woken by our own commits, else it polls        │
//!   └──────────── a subscription that is behind the ring ─────┘
//! ```
//!
//! Invariants:
//! - The table is the feed. The ring holds a contiguous stretch of it; what is not in the ring is read from the table, so
//!   nobody can miss an event by being slow, late or unlucky.
//! - A subscription hands out positions in increasing order and never one twice.
//! - A slow subscriber costs the others nothing: it holds one batch, and no connection while its client does not read.
//! - Without subscribers the tailer reads no events, only where the log stands.

mod ring;
mod subscription;
pub mod tailer;

pub use ring::LiveEvent;
pub use subscription::{Batch, Delivery, Origin, Subscription};

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::store::log::ScanLimits;
use crate::store::{Store, StoredEvent};
use ring::Ring;

/// Writes an event as subscribers get it; the wire format is not known here.
pub type Encode = fn(&mut Vec<u8>, &StoredEvent<'_>);

/// How much following may cost.
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// Event streams and long polls that are open at the same time.
    pub subscribers: usize,
    /// Events and bytes that the ring holds at most.
    pub ring_events: usize,
    pub ring_bytes: usize,
    /// A subscriber to whom no event was sent learns its position after this time.
    pub heartbeat: Duration,
    /// An event stream is never silent for longer.
    pub keep_alive: Duration,
    pub scan: ScanLimits,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            subscribers: 1_000,
            ring_events: 16_384,
            ring_bytes: 16 * 1024 * 1024,
            heartbeat: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
            scan: ScanLimits::default(),
        }
    }
}

/// As many follow the log as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} subscribers follow the log already")]
pub struct TooManySubscribers {
    pub limit: usize,
}

/// The log as those see it who follow it.
pub struct Feed {
    store: Arc<Store>,
    /// Where those read the log who have to catch up.
    reads: Arc<Store>,
    limits: FeedLimits,
    encode: Encode,
    ring: RwLock<Ring>,
    /// How far the tailer has come.
    tail: watch::Sender<Position>,
    /// Somebody began to follow: the tailer has to hurry.
    wanted: Notify,
    streams: AtomicUsize,
    long_polls: AtomicUsize,
    /// Where each subscription stands.
    positions: Mutex<Vec<Weak<AtomicI64>>>,
    closing: CancellationToken,
}

impl Feed {
    pub fn new(
        store: Arc<Store>,
        reads: Arc<Store>,
        limits: FeedLimits,
        encode: Encode,
        closing: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            reads,
            limits,
            encode,
            ring: RwLock::new(Ring::new(limits.ring_events, limits.ring_bytes)),
            tail: watch::Sender::new(0),
            wanted: Notify::new(),
            streams: AtomicUsize::new(0),
            long_polls: AtomicUsize::new(0),
            positions: Mutex::default(),
            closing,
        })
    }

    pub fn limits(&self) -> &FeedLimits {
        &self.limits
    }

    /// Event streams and long polls that are open.
    pub fn subscribers(&self) -> (usize, usize) {
        (self.streams.load(Ordering::Relaxed), self.long_polls.load(Ordering::Relaxed))
    }

    /// How far the subscription that is furthest behind is behind the tailer, in events.
    pub fn lag(&self) -> Position {
        let tail = *self.tail.borrow();
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.retain(|position| position.strong_count() > 0);
        let behind = |position: &Weak<AtomicI64>| Some(tail - position.upgrade()?.load(Ordering::Relaxed));
        positions.iter().filter_map(behind).max().unwrap_or(0).max(0)
    }

    /// A place for a long poll.
    pub fn long_poll(self: &Arc<Self>) -> Result<LongPoll, TooManySubscribers> {
        Ok(LongPoll { seat: Seat::take(self, |feed| &feed.long_polls)?, pause: LOOK_PAUSE })
    }

    /// The tailer stands there, with nothing behind it in the ring.
    fn stand_at(&self, epoch: Epoch, position: Position) {
        self.ring.write().unwrap_or_else(PoisonError::into_inner).restart(epoch, position);
        self.tail.send_replace(position);
    }

    /// An event as subscribers get it.
    fn json(&self, event: &StoredEvent<'_>) -> Vec<u8> {
        let mut json = Vec::with_capacity(256 + event.event_data.len());
        (self.encode)(&mut json, event);
        json
    }

    fn ring(&self) -> std::sync::RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for what is new.
pub struct LongPoll {
    seat: Seat,
    /// Whoever looks and finds nothing for itself looks again after this pause; it is doubled each time.
    pause: Duration,
}

const LOOK_PAUSE: Duration = Duration::from_millis(10);
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(250);

impl LongPoll {
    /// Waits until the log has an event after `position`, or the time is up, or the process shuts down; whether it is worth
    /// while to look.
    pub async fn wait(&mut self, position: Position, until: Instant) -> bool {
        let feed = &self.seat.feed;
        let mut tail = feed.tail.subscribe();
        tokio::select! {
            found = tail.wait_for(|tail| *tail > position) => found.is_ok(),
            () = tokio::time::sleep_until(until) => false,
            () = feed.closing.cancelled() => false,
        }
    }

    /// The news were not for this one: lets some time pass before the next look.
    pub async fn rest(&mut self, until: Instant) {
        tokio::time::sleep_until(until.min(Instant::now() + self.pause)).await;
        self.pause = (self.pause * 2).min(LOOK_PAUSE_MAX);
    }
}

/// A subscriber's place among those that may follow at the same time.
struct Seat {
    feed: Arc<Feed>,
    of: fn(&Feed) -> &AtomicUsize,
}

impl Seat {
    fn take(feed: &Arc<Feed>, of: fn(&Feed) -> &AtomicUsize) -> Result<Self, TooManySubscribers> {
        // Counted first, so that two who come at once do not both take the last one.
        of(feed).fetch_add(1, Ordering::SeqCst);
        let seat = Self { feed: feed.clone(), of };
        let (streams, long_polls) = feed.subscribers();
        let limit = feed.limits.subscribers;
        if streams + long_polls > limit {
            return Err(TooManySubscribers { limit });
        }
        feed.wanted.notify_one();
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        (self.of)(&self.feed).fetch_sub(1, Ordering::SeqCst);
    }
}
