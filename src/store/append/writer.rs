//! Group commit: each process has one writer with a connection of its own, and each batch has one commit.
//!
//! A handler puts its request into a bounded queue and waits. The writer takes all queued requests, at once and without
//! a timer, so batches grow with the load. A single request is never delayed to fill a batch.
//!
//! ```text
//! submit ── queue (bounded in requests and bytes) ── writer ── CALL append_events ── results
//!    │                                                  │
//!    └ full: overloaded    closed: shutting_down        └ connection lost: reconnect, submit the same ids again
//! ```
//!
//! Invariants:
//! - No client can cancel a call of the writer: the connection belongs to this task alone.
//! - Each request gets one result. It is [`Outcome::Written`] only after the commit, and an error other than
//!   [`AppendError::OutcomeUnknown`] means that nothing of the request is written.
//! - No event id occurs twice in a batch (the second request waits for the next batch, where it is a replay), so a
//!   batch can always be submitted again.
//!
//! [`Outcome::Written`]: crate::domain::append::Outcome::Written

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures_util::future::join;
use sqlx::Executor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::append::AppendRequest;
use crate::domain::event::EventId;
use crate::mutants;
use crate::store::append::batch::{AppendContext, Batch, BatchResult};
use crate::store::append::error::AppendError;
use crate::store::append::queue::{AppendResult, Pending, QueuedAppends};
use crate::store::append::session::AppendSession;
use crate::store::append::single::SingleEventAppend;
use crate::store::error::{DatabaseError, Failure, StoreError, is_from_server};
use crate::store::partitions::maintenance::create_missing_partitions;
use crate::store::primary::Primary;

/// The limits of one batch. A single request may have more bytes. The small request of one client waits for the batch of
/// another, so the limit of bytes is low.
const BATCH_REQUESTS_MAX: usize = 500;
const BATCH_EVENTS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// After this time the connection of a call is closed.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest time for which a batch without a result is submitted again, and the pause between two submissions.
const RESUBMIT_FOR: Duration = Duration::from_secs(5);
const RESUBMIT_PAUSE: Duration = Duration::from_millis(50);
/// The largest number of submissions, because the batch itself may be the reason why the connection is lost.
const SUBMISSIONS_MAX: u32 = 5;
/// A connection that was idle for longer is checked before the next batch.
const UNCHECKED_IDLE_MAX: Duration = Duration::from_secs(1);
/// The pause between two checks of the database while there are no appends, and the time limit of a check.
const CHECK_EVERY: Duration = Duration::from_secs(4);
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Writes the queued requests, until `closing` is cancelled and the queue is empty.
pub async fn run(primary: Arc<Primary>, queued: QueuedAppends, closing: CancellationToken) {
    let next_check = tokio::time::Instant::now();
    Writer { primary, queued, session: None, last_used: None, next_check }.run(closing).await;
}

struct Writer {
    primary: Arc<Primary>,
    queued: QueuedAppends,
    session: Option<AppendSession>,
    /// When PostgreSQL last responded over the session's connection.
    last_used: Option<Instant>,
    /// When the writer checks the database if no request has arrived.
    next_check: tokio::time::Instant,
}

/// The size of a batch while it is collected.
#[derive(Default)]
struct BatchSize {
    requests: usize,
    events: usize,
    bytes: usize,
    event_ids: HashSet<Uuid>,
}

impl BatchSize {
    /// Returns whether a request fits into the batch. Every request fits into an empty one.
    fn fits(&self, request: &AppendRequest) -> bool {
        self.requests == 0
            || self.requests < BATCH_REQUESTS_MAX
                && self.events + request.event_count() <= BATCH_EVENTS_MAX
                && self.bytes + request.size() <= BATCH_BYTES_MAX
                && !request.events().any(|event| self.event_ids.contains(&event.event_id.uuid()))
    }

    fn add(&mut self, request: &AppendRequest) {
        self.requests += 1;
        self.events += request.event_count();
        self.bytes += request.size();
        self.event_ids.extend(request.events().map(|event| event.event_id.uuid()));
    }
}

/// Requests with their results, which were not sent to their handlers yet.
#[derive(Default)]
struct CompletedRequests(Vec<(Pending, AppendResult)>);

impl CompletedRequests {
    fn new(batch: Vec<Pending>, results: impl IntoIterator<Item = AppendResult>) -> Self {
        Self(batch.into_iter().zip(results).collect())
    }

    fn hand_out(self) {
        self.0.into_iter().for_each(|(pending, result)| pending.complete(result));
    }
}

/// The result of a check that a request may end.
enum CheckedOr {
    Checked,
    /// The next request; `None` if the queue is closed.
    Received(Option<Pending>),
}

/// Whether a batch was submitted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Submission {
    First,
    Repeated,
}

impl Writer {
    async fn run(mut self, closing: CancellationToken) {
        let mut completed = CompletedRequests::default();
        loop {
            let first = match self.queued.try_next() {
                Some(first) => Some(first),
                None => {
                    std::mem::take(&mut completed).hand_out();
                    let next_check = self.next_check;
                    tokio::select! {
                        biased;
                        next = self.queued.next() => next,
                        () = closing.cancelled(), if !self.queued.is_closed() => {
                            self.queued.close();
                            continue;
                        }
                        () = tokio::time::sleep_until(next_check) => match self.check_or_receive().await {
                            CheckedOr::Checked => continue,
                            CheckedOr::Received(next) => next,
                        },
                    }
                }
            };
            let Some(first) = first else { break };
            let batch = self.collect(first);
            if batch.is_empty() {
                continue;
            }
            self.primary.metrics.append_batch_requests.observe(batch.len() as f64);
            // The next batch is sent first, and the results of the previous one are handed out while PostgreSQL writes
            // it.
            let previous = std::mem::take(&mut completed);
            (completed, ()) = join(self.write(batch), async { previous.hand_out() }).await;
        }
        if let Some(session) = self.session.take() {
            drop(session.close().await);
        }
    }

    /// Checks whether an append would be written, until a request arrives, which ends the check: the request shows it.
    async fn check_or_receive(&mut self) -> CheckedOr {
        let Self { primary, session, last_used, queued, next_check, .. } = self;
        let check = async {
            let session = match connected_session(primary, session, last_used).await {
                // The commit that begins an epoch may wait for a standby.
                Err(error @ DatabaseError::TimedOut(_)) => {
                    primary.explain_slow_commits().await?;
                    return Err(error.into());
                }
                session => session?,
            };
            primary.check_commits(&mut session.connection).await?;
            let check = tokio::time::timeout(CHECK_TIMEOUT, session.check_writable());
            let time = match check.await {
                Ok(time) => time?,
                Err(_) => {
                    primary.explain_slow_commits().await?;
                    return Err(DatabaseError::TimedOut("a write that checks the database").into());
                }
            };
            *last_used = Some(Instant::now());
            let is_ahead = primary.clock.set_to().is_none() && time > primary.clock.now() + TimeDelta::days(1);
            if is_ahead { Err(StoreError::from(DatabaseError::ClockAhead)) } else { Ok(()) }
        };
        let checked = tokio::select! {
            biased;
            next = queued.next() => return CheckedOr::Received(next),
            checked = check => checked,
        };
        match checked {
            Ok(()) => queued.health.record_success(),
            Err(error) => {
                // A connection whose check did not end has a statement in progress.
                *session = None;
                if queued.health.record_failure(error.to_string()) {
                    tracing::warn!(%error, "appends cannot be written");
                }
            }
        }
        *next_check = tokio::time::Instant::now() + CHECK_EVERY;
        CheckedOr::Checked
    }

    /// Takes queued requests up to the limits of a batch, without those that their handlers have abandoned.
    fn collect(&mut self, first: Pending) -> Vec<Pending> {
        let mut batch = Vec::new();
        let mut size = BatchSize::default();
        let mut next = Some(first);
        while let Some(pending) = next {
            if pending.take() {
                size.add(&pending.request);
                batch.push(pending);
            }
            next = self.queued.try_next_if(|request| size.fits(request));
        }
        batch
    }

    /// Writes a batch. Returns the result of each request.
    async fn write(&mut self, batch: Vec<Pending>) -> CompletedRequests {
        match self.submit(&batch, Submission::First).await {
            Ok(result) => {
                let completed = CompletedRequests::new(batch, result.outcomes.into_iter().map(Ok));
                if mutants::is(mutants::ACKNOWLEDGED_BEFORE_COMMIT)
                    && let Some(session) = &mut self.session
                {
                    completed.hand_out();
                    drop(session.connection.execute("COMMIT").await);
                    return CompletedRequests::default();
                }
                completed
            }
            // PostgreSQL rejected one request. If each request is submitted alone, only that one fails.
            Err(error) if batch.len() > 1 && concerns_one_request(&error) => {
                for pending in batch {
                    let result = self.submit(std::slice::from_ref(&pending), Submission::Repeated).await;
                    let outcome =
                        result.and_then(|result| result.outcomes.into_iter().next().ok_or(AppendError::OutcomeUnknown));
                    pending.complete(outcome);
                }
                CompletedRequests::default()
            }
            Err(error) => {
                let is_outage = !matches!(error, AppendError::Internal(_) | AppendError::Overloaded);
                // One line for each outage. Each request has a line of its own.
                if !is_outage || self.queued.health.record_failure(error.to_string()) {
                    tracing::error!(requests = batch.len(), %error, "a batch of appends failed");
                }
                if is_outage {
                    self.next_check = tokio::time::Instant::now() + CHECK_EVERY / 4;
                }
                CompletedRequests::new(batch, std::iter::repeat_with(|| Err(error.clone())))
            }
        }
    }

    /// Submits a batch, and submits it again with the same ids if the connection is lost before the result is received.
    async fn submit(&mut self, batch: &[Pending], submission: Submission) -> Result<BatchResult, AppendError> {
        let primary = self.primary.clone();
        let started = Instant::now();
        let mut submissions = 0;
        let mut partition_created = false;
        // Once the batch was sent, only a result proves the outcome; before that, an error means "not written".
        let failed = |sent: bool, error: AppendError| if sent { AppendError::OutcomeUnknown } else { error };
        loop {
            let sent = submissions > 0;
            let session = match connected_session(&primary, &mut self.session, &mut self.last_used).await {
                Ok(session) => session,
                Err(_) if sent && started.elapsed() < RESUBMIT_FOR => {
                    tokio::time::sleep(RESUBMIT_PAUSE).await;
                    continue;
                }
                Err(DatabaseError::LogMoving) => return Err(failed(sent, AppendError::LogMoving)),
                Err(error) => return Err(failed(sent, AppendError::Unavailable(Arc::new(error)))),
            };
            let is_first = submission == Submission::First && !sent;
            let error = match call(&primary, session, batch, is_first).await {
                Ok(result) => {
                    self.last_used = Some(Instant::now());
                    self.queued.health.record_success();
                    self.next_check = tokio::time::Instant::now() + CHECK_EVERY;
                    result.last_position.into_iter().for_each(|position| primary.raise_high_water_mark(position));
                    primary.notify_commit();
                    return Ok(result);
                }
                Err(error) => error,
            };
            match Failure::classify(&error) {
                Failure::ConnectionLost => {
                    let error = explained(&primary, error).await;
                    tracing::warn!(%error, "the writer lost its connection; submitting the batch again");
                    self.session = None;
                    submissions += 1;
                    if submissions >= SUBMISSIONS_MAX || started.elapsed() >= RESUBMIT_FOR {
                        return Err(AppendError::OutcomeUnknown);
                    }
                    tokio::time::sleep(RESUBMIT_PAUSE).await;
                }
                Failure::PartitionMissing if !partition_created => {
                    partition_created = true;
                    let created = create_missing_partitions(&mut session.connection, primary.clock.set_to()).await;
                    if let Err(error) = created {
                        self.session = None;
                        return Err(failed(sent, failed_before_sending(error.into())));
                    }
                }
                Failure::LockTimeout if sent => return Err(AppendError::OutcomeUnknown),
                Failure::LockTimeout => return Err(lock_timeout(&primary).await),
                Failure::ClockSkew => return Err(failed(sent, AppendError::ClockSkew)),
                Failure::LogMoving => return Err(failed(sent, AppendError::LogMoving)),
                Failure::Transient => {
                    // A demoted primary refuses every append; a new connection may reach the new primary.
                    self.session = None;
                    return Err(failed(sent, AppendError::Unavailable(Arc::new(error))));
                }
                Failure::PartitionMissing | Failure::DataRejected => {
                    return Err(failed(sent, AppendError::Internal(Arc::new(error))));
                }
                // PostgreSQL reported the error, so nothing is written.
                Failure::Unexpected if is_from_server(&error) => {
                    return Err(failed(sent, AppendError::Unavailable(Arc::new(error))));
                }
                // A result was received that cannot be read.
                Failure::Unexpected => {
                    tracing::error!(%error, "the result of a batch of appends cannot be read");
                    return Err(AppendError::OutcomeUnknown);
                }
            }
        }
    }
}

/// Returns the session if its connection still works, or else a new one.
async fn connected_session<'s>(
    primary: &Primary,
    session: &'s mut Option<AppendSession>,
    last_used: &mut Option<Instant>,
) -> Result<&'s mut AppendSession, DatabaseError> {
    let is_fresh = last_used.is_some_and(|used| used.elapsed() < UNCHECKED_IDLE_MAX);
    if let Some(session) = session
        && !is_fresh
        && tokio::time::timeout(UNCHECKED_IDLE_MAX, session.connection.ping()).await.is_ok_and(|pong| pong.is_ok())
    {
        *last_used = Some(Instant::now());
    } else if !is_fresh {
        *session = None;
    }
    if session.is_none() {
        let mut connection = primary.connector.writer(primary.role).await?;
        let recorded = tokio::time::timeout(CHECK_TIMEOUT, primary.served_epochs.record(&mut connection)).await;
        recorded.map_err(|_| DatabaseError::TimedOut("recording the epochs that were served"))??;
        *session = Some(AppendSession::new(connection));
        *last_used = Some(Instant::now());
    }
    Ok(session.as_mut().expect("the session was created above"))
}

/// Returns whether a batch failed because of one of its requests: a value was rejected, or an event would move the time
/// of the log too far ahead. The other requests can still be written, or are replays or conflicts.
fn concerns_one_request(error: &AppendError) -> bool {
    match error {
        AppendError::ClockSkew => true,
        AppendError::Internal(error) => Failure::classify(error) == Failure::DataRejected,
        _ => false,
    }
}

/// Returns an error with the reason why a batch got no result in time.
async fn explained(primary: &Primary, error: DatabaseError) -> Arc<DatabaseError> {
    if matches!(error, DatabaseError::TimedOut(_))
        && let Err(StoreError::Unavailable(reason)) = primary.explain_slow_commits().await
        && matches!(*reason, DatabaseError::CommitsWait(_))
    {
        return reason;
    }
    Arc::new(error)
}

/// Returns the error for a batch that did not get the append lock in time: a commit may hold it.
async fn lock_timeout(primary: &Primary) -> AppendError {
    match primary.explain_slow_commits().await {
        Err(StoreError::Unavailable(error)) if matches!(*error, DatabaseError::CommitsWait(_)) => {
            AppendError::Unavailable(error)
        }
        _ => AppendError::Overloaded,
    }
}

/// Returns the error for a batch that was not sent.
fn failed_before_sending(error: DatabaseError) -> AppendError {
    match Failure::classify(&error) {
        Failure::ConnectionLost | Failure::Transient | Failure::LockTimeout => {
            AppendError::Unavailable(Arc::new(error))
        }
        Failure::LogMoving => AppendError::LogMoving,
        Failure::PartitionMissing | Failure::DataRejected | Failure::ClockSkew | Failure::Unexpected => {
            AppendError::Internal(Arc::new(error))
        }
    }
}

/// Submits a batch once. A single event is first tried without arrays.
async fn call(
    primary: &Primary,
    session: &mut AppendSession,
    batch: &[Pending],
    is_first: bool,
) -> Result<BatchResult, DatabaseError> {
    let is_generated =
        |pending: &Pending| pending.request.events().all(|event| matches!(event.event_id, EventId::Generated(_)));
    let context = AppendContext {
        ids_are_new: is_first && batch.iter().all(is_generated),
        position_floor: primary.high_water_mark(),
        now: primary.clock.set_to(),
        service_time: Some(primary.clock.now()),
    };
    let call = async {
        if mutants::is(mutants::ACKNOWLEDGED_BEFORE_COMMIT) {
            session.connection.execute("BEGIN").await?;
        }
        if let [only] = batch
            && let Some(append) = SingleEventAppend::from_request(&only.request)
            && let Some(result) = append.write(session, context).await?
        {
            return Ok(result);
        }
        let requests = batch.iter().map(|pending| pending.request.as_ref());
        Batch::new(requests, None, context).write(session).await
    };
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(DatabaseError::TimedOut("an append")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::append::Append;
    use crate::domain::event::NewEvent;
    use crate::domain::name::StreamId;
    use crate::domain::version::ExpectedVersion;

    /// A request of `events` events with payloads of `bytes` bytes.
    fn request(events: usize, bytes: usize) -> AppendRequest {
        let event = || NewEvent {
            event_id: EventId::Given(Uuid::from_u128(fastrand::u128(..))),
            event_type: String::new(),
            event_data: " ".repeat(bytes).into(),
            metadata: None,
            correlation_id: None,
            causation_id: None,
        };
        let stream = StreamId::parse("Order".to_owned(), "1".to_owned()).expect("a stream");
        let events = std::iter::repeat_with(event).take(events).collect();
        AppendRequest { appends: vec![Append { stream, expected: ExpectedVersion::Any, events }] }
    }

    fn batch(requests: usize, events: usize, bytes: usize) -> BatchSize {
        BatchSize { requests, events, bytes, event_ids: HashSet::new() }
    }

    #[test]
    fn a_batch_has_at_most_500_requests() {
        assert!(batch(BATCH_REQUESTS_MAX - 2, 0, 0).fits(&request(1, 0)));
        assert!(batch(BATCH_REQUESTS_MAX - 1, 0, 0).fits(&request(1, 0)));
        assert!(!batch(BATCH_REQUESTS_MAX, 0, 0).fits(&request(1, 0)));
    }

    #[test]
    fn a_batch_has_at_most_1000_events() {
        assert!(batch(1, BATCH_EVENTS_MAX - 3, 0).fits(&request(2, 0)));
        assert!(batch(1, BATCH_EVENTS_MAX - 2, 0).fits(&request(2, 0)));
        assert!(!batch(1, BATCH_EVENTS_MAX - 1, 0).fits(&request(2, 0)));
    }

    #[test]
    fn a_batch_has_at_most_4_mib() {
        let size = request(1, 100).size();
        assert!(batch(1, 1, BATCH_BYTES_MAX - size - 1).fits(&request(1, 100)));
        assert!(batch(1, 1, BATCH_BYTES_MAX - size).fits(&request(1, 100)));
        assert!(!batch(1, 1, BATCH_BYTES_MAX - size + 1).fits(&request(1, 100)));
    }

    #[test]
    fn an_empty_batch_takes_any_request() {
        assert!(BatchSize::default().fits(&request(1, BATCH_BYTES_MAX + 1)));
    }

    #[test]
    fn no_event_id_occurs_twice_in_a_batch() {
        let mut size = BatchSize::default();
        let first = request(2, 0);
        size.add(&first);
        assert!(!size.fits(&first));
        assert!(size.fits(&request(2, 0)));
    }
}
