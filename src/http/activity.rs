//! Whether a connection is idle, and since when.
//!
//! ```text
//!          bytes of a request            response complete             response sent
//!  idle ───────────────────────► busy ─────────────────────► responded ─────────────► idle
//!    └─ the seat is needed: evicted
//! ```
//!
//! A connection that has sent nothing is idle. A request costs a few operations on an atomic number of its own
//! connection. Only an idle connection can be evicted, and the change of the state is atomic, so a request in progress
//! is never aborted. A request whose bytes arrive after the eviction is refused.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::shares::limit::Share;

/// A request is in progress.
const BUSY: u64 = 0;
/// The body of the response is complete, and perhaps not sent yet.
const RESPONDED: u64 = 1;
/// The connection is being closed, because a new connection has its seat.
const EVICTED: u64 = u64::MAX;
/// An idle connection has this state, plus the time at which it became idle.
const IDLE: u64 = 2;

/// What the connections of an address share.
pub struct IdleClock {
    started: Instant,
    /// Whether a connection has become idle since this was last asked.
    some_became_idle: AtomicBool,
}

/// The state of a connection.
pub struct Activity {
    state: AtomicU64,
    clock: Arc<IdleClock>,
    /// Is cancelled when the connection must end: after a request in progress, or at once.
    closing: CancellationToken,
}

/// A request in progress. Its end is the end of the response.
pub struct RequestInProgress(Arc<Activity>);

/// A client's share of the requests in progress.
#[derive(Clone)]
pub struct HeldShare(pub Arc<Share>);

/// The body of a response, whose end is the end of the request in progress.
pub struct ResponseBody {
    pub body: Body,
    /// `None`: the connection is evicted, and ends after this response.
    pub request: Option<RequestInProgress>,
    /// The client's share of the requests in progress, which is released with the body.
    pub share: Option<HeldShare>,
}

impl IdleClock {
    /// Starts a clock.
    pub fn new() -> Self {
        Self { started: Instant::now(), some_became_idle: AtomicBool::new(false) }
    }

    /// Returns whether a connection has become idle since the last call.
    pub fn take_some_became_idle(&self) -> bool {
        self.some_became_idle.swap(false, SeqCst)
    }

    /// Returns the state of a connection that becomes idle at this time. A later call returns no smaller state.
    fn idle_state(&self) -> u64 {
        let nanoseconds = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        nanoseconds.saturating_add(IDLE).min(EVICTED - 1)
    }

    /// Records that a connection has become idle. Most calls only read, so that the processors can share the memory.
    fn record_idle(&self) {
        if !self.some_became_idle.load(SeqCst) {
            self.some_became_idle.store(true, SeqCst);
        }
    }
}

impl Default for IdleClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Activity {
    /// Creates the state of a new connection, which is idle.
    pub fn new(clock: Arc<IdleClock>, closing: CancellationToken) -> Self {
        let state = AtomicU64::new(clock.idle_state());
        clock.record_idle();
        Self { state, clock, closing }
    }

    /// Waits until the connection must end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Records that bytes of the head of a request have arrived. The connection is idle from now on: a client that never
    /// completes the head must not keep its seat.
    pub fn record_bytes(&self) {
        let state = self.state.load(SeqCst);
        if state == BUSY || state == EVICTED {
            return;
        }
        // Only an eviction can change the state at the same time.
        if self.state.compare_exchange(state, self.clock.idle_state(), SeqCst, SeqCst).is_ok() {
            self.clock.record_idle();
        }
    }

    /// Records that a request has begun. Returns `None` if the connection is evicted.
    pub fn begin_request(self: &Arc<Self>) -> Option<RequestInProgress> {
        self.make_busy().then(|| RequestInProgress(self.clone()))
    }

    /// Records that everything that was written is sent. After a complete response, the connection is idle.
    pub fn record_sent(&self) {
        if self.state.load(SeqCst) != RESPONDED {
            return;
        }
        let idle = self.clock.idle_state();
        if self.state.compare_exchange(RESPONDED, idle, SeqCst, SeqCst).is_ok() {
            self.clock.record_idle();
        }
    }

    /// Returns a number if the connection is idle. A connection that is idle for a longer time has a smaller number.
    pub fn idle_since(&self) -> Option<u64> {
        let state = self.state.load(SeqCst);
        (state != BUSY && state != RESPONDED && state != EVICTED).then_some(state)
    }

    /// Closes the connection if it has been idle since then. Returns whether it is closed.
    pub fn evict(&self, idle_since: u64) -> bool {
        let is_evicted = self.state.compare_exchange(idle_since, EVICTED, SeqCst, SeqCst).is_ok();
        if is_evicted {
            self.closing.cancel();
        }
        is_evicted
    }

    /// Makes the connection busy unless it is evicted. Returns whether it is busy.
    fn make_busy(&self) -> bool {
        let state = self.state.load(SeqCst);
        // Only an eviction can change the state at the same time.
        state == BUSY || state != EVICTED && self.state.compare_exchange(state, BUSY, SeqCst, SeqCst).is_ok()
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        // A busy connection cannot be evicted, so nothing else has changed its state.
        self.0.state.store(RESPONDED, SeqCst);
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity() -> Arc<Activity> {
        Arc::new(Activity::new(Arc::new(IdleClock::new()), CancellationToken::new()))
    }

    #[test]
    fn a_connection_is_idle_until_a_head_is_complete_and_after_the_response_is_sent() {
        let activity = activity();
        let first = activity.idle_since().expect("a new connection is idle");
        activity.record_sent();
        assert_eq!(activity.idle_since(), Some(first), "nothing was sent");
        // A part of the head is not a request in progress.
        activity.record_bytes();
        assert!(activity.idle_since().is_some_and(|since| since >= first));
        let request = activity.begin_request().expect("the connection is not evicted");
        activity.record_sent();
        assert_eq!(activity.idle_since(), None, "the response is not complete");
        drop(request);
        assert_eq!(activity.idle_since(), None, "the response is not sent");
        activity.record_sent();
        assert!(activity.idle_since().expect("the connection is idle") >= first);
    }

    #[test]
    fn only_a_connection_that_is_still_idle_is_evicted() {
        let activity = activity();
        let since = activity.idle_since().expect("a new connection is idle");
        let request = activity.begin_request().expect("the connection is not evicted");
        assert!(!activity.evict(since), "the request is in progress");
        drop(request);
        assert!(!activity.evict(since), "the response is not sent");
        activity.record_sent();
        let since = activity.idle_since().expect("the connection is idle");
        assert!(!activity.closing.is_cancelled());
        assert!(activity.evict(since));
        assert!(activity.closing.is_cancelled());
        // A request that arrives at the same time is refused.
        activity.record_bytes();
        assert!(activity.begin_request().is_none());
        assert!(!activity.evict(since));
    }

    #[test]
    fn the_clock_reports_once_that_a_connection_has_become_idle() {
        let clock = Arc::new(IdleClock::new());
        let activity = Arc::new(Activity::new(clock.clone(), CancellationToken::new()));
        assert!(clock.take_some_became_idle(), "a new connection is idle");
        let request = activity.begin_request();
        activity.record_sent();
        assert!(!clock.take_some_became_idle());
        drop(request);
        activity.record_sent();
        assert!(clock.take_some_became_idle());
        assert!(!clock.take_some_became_idle());
    }
}
