//! The feed: the ring of the last events, the position of the tailer, and the slots of subscribers.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::cursor::Epoch;
use crate::domain::erasure::ErasureNo;
use crate::domain::event::Position;
use crate::mutants;
use crate::shares::client::ClientId;
use crate::shares::limit::{FairLimit, Refused, Share};
use crate::store::erasures::known::ReadMark;
use crate::store::log::scan::ScanLimits;
use crate::store::primary::Primary;
use crate::store::readers::Readers;
use crate::subscriptions::interests::Interests;
use crate::subscriptions::ring::{Found, LiveEvent, Ring};

/// The number of readers that may read ahead at the same time, which clients share. Each holds up to three buffers: a piece,
/// its frames, and the next piece.
const READING_AHEAD_MAX: usize = 64;
/// The approximate size of a piece of the log that a reader fetches if it may read ahead. It is large enough that beginning
/// a statement takes a small share of the time to read it.
pub const AHEAD_BYTES: usize = 512 * 1024;

/// The limits of subscriptions.
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// The largest number of open event streams and long polls together, which clients share.
    pub subscribers: usize,
    /// The largest number of events in the ring, and of their bytes as JSON.
    pub ring_events: usize,
    pub ring_bytes: usize,
    /// After this time without an event, a subscriber is sent its position.
    pub heartbeat: Duration,
    /// An event stream sends something at least once in this time.
    pub keep_alive: Duration,
    pub scan: ScanLimits,
    /// The largest number of bytes of events that a consumer group holds in memory, and that all groups hold.
    pub group_bytes: usize,
    pub all_groups_bytes: usize,
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
            group_bytes: 16 * 1024 * 1024,
            all_groups_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Why a subscriber is refused. The field is the limit of subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManySubscribers {
    #[error("the limit of {0} subscribers is reached")]
    LimitReached(usize),
    /// The client has its share of the limit.
    #[error("the client has its share of the limit of {0} subscribers")]
    ShareExceeded(usize),
}

/// The log as subscribers see it.
pub struct Feed {
    /// The tailer follows the primary. Streams are read there, too.
    pub primary: Arc<Primary>,
    /// Subscribers of the log that are behind the ring read the log here.
    pub readers: Arc<Readers>,
    limits: FeedLimits,
    slots: Arc<FairLimit>,
    /// The readers that may read ahead in large pieces: all others read small ones when the client has taken the last one.
    reading_ahead: Arc<FairLimit>,
    ring: RwLock<Ring>,
    /// The event streams, by the events that they want.
    pub(super) interests: Arc<Interests>,
    /// The position up to which the tailer has read, after it has woken the event streams.
    pub(super) tail: watch::Sender<Position>,
    /// Wakes the tailer when a subscriber starts.
    pub(super) subscriber_started: Notify,
    event_streams: AtomicUsize,
    long_polls: AtomicUsize,
    claims: AtomicUsize,
    /// The positions of the open event streams.
    positions: Mutex<Vec<Weak<AtomicI64>>>,
    pub closing: CancellationToken,
}

/// The kinds of subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriberKind {
    EventStream,
    LongPoll,
    /// A request of a worker that waits for a claim.
    Claim,
}

/// The slot of one subscriber, within the limit.
pub struct SubscriberSlot {
    pub(super) feed: Arc<Feed>,
    kind: SubscriberKind,
    _share: Share,
}

impl Feed {
    /// Creates a feed with an empty ring. The tailer fills it.
    pub fn new(
        primary: Arc<Primary>,
        readers: Arc<Readers>,
        limits: FeedLimits,
        closing: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            primary,
            readers,
            limits,
            slots: FairLimit::new(limits.subscribers),
            reading_ahead: FairLimit::new(READING_AHEAD_MAX),
            ring: RwLock::new(Ring::new(limits.ring_events, limits.ring_bytes)),
            interests: Arc::default(),
            tail: watch::Sender::new(0),
            subscriber_started: Notify::new(),
            event_streams: AtomicUsize::new(0),
            long_polls: AtomicUsize::new(0),
            claims: AtomicUsize::new(0),
            positions: Mutex::default(),
            closing,
        })
    }

    /// Returns the limits of subscriptions.
    pub fn limits(&self) -> &FeedLimits {
        &self.limits
    }

    /// Permits a client to read the log ahead of what it has taken, until the share is dropped. Returns `None` if the limit,
    /// or the client's share of it, is reached.
    pub fn try_read_ahead(&self, client: ClientId) -> Option<Share> {
        self.reading_ahead.try_acquire(client, 1).ok()
    }

    /// Returns the number of open event streams, and of long polls.
    pub fn subscribers(&self) -> (usize, usize) {
        (self.event_streams.load(Ordering::Relaxed), self.long_polls.load(Ordering::Relaxed))
    }

    /// Returns the number of requests that wait for a claim.
    pub fn waiting_claims(&self) -> usize {
        self.claims.load(Ordering::Relaxed)
    }

    /// Returns the position up to which the tailer has read, to wait for its changes.
    pub fn tail(&self) -> watch::Receiver<Position> {
        self.tail.subscribe()
    }

    /// Returns the events after a position from the ring, about `bytes` bytes at most, with their epoch and the position up
    /// to which they are all events; `None` if the next event is not in the ring.
    pub fn read_ring(&self, position: Position, bytes: usize) -> Option<(Epoch, Vec<Arc<LiveEvent>>, Position)> {
        match self.ring().read(position, bytes, self.newest_erasure()) {
            Found::Events { epoch, events, to } => Some((epoch, events, to)),
            Found::Behind | Found::NotStarted => None,
        }
    }

    /// Returns the number of events that the slowest event stream is behind the tailer.
    pub fn lag(&self) -> Position {
        let tail = *self.tail.borrow();
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.retain(|position| position.strong_count() > 0);
        let behind = |position: &Weak<AtomicI64>| Some(tail - position.upgrade()?.load(Ordering::Relaxed));
        positions.iter().filter_map(behind).max().unwrap_or(0).max(0)
    }

    /// Adds an event stream to those whose lag is measured. The position is removed when the stream drops it.
    pub(super) fn track_position(&self, position: Position) -> Arc<AtomicI64> {
        let tracked = Arc::new(AtomicI64::new(position));
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.retain(|position| position.strong_count() > 0);
        positions.push(Arc::downgrade(&tracked));
        tracked
    }

    /// Locks the ring for reading.
    pub(super) fn ring(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newest erasure that this process knows. Content that was read before it must not be used.
    pub fn newest_erasure(&self) -> ErasureNo {
        self.primary.erasures().newest()
    }

    /// Returns a mark for content that is read from now on.
    pub fn read_mark(&self) -> ReadMark {
        ReadMark::new(self.primary.erasures())
    }

    /// Clears the ring, and continues after a position.
    pub(super) fn reset_to(&self, epoch: Epoch, position: Position) {
        let erasure = self.newest_erasure();
        self.ring.write().unwrap_or_else(PoisonError::into_inner).restart(epoch, position, erasure);
        self.interests.wake_all();
        self.tail.send_replace(position);
    }

    /// Adds the events up to a position to the ring, and wakes the subscribers that may want them. `erasure` was the newest
    /// erasure before the events were read: after another one, the ring begins again.
    pub(super) fn extend(&self, epoch: Epoch, events: Vec<LiveEvent>, to: Position, erasure: ErasureNo) {
        let newest = self.newest_erasure();
        let events: Vec<_> = events.into_iter().map(Arc::new).collect();
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let continues = newest == erasure && ring.erasure() == erasure || mutants::is(mutants::RING_NOT_RESTARTED);
        let is_same_epoch = ring.cursor().epoch == Some(epoch);
        if continues {
            ring.extend(epoch, &events, to);
        } else {
            ring.restart(epoch, to, newest);
        }
        drop(ring);
        if continues && is_same_epoch {
            self.interests.wake(&events);
        } else {
            self.interests.wake_all();
        }
        self.tail.send_replace(to);
    }

    fn count(&self, kind: SubscriberKind) -> &AtomicUsize {
        match kind {
            SubscriberKind::EventStream => &self.event_streams,
            SubscriberKind::LongPoll => &self.long_polls,
            SubscriberKind::Claim => &self.claims,
        }
    }
}

impl SubscriberSlot {
    /// Acquires a slot for the current client, which is released when it is dropped, and wakes the tailer.
    pub fn acquire(feed: &Arc<Feed>, kind: SubscriberKind) -> Result<Self, TooManySubscribers> {
        let share = feed.slots.try_acquire(ClientId::current(), 1).map_err(|refused| match refused {
            Refused::LimitReached => TooManySubscribers::LimitReached(feed.slots.limit()),
            Refused::ShareExceeded => TooManySubscribers::ShareExceeded(feed.slots.limit()),
        })?;
        feed.count(kind).fetch_add(1, Ordering::SeqCst);
        feed.subscriber_started.notify_one();
        Ok(Self { feed: feed.clone(), kind, _share: share })
    }
}

impl Drop for SubscriberSlot {
    fn drop(&mut self) {
        self.feed.count(self.kind).fetch_sub(1, Ordering::SeqCst);
    }
}
