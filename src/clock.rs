//! The clock. No other module reads the time: each gets a [`Clock`], so that a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// The clock of the system, or one that a test sets.
///
/// Events get their time from PostgreSQL, whose clock all processes share. A test's clock is passed to it as a
/// parameter.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    set_to_micros: Option<Arc<AtomicI64>>,
    /// How far the clock is behind that of the system, which PostgreSQL uses.
    behind: TimeDelta,
}

impl Clock {
    /// Returns the clock of the system.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that shows `time` until [`Clock::set`] changes it. Times are truncated to microseconds.
    pub fn fixed(time: DateTime<Utc>) -> Self {
        Self { set_to_micros: Some(Arc::new(AtomicI64::new(time.timestamp_micros()))), ..Self::default() }
    }

    /// Returns a clock that is behind the clock of PostgreSQL. For tests: PostgreSQL uses its own clock.
    pub fn behind(behind: TimeDelta) -> Self {
        Self { behind, ..Self::default() }
    }

    /// Sets a fixed clock, and all of its clones.
    ///
    /// # Panics
    ///
    /// Panics if the clock is that of the system.
    pub fn set(&self, time: DateTime<Utc>) {
        let clock = self.set_to_micros.as_ref().expect("only a fixed clock can be set");
        clock.store(time.timestamp_micros(), Ordering::SeqCst);
    }

    /// Returns the current time.
    pub fn now(&self) -> DateTime<Utc> {
        #[expect(clippy::disallowed_methods, reason = "the only place that reads the time")]
        self.set_to().unwrap_or_else(|| Utc::now() - self.behind)
    }

    /// Returns the time that a test has set, for PostgreSQL; `None` if PostgreSQL uses its own clock.
    pub fn set_to(&self) -> Option<DateTime<Utc>> {
        let micros = self.set_to_micros.as_ref()?.load(Ordering::SeqCst);
        DateTime::from_timestamp_micros(micros)
    }
}
