//! The newest erasure that a process knows. What was read before it may contain erased content.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::erasure::ErasureNo;

/// A response that was read before an erasure is completed within this time, or is ended. Only then the `$erased` events
/// are appended.
pub const GRACE: Duration = Duration::from_millis(100);
/// For this time after an erasure, every connection to a read replica is checked for the erasure.
const REPLICA_CHECK: Duration = Duration::from_secs(3_600);

/// The newest known erasure, which the readers of a process share.
#[derive(Debug, Default)]
pub struct KnownErasures {
    number: AtomicI64,
    raised: Mutex<Raised>,
}

/// When the number was raised.
#[derive(Debug, Default)]
struct Raised {
    /// What was read before this erasure must not be sent any more.
    ended: ErasureNo,
    /// The later erasures, in their order.
    recent: VecDeque<(ErasureNo, Instant)>,
    last: Option<Instant>,
}

impl KnownErasures {
    /// Returns the number of the newest known erasure; 0 if there is none.
    pub fn newest(&self) -> ErasureNo {
        self.number.load(Ordering::SeqCst)
    }

    /// Records an erasure that is committed.
    pub fn raise(&self, erasure: ErasureNo) {
        if erasure <= self.newest() {
            return;
        }
        let mut raised = self.raised();
        // Another task may have recorded it.
        if self.number.fetch_max(erasure, Ordering::SeqCst) < erasure {
            let now = Instant::now();
            raised.recent.push_back((erasure, now));
            raised.last = Some(now);
        }
    }

    /// Returns whether content that was read when `newest` was the newest erasure must not be sent any more: the first
    /// erasure after it is older than the grace.
    pub fn has_ended(&self, newest: ErasureNo) -> bool {
        if self.newest() == newest {
            return false;
        }
        let mut raised = self.raised();
        while let Some(&(erasure, _)) = raised.recent.front().filter(|(_, at)| at.elapsed() >= GRACE) {
            raised.ended = erasure;
            raised.recent.pop_front();
        }
        raised.ended > newest
    }

    /// Returns the erasure that a read replica must have; `None` if each has it, as far as this process can know.
    pub(in crate::store) fn required_of_replicas(&self) -> Option<ErasureNo> {
        let newest = self.newest();
        let is_recent = || self.raised().last.is_some_and(|at| at.elapsed() < REPLICA_CHECK);
        (newest > 0 && is_recent()).then_some(newest)
    }

    fn raised(&self) -> MutexGuard<'_, Raised> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reader has read, and the newest erasure when it began.
#[derive(Debug, Clone)]
pub struct ReadMark {
    known: Arc<KnownErasures>,
    newest: ErasureNo,
}

impl ReadMark {
    /// Begins a read.
    pub fn new(known: &Arc<KnownErasures>) -> Self {
        Self { known: known.clone(), newest: known.newest() }
    }

    /// Begins the read again.
    pub fn renew(&mut self) {
        self.newest = self.known.newest();
    }

    /// Returns whether something was erased since the read began: what was read is void.
    pub fn is_void(&self) -> bool {
        self.known.newest() != self.newest
    }

    /// Returns whether what was read must not be sent any more: as [`ReadMark::is_void`], after the grace.
    pub fn has_ended(&self) -> bool {
        self.known.has_ended(self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_erasures_do_not_extend_the_grace_of_earlier_ones() {
        let known = Arc::new(KnownErasures::default());
        let before = ReadMark::new(&known);
        known.raise(1);
        let between = ReadMark::new(&known);
        known.raise(2);
        assert!(before.is_void() && between.is_void() && !before.has_ended() && !between.has_ended());
        // As if the first erasure was made before the grace, and the second one a moment ago.
        known.raised().recent[0].1 -= GRACE;
        assert!(before.has_ended() && !between.has_ended());
        known.raised().recent[0].1 -= GRACE;
        assert!(between.has_ended() && !ReadMark::new(&known).has_ended());
        known.raise(1);
        assert_eq!(known.newest(), 2);
    }
}
