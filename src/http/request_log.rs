//! The log lines of requests: at `info`, `warn` or `error` if a request was refused or failed, otherwise at `debug`.
//!
//! A client that repeats a refused request must not fill the disk, so the lines of refused requests have a limit. The
//! next line says how many were left out.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::http::problem::code::Code;
use crate::http::problem::error::Problem;

/// The limit of lines for refused requests, in a second.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("a number above 0");

/// The limit of the lines of refused requests.
pub struct RequestLog {
    limiter: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl RequestLog {
    /// Creates a log without lines.
    pub fn new() -> Self {
        Self { limiter: RateLimiter::direct(Quota::per_second(LINES_PER_SECOND)), left_out: AtomicU64::new(0) }
    }

    /// Returns the number of lines that were left out before this one; `None` if this one is left out, too.
    pub fn admit(&self) -> Option<u64> {
        if self.limiter.check().is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for RequestLog {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the detail of a problem for the log. It names the parameter, the header or the member. The detail of a
/// failed reducer is the text that the reducer threw, which can contain event data.
pub fn logged_detail(problem: &Problem) -> Option<&str> {
    let is_refused = problem.status.is_client_error() && problem.code != Code::ReducerFailed;
    is_refused.then_some(problem.detail.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_limited_and_counted() {
        let log = RequestLog::new();
        let admitted = (0..100).filter(|_| log.admit() == Some(0)).count();
        assert!((20..30).contains(&admitted), "{admitted} lines");
        assert!(log.left_out.load(Ordering::Relaxed) > 60);
    }
}
