//! The queue of appends: bounded in requests and in bytes.
//!
//! Invariants:
//! - Once the writer has taken a request, it executes the request, even if the client stops waiting.
//! - The writer never takes a request that its handler has abandoned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::domain::append::{AppendRequest, Outcome};
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

/// The end of the queue at which handlers submit requests.
#[derive(Clone)]
pub struct AppendQueue {
    sender: mpsc::Sender<Pending>,
    /// One permit for each byte of the queue's limit.
    bytes: Arc<Semaphore>,
    health: Arc<WriterHealth>,
}

/// The end of the queue from which the writer takes requests.
pub struct QueuedAppends {
    pub(super) requests: mpsc::Receiver<Pending>,
    pub(super) health: Arc<WriterHealth>,
}

/// A request in the queue.
pub(super) struct Pending {
    pub(super) request: Arc<AppendRequest>,
    result: oneshot::Sender<AppendResult>,
    state: Arc<PendingState>,
    /// Held until the request has its result.
    _bytes: OwnedSemaphorePermit,
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
        let (sender, receiver) = mpsc::channel(limits.requests);
        let health = Arc::new(WriterHealth::default());
        let queue = Self { sender, bytes: Arc::new(Semaphore::new(limits.bytes)), health: health.clone() };
        (queue, QueuedAppends { requests: receiver, health })
    }

    /// Returns whether the writer still accepts requests.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
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
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Submits a request, and returns its outcome. Dropping the future does not cancel a request that the writer has
    /// taken.
    pub async fn submit(&self, request: Arc<AppendRequest>) -> Result<Outcome, AppendError> {
        let size = u32::try_from(request.size()).unwrap_or(u32::MAX);
        let bytes = self.bytes.clone().try_acquire_many_owned(size).map_err(|_| AppendError::Overloaded)?;
        let (result, receiver) = oneshot::channel();
        let state = Arc::new(PendingState::default());
        let pending = Pending { request, result, state: state.clone(), _bytes: bytes };
        self.sender.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AppendError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => AppendError::ShuttingDown,
        })?;
        match tokio::time::timeout(RESULT_TIMEOUT, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) if !state.try_transition(PendingState::ABANDONED) => Err(AppendError::OutcomeUnknown),
            Ok(Err(_)) => Err(AppendError::ShuttingDown),
            Err(_) => Err(AppendError::Overloaded),
        }
    }
}
