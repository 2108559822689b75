//! Pauses between polls of the database.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;

/// Pauses between polls. Each is twice as long as the one before, up to a limit. It holds no database connection.
pub struct Backoff {
    pause: Duration,
    longest: Duration,
    deadline: Instant,
    shutdown: CancellationToken,
}

impl Backoff {
    const FIRST_PAUSE: Duration = Duration::from_millis(10);

    /// Creates pauses of at most `longest`, until `deadline` or until `shutdown` is cancelled.
    pub fn new(longest: Duration, deadline: Instant, shutdown: CancellationToken) -> Self {
        Self { pause: Self::FIRST_PAUSE, longest, deadline, shutdown }
    }

    /// Returns whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Waits until the next poll is due, at most until the deadline. Fails if a shutdown begins.
    pub async fn pause(&mut self) -> Result<(), StoreError> {
        let next_poll = self.deadline.min(Instant::now() + self.pause);
        let slept = self.shutdown.run_until_cancelled(tokio::time::sleep_until(next_poll)).await;
        self.pause = (self.pause * 2).min(self.longest);
        slept.ok_or(StoreError::ShuttingDown)
    }
}
