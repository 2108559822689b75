//! What clients have measured: times of successful requests, and the outcomes of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// The number of requests by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Outcomes(BTreeMap<String, u64>);

impl Outcomes {
    /// Counts one request.
    pub fn add(&mut self, outcome: String) {
        *self.0.entry(outcome).or_default() += 1;
    }

    /// Adds the counts of others.
    pub fn merge(&mut self, others: Self) {
        for (outcome, count) in others.0 {
            *self.0.entry(outcome).or_default() += count;
        }
    }

    /// Returns whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let counts: Vec<_> = self.0.iter().map(|(outcome, count)| format!("{outcome}: {count}")).collect();
        f.write_str(&counts.join("; "))
    }
}

/// The requests of one client.
#[derive(Debug, Default)]
pub struct Samples {
    times: Vec<Duration>,
    pub refused: Outcomes,
}

impl Samples {
    /// Adds the time of a successful request, or the outcome of another one.
    pub fn add(&mut self, sample: Result<Duration, String>) {
        match sample {
            Ok(time) => self.times.push(time),
            Err(outcome) => self.refused.add(outcome),
        }
    }

    /// Adds the requests of another measurement.
    pub fn merge(&mut self, other: Self) {
        self.times.extend(other.times);
        self.refused.merge(other.refused);
    }

    /// Returns the number of successful requests.
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// Summarizes the requests.
    pub fn summarize(mut self) -> Summary {
        self.times.sort_unstable();
        let quantile = |q: f64| {
            let last = self.times.len().checked_sub(1)?;
            Some(self.times[(last as f64 * q) as usize].as_secs_f64() * 1e3)
        };
        Summary {
            successful: self.times.len(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            longest_ms: quantile(1.0),
            refused: self.refused,
        }
    }
}

/// The requests of one client, summarized. Times are those of successful requests, and absent if there was none.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub successful: usize,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub longest_ms: Option<f64>,
    pub refused: Outcomes,
}
