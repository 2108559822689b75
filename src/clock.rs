//! The only place that reads the time. Everything else is handed a [`Clock`], so that a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};

/// Tells the time: the system's, or one that a test sets.
///
/// Events get their time from PostgreSQL, whose clock all replicas share; a set clock is handed to it as a parameter.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    set_to_micros: Option<Arc<AtomicI64>>,
}

impl Clock {
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still at `time` until [`Clock::set`].
    pub fn fixed(time: DateTime<Utc>) -> Self {
        Self { set_to_micros: Some(Arc::new(AtomicI64::new(time.timestamp_micros()))) }
    }

    /// Moves a fixed clock; the system's cannot be moved.
    pub fn set(&self, time: DateTime<Utc>) {
        let clock = self.set_to_micros.as_ref().expect("only a fixed clock is set");
        clock.store(time.timestamp_micros(), Ordering::SeqCst);
    }

    pub fn now(&self) -> DateTime<Utc> {
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        self.set_to().unwrap_or_else(Utc::now)
    }

    /// The time that was set, for PostgreSQL; `None` lets it use its own.
    pub fn set_to(&self) -> Option<DateTime<Utc>> {
        let micros = self.set_to_micros.as_ref()?.load(Ordering::SeqCst);
        DateTime::from_timestamp_micros(micros)
    }
}
