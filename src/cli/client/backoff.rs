//! Pauses between attempts.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// Pauses that double up to a limit. Each is random between half of that and all of it, so that clients that lost their
/// connections at the same time do not return at the same time.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Begins with a short pause.
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// Returns the next pause, which is at least as long as the service asks for.
    pub fn next_pause(&mut self, at_least: Option<Duration>) -> Duration {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(LONGEST);
        at_least.map_or(pause, |at_least| at_least.max(pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_respect_the_service() {
        let mut backoff = Backoff::new();
        for full in [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000] {
            let pause = backoff.next_pause(None);
            assert!((full / 2..=full).contains(&pause.as_millis()), "{pause:?}");
        }
        assert_eq!(Backoff::new().next_pause(Some(Duration::from_secs(30))), Duration::from_secs(30));
    }
}
