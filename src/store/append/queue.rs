//! The queue of appends: bounded in requests and in bytes, which clients share.
//!
//! The writer takes requests of the clients round robin, by their bytes: see [`FairQueue`]. A client with large requests
//! does not delay the small ones of another client by more than a batch.
//!
//! Invariants:
//! - Once the writer has taken a request, it executes the request, even if the client stops waiting.
//! - The writer never takes a request that its handler has abandoned.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::domain::append::{AppendRequest, Outcome};
use crate::shares::client::ClientId;
use crate::shares::limit::{FairLimit, Share};
use crate::shares::queue::FairQueue;
use crate::store::append::error::AppendError;
use crate::store::append::health::WriterHealth;

/// The longest time that a handler waits for the result of an append.
const RESULT_TIMEOUT: Duration = Duration::from_secs(15);

/// The limits of the queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// The largest number of requests.
    pub requests: usize,
    /// The largest sum of their sizes, in bytes.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { requests: 4_096, bytes: 64 * 1024 * 1024 }
    }
}

/// The result of a request.
pub(super) type AppendResult = Result<Outcome, AppendError>;

/// The bytes that one client may submit in its turn.
const QUANTUM_BYTES: usize = 64 * 1024;

/// The end of the queue at which handlers submit requests.
#[derive(Clone)]
pub struct AppendQueue {
    inbox: Arc<Inbox>,
    bytes: Arc<FairLimit>,
    /// The least number of bytes that a request counts, so that the limit of bytes also limits the requests.
    request_bytes_min: usize,
    health: Arc<WriterHealth>,
}

/// The requests that the writer has not taken yet.
struct Inbox {
    queued: Mutex<Queued>,
    /// Notified when a request arrives, or the queue is closed. There is one waiter: the writer.
    changed: Notify,
}

struct Queued {
    requests: FairQueue<ClientId, Pending>,
    is_closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the queue from which the writer takes requests. When it is dropped, the queue is closed, and the requests
/// in it are discarded.
pub struct QueuedAppends {
    inbox: Arc<Inbox>,
    pub(super) health: Arc<WriterHealth>,
}

impl QueuedAppends {
    /// Takes the next request; `None` if there is none.
    pub(super) fn try_next(&mut self) -> Option<Pending> {
        self.inbox.lock().requests.pop()
    }

    /// Takes the next request if it fits into a batch.
    pub(super) fn try_next_if(&mut self, fits: impl Fn(&AppendRequest) -> bool) -> Option<Pending> {
        self.inbox.lock().requests.pop_if(|pending| fits(&pending.request))
    }

    /// Waits for the next request. Returns `None` once the queue is closed and empty.
    pub(super) async fn next(&mut self) -> Option<Pending> {
        loop {
            {
                let mut queued = self.inbox.lock();
                match queued.requests.pop() {
                    None if !queued.is_closed => {}
                    next => return next,
                }
            }
            self.inbox.changed.notified().await;
        }
    }

    /// Returns whether the queue accepts no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.inbox.lock().is_closed
    }

    /// Accepts no more requests. Those in the queue can still be taken.
    pub(super) fn close(&mut self) {
        self.inbox.lock().is_closed = true;
        self.inbox.changed.notify_one();
    }
}

impl Drop for QueuedAppends {
    fn drop(&mut self) {
        self.close();
        let discarded = std::mem::replace(&mut self.inbox.lock().requests, FairQueue::new(QUANTUM_BYTES));
        // Their handlers respond that the service is shutting down.
        drop(discarded);
    }
}

/// A request in the queue.
pub(super) struct Pending {
    pub(super) request: Arc<AppendRequest>,
    result: oneshot::Sender<AppendResult>,
    state: Arc<PendingState>,
    /// Held until the request has its result.
    _bytes: Share,
}

/// Whether the writer has taken a request, or its handler has abandoned it. The first of the two transitions takes
/// effect.
#[derive(Default)]
struct PendingState(AtomicU8);

impl PendingState {
    const QUEUED: u8 = 0;
    const TAKEN: u8 = 1;
    const ABANDONED: u8 = 2;

    /// Changes the state if the request is still queued. Returns whether it was.
    fn try_transition(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::QUEUED, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Pending {
    /// Takes the request out of the queue. Returns false if its handler has abandoned it.
    pub(super) fn take(&self) -> bool {
        self.state.try_transition(PendingState::TAKEN)
    }

    /// Sends the result to the handler.
    pub(super) fn complete(self, result: AppendResult) {
        // If the handler has stopped waiting, it has already responded to its client.
        drop(self.result.send(result));
    }
}

impl AppendQueue {
    /// Creates the two ends of a queue.
    pub fn new(limits: QueueLimits) -> (Self, QueuedAppends) {
        let queued = Queued { requests: FairQueue::new(QUANTUM_BYTES), is_closed: false };
        let inbox = Arc::new(Inbox { queued: Mutex::new(queued), changed: Notify::new() });
        let health = Arc::new(WriterHealth::default());
        let queue = Self {
            inbox: inbox.clone(),
            bytes: FairLimit::new(limits.bytes),
            request_bytes_min: limits.bytes / limits.requests.max(1),
            health: health.clone(),
        };
        (queue, QueuedAppends { inbox, health })
    }

    /// Returns whether the writer still accepts requests.
    pub fn is_open(&self) -> bool {
        !self.inbox.lock().is_closed
    }

    /// Returns the reason why an append would fail at this time.
    pub fn check_writer(&self) -> Result<(), String> {
        if self.is_open() { self.health.check() } else { Err("has ended".to_owned()) }
    }

    /// Waits until the writer has connected, or has failed to.
    pub async fn writer_started(&self) {
        self.health.first_result().await;
    }

    /// Returns the number of requests in the queue.
    pub fn length(&self) -> usize {
        self.inbox.lock().requests.len()
    }

    /// Submits a request of the current client, and returns its outcome. Dropping the future does not cancel a request
    /// that the writer has taken.
    pub async fn submit(&self, request: Arc<AppendRequest>) -> Result<Outcome, AppendError> {
        let client = ClientId::current();
        let cost = request.size().max(self.request_bytes_min);
        let bytes = self.bytes.try_acquire(client.clone(), cost).map_err(|_| AppendError::Overloaded)?;
        let (result, receiver) = oneshot::channel();
        let state = Arc::new(PendingState::default());
        let pending = Pending { request, result, state: state.clone(), _bytes: bytes };
        {
            let mut queued = self.inbox.lock();
            if queued.is_closed {
                return Err(AppendError::ShuttingDown);
            }
            let size = pending.request.size();
            queued.requests.push(client, pending, size);
        }
        self.inbox.changed.notify_one();
        match tokio::time::timeout(RESULT_TIMEOUT, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) if !state.try_transition(PendingState::ABANDONED) => Err(AppendError::OutcomeUnknown),
            Ok(Err(_)) => Err(AppendError::ShuttingDown),
            Err(_) => Err(AppendError::Overloaded),
        }
    }
}
