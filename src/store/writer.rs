//! Group commit: one writer a process, one connection of its own, one commit a batch.
//!
//! A handler puts its request into a bounded queue and waits. The writer takes whatever is queued, at once and without a
//! timer, so that batches grow with the load by themselves; a single request never waits for company.
//!
//! ```text
//! submit ── queue (bounded in requests and bytes) ── writer ── CALL append_events ── answers
//!    │                                                  │
//!    └ full: overloaded    closed: shutting_down        └ connection lost: reconnect, submit the same ids again
//! ```
//!
//! Invariants:
//! - The writer's connection is never cancelled by a client: it belongs to this task alone.
//! - A request is answered once. It is [`Written`] only after the commit, and an error other than
//!   [`StoreError::OutcomeUnknown`] means that nothing of it was written.
//! - A batch holds no event id twice (the second request waits for the next batch, where it is a replay), so that
//!   submitting a batch again is always safe.
//!
//! [`Written`]: crate::domain::append::Outcome::Written

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join;
use sqlx::{Connection, Executor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::append_session::AppendSession;
use super::batch::{Batch, Circumstances, Decided};
use super::connect::timed_out;
use super::error::{Failure, StoreError};
use super::single::Single;
use super::{Store, months};
use crate::domain::append::{AppendRequest, Outcome};
use crate::mutants;

/// Most requests, events and bytes of one batch; a single request may be larger than the bytes alone.
const BATCH_REQUESTS_MAX: usize = 500;
const BATCH_EVENTS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long one CALL may take before its connection is given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a batch whose answer was lost is submitted again, and the pause between two tries.
const RESUBMIT_FOR: Duration = Duration::from_secs(5);
const RESUBMIT_PAUSE: Duration = Duration::from_millis(50);
/// A batch that breaks so many connections may be the reason for it.
const SUBMISSIONS_MAX: u32 = 5;
/// How long a handler waits in all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that rested longer than this is tried before a batch is entrusted to it.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How much may wait in the queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    pub requests: usize,
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { requests: 4_096, bytes: 64 * 1024 * 1024 }
    }
}

type Answer = Result<Outcome, StoreError>;

/// The handlers' end of the queue.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Pending>,
    room: Arc<Semaphore>,
    alive: Arc<AtomicBool>,
}

/// A request in the queue.
struct Pending {
    request: Arc<AppendRequest>,
    answer: oneshot::Sender<Answer>,
    stage: Arc<Stage>,
    /// Held until the request is answered: the bytes that the queue is bounded by.
    _room: OwnedSemaphorePermit,
}

/// Whether a waiting request was taken by the writer, or given up before: decided once, by whoever comes first.
#[derive(Default)]
struct Stage(AtomicU8);

impl Stage {
    const QUEUED: u8 = 0;
    const TAKEN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn leave_queue(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::QUEUED, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Writer {
    /// Starts the writer. It takes no more requests once `closing` is cancelled, answers those that are queued, and ends.
    pub fn start(
        store: Arc<Store>,
        limits: QueueLimits,
        closing: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, requests) = mpsc::channel(limits.requests);
        let writer =
            Self { queue, room: Arc::new(Semaphore::new(limits.bytes)), alive: Arc::new(AtomicBool::new(true)) };
        let alive = writer.alive.clone();
        let task = WriterTask { store, requests, carried: None, session: None, used: None };
        (writer, async move {
            let _alive = AliveGuard(alive);
            task.run(closing).await;
        })
    }

    /// False once the writer has ended; then nothing can be appended any more.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Requests that wait in the queue.
    pub fn queue_length(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Appends, or says why not. Once the request is taken it is carried out, whoever stops waiting.
    pub async fn submit(&self, request: Arc<AppendRequest>) -> Answer {
        let size = u32::try_from(request.size()).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(size).map_err(|_| StoreError::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let stage = Arc::new(Stage::default());
        let pending = Pending { request, answer, stage: stage.clone(), _room: room };
        self.queue.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::ShuttingDown,
        })?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) if !stage.leave_queue(Stage::GIVEN_UP) => Err(StoreError::OutcomeUnknown),
            Ok(Err(_)) => Err(StoreError::ShuttingDown),
            Err(_) => Err(StoreError::Overloaded),
        }
    }
}

struct AliveGuard(Arc<AtomicBool>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct WriterTask {
    store: Arc<Store>,
    requests: mpsc::Receiver<Pending>,
    /// A request that did not fit the last batch.
    carried: Option<Pending>,
    session: Option<AppendSession>,
    /// When the connection last answered.
    used: Option<Instant>,
}

impl WriterTask {
    async fn run(mut self, closing: CancellationToken) {
        let mut answers = Answers::default();
        loop {
            let queued = self.carried.take().or_else(|| self.requests.try_recv().ok());
            let first = match queued {
                Some(first) => Some(first),
                None => {
                    std::mem::take(&mut answers).hand_out();
                    tokio::select! {
                        biased;
                        next = self.requests.recv() => next,
                        () = closing.cancelled(), if !self.requests.is_closed() => {
                            self.requests.close();
                            continue;
                        }
                    }
                }
            };
            let Some(first) = first else { break };
            let batch = self.collect(first);
            if batch.is_empty() {
                continue;
            }
            self.store.metrics.append_batch_requests.observe(batch.len() as f64);
            // The next batch is sent first: while PostgreSQL is at work, the last one is answered.
            let last = std::mem::take(&mut answers);
            (answers, ()) = join(self.write(batch), async { last.hand_out() }).await;
        }
        if let Some(session) = self.session.take() {
            drop(session.close().await);
        }
    }

    /// Takes what is queued, up to the limits; what was given up in the meantime is left out.
    fn collect(&mut self, first: Pending) -> Vec<Pending> {
        let mut batch = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        let mut ids = HashSet::new();
        let mut next = Some(first);
        while let Some(pending) = next {
            let request = &pending.request;
            let fits = batch.len() < BATCH_REQUESTS_MAX
                && events + request.event_count() <= BATCH_EVENTS_MAX
                && bytes + request.size() <= BATCH_BYTES_MAX
                && !request.events().any(|event| ids.contains(&event.event_id));
            if !fits && !batch.is_empty() {
                self.carried = Some(pending);
                break;
            }
            if pending.stage.leave_queue(Stage::TAKEN) {
                events += request.event_count();
                bytes += request.size();
                ids.extend(request.events().map(|event| event.event_id));
                batch.push(pending);
            }
            next = self.requests.try_recv().ok();
        }
        batch
    }

    /// Writes a batch; what every request in it is answered.
    async fn write(&mut self, batch: Vec<Pending>) -> Answers {
        match self.decide(&batch, true).await {
            Ok(decided) => {
                let answers = Answers::new(batch, decided.outcomes.into_iter().map(Ok));
                if mutants::is(mutants::ACKNOWLEDGED_BEFORE_COMMIT)
                    && let Some(session) = &mut self.session
                {
                    answers.hand_out();
                    drop(session.connection.execute("COMMIT").await);
                    return Answers::default();
                }
                answers
            }
            // One of them has a value that PostgreSQL refuses: alone, each fails for itself.
            Err(StoreError::Internal(error)) if batch.len() > 1 && Failure::of(&error) == Failure::Refused => {
                for pending in batch {
                    let decided = self.decide(std::slice::from_ref(&pending), false).await;
                    let answer = decided
                        .and_then(|decided| decided.outcomes.into_iter().next().ok_or(StoreError::OutcomeUnknown));
                    Answers::new(vec![pending], [answer]).hand_out();
                }
                Answers::default()
            }
            Err(error) => {
                tracing::error!(requests = batch.len(), %error, "a batch of appends failed");
                Answers::new(batch, std::iter::repeat_with(|| Err(error.clone())))
            }
        }
    }

    /// Has a batch decided; submits it again, with the same ids, when the connection breaks before the answer.
    /// `is_new`: it has not been submitted before.
    async fn decide(&mut self, batch: &[Pending], is_new: bool) -> Result<Decided, StoreError> {
        let store = self.store.clone();
        let started = Instant::now();
        let mut sent = false;
        let mut submissions = 0;
        let mut month_made = false;
        // After the first sending only an answer tells what became of it; until then an error means: not written.
        let failed = |sent: bool, error: StoreError| if sent { StoreError::OutcomeUnknown } else { error };
        loop {
            let session = match self.connect().await {
                Ok(session) => session,
                Err(_) if sent && started.elapsed() < RESUBMIT_FOR => {
                    tokio::time::sleep(RESUBMIT_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(failed(sent, StoreError::Unavailable(Arc::new(error)))),
            };
            let error = match call(batch, session, &store, is_new && !sent).await {
                Ok(decided) => {
                    self.used = Some(Instant::now());
                    store.saw_position(decided.last_position);
                    store.committed.notify_one();
                    return Ok(decided);
                }
                Err(error) => error,
            };
            match Failure::of(&error) {
                Failure::ConnectionLost => {
                    tracing::warn!(%error, "the writer lost its connection; submitting the batch again");
                    self.session = None;
                    sent = true;
                    submissions += 1;
                    if submissions >= SUBMISSIONS_MAX || started.elapsed() >= RESUBMIT_FOR {
                        return Err(StoreError::OutcomeUnknown);
                    }
                    tokio::time::sleep(RESUBMIT_PAUSE).await;
                }
                Failure::MonthMissing if !month_made => {
                    month_made = true;
                    if let Err(error) = months::create_missing(&mut session.connection, store.clock.set_to()).await {
                        self.session = None;
                        return Err(failed(sent, error.into()));
                    }
                }
                Failure::LockTimeout => return Err(failed(sent, StoreError::Overloaded)),
                Failure::NotNow => {
                    // A demoted primary answers so for ever; a new connection may find the new one.
                    self.session = None;
                    return Err(failed(sent, StoreError::Unavailable(Arc::new(error))));
                }
                Failure::MonthMissing | Failure::Refused => {
                    return Err(failed(sent, StoreError::Internal(Arc::new(error))));
                }
                // PostgreSQL refused, so nothing is written; any other fault is one of reading an answer that did come.
                Failure::Unexpected if error.as_database_error().is_some() => {
                    return Err(failed(sent, StoreError::Unavailable(Arc::new(error))));
                }
                Failure::Unexpected => {
                    tracing::error!(%error, "the answer to a batch of appends cannot be read");
                    return Err(StoreError::OutcomeUnknown);
                }
            }
        }
    }

    /// The writer's connection: the one it has if that still answers, else a new one.
    async fn connect(&mut self) -> Result<&mut AppendSession, sqlx::Error> {
        let trusted = self.used.is_some_and(|used| used.elapsed() < TRUSTED_IDLE);
        if let Some(session) = &mut self.session
            && !trusted
            && tokio::time::timeout(TRUSTED_IDLE, session.connection.ping()).await.is_ok_and(|pong| pong.is_ok())
        {
            self.used = Some(Instant::now());
        } else if !trusted {
            self.session = None;
        }
        if self.session.is_none() {
            self.session = Some(AppendSession::new(self.store.connector.writer(self.store.role).await?));
            self.used = Some(Instant::now());
        }
        Ok(self.session.as_mut().expect("it was just made"))
    }
}

/// One try: a single event goes the short way, unless it turns out not to be plain.
async fn call(
    batch: &[Pending],
    session: &mut AppendSession,
    store: &Store,
    is_new: bool,
) -> Result<Decided, sqlx::Error> {
    let circumstances = Circumstances {
        ids_are_new: is_new && batch.iter().all(|pending| pending.request.ids_are_new),
        floor: store.served_position(),
        now: store.clock.set_to(),
    };
    let call = async {
        if mutants::is(mutants::ACKNOWLEDGED_BEFORE_COMMIT) {
            session.connection.execute("BEGIN").await?;
        }
        if let [only] = batch
            && let Some(event) = Single::of(&only.request)
            && let Some(decided) = event.write(session, circumstances).await?
        {
            return Ok(decided);
        }
        let requests = batch.iter().map(|pending| pending.request.as_ref());
        Batch::new(requests, None, circumstances).write(session).await
    };
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(timed_out("an append took too long")))
}

/// What was decided, and not told yet.
#[derive(Default)]
struct Answers(Vec<(Pending, Answer)>);

impl Answers {
    fn new(batch: Vec<Pending>, answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(batch.into_iter().zip(answers).collect())
    }

    fn hand_out(self) {
        for (pending, answer) in self.0 {
            // A handler that no longer waits has said so to its client itself.
            drop(pending.answer.send(answer));
        }
    }
}
