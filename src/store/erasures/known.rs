//! The newest erasure that a process knows. What was read before it may contain erased content.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::erasure::ErasureNo;

/// A response that was read before an erasure is completed within this time, or is aborted. An erasure counts as hidden
/// when the time has passed.
pub const GRACE: Duration = Duration::from_millis(100);
/// For this time after an erasure, every connection to a read replica is checked for the erasure.
const REPLICA_CHECK: Duration = Duration::from_secs(3_600);

/// The newest known erasure, which the readers of a process share.
#[derive(Debug, Default)]
pub struct KnownErasures {
    number: AtomicI64,
    /// When the number was raised last.
    raised_at: Mutex<Option<Instant>>,
}

impl KnownErasures {
    /// Returns the number of the newest known erasure; 0 if there is none.
    pub fn newest(&self) -> ErasureNo {
        self.number.load(Ordering::SeqCst)
    }

    /// Records an erasure that is committed.
    pub fn raise(&self, erasure: ErasureNo) {
        if erasure > self.newest() {
            let mut raised_at = self.raised_at.lock().unwrap_or_else(PoisonError::into_inner);
            *raised_at = Some(Instant::now());
            self.number.fetch_max(erasure, Ordering::SeqCst);
        }
    }

    /// Returns whether content that was read when `newest` was the newest erasure must not be sent any more.
    pub fn has_ended(&self, newest: ErasureNo) -> bool {
        self.newest() != newest && self.age().is_some_and(|age| age >= GRACE)
    }

    /// Returns the erasure that a read replica must have; `None` if each has it, as far as this process can know.
    pub(in crate::store) fn required_of_replicas(&self) -> Option<ErasureNo> {
        let newest = self.newest();
        (newest > 0 && self.age().is_some_and(|age| age < REPLICA_CHECK)).then_some(newest)
    }

    fn age(&self) -> Option<Duration> {
        self.raised_at.lock().unwrap_or_else(PoisonError::into_inner).map(|raised_at| raised_at.elapsed())
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

    /// Returns whether something was erased since the read began: what was read is void.
    pub fn is_void(&self) -> bool {
        self.known.newest() != self.newest
    }

    /// Returns whether what was read must not be sent any more: as [`ReadMark::is_void`], after the grace.
    pub fn has_ended(&self) -> bool {
        self.known.has_ended(self.newest)
    }
}
