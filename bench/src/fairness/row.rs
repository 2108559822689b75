//! A row of the report: the requests of the good client without an attack, beside it, and in the control.

use std::fmt;

use serde::Serialize;

use crate::fairness::samples::{Outcomes, Summary};

/// The head of the table of [`FairShare`]. Columns with three values have the quiet one, the one beside the attack, and
/// the one of the control.
pub const TABLE_HEAD: &str = "\
    | attack | good client | successful: quiet, attack, control | p50, ms | p99, ms | longest, ms | ratio of p99 \
    | bound of p99, ms | refused | busy processors | spinning threads | responses to the attack |\n\
    |---|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---|";

/// A value of each kind of measurement.
#[derive(Debug, Default, Serialize)]
pub struct Phases<T> {
    /// Without other clients.
    pub quiet: T,
    /// Beside the attack.
    pub attack: T,
    /// Beside threads that only keep processors busy.
    pub control: T,
}

/// The requests of the good client with and without an attack.
#[derive(Debug, Serialize)]
pub struct FairShare {
    /// The name of the attack on the command line.
    attack: String,
    /// The description of the attack.
    description: String,
    /// The description of what the good client measures.
    good_client: &'static str,
    requests: Phases<Summary>,
    /// The 99th percentile beside the attack, divided by the quiet one.
    ratio: Option<f64>,
    /// Twice the quiet 99th percentile, and what the control adds to it, in milliseconds. Other clients get their fair
    /// share if the 99th percentile beside the attack is below.
    bound_ms: Option<f64>,
    /// The average number of busy processors.
    busy_processors: Phases<f64>,
    /// The number of threads of the control, the average of the rounds.
    spinning_threads: f64,
    /// The responses to the clients of the attack.
    attack_outcomes: Outcomes,
}

/// What was measured of an attack, for all its rows.
#[derive(Debug, Default)]
pub struct AttackFigures {
    /// The sums over the rounds.
    pub busy_processors: Phases<f64>,
    /// The sum over the rounds.
    pub spinning_threads: usize,
    pub outcomes: Outcomes,
    pub rounds: u32,
}

impl FairShare {
    /// Summarizes what was measured.
    pub fn new(
        attack: String,
        description: String,
        good_client: &'static str,
        requests: Phases<Summary>,
        figures: &AttackFigures,
    ) -> Self {
        let Phases { quiet, attack: attacked, control } = &requests;
        let ratio = attacked.p99_ms.zip(quiet.p99_ms).map(|(attacked, quiet)| attacked / quiet);
        let bound_ms =
            quiet.p99_ms.zip(control.p99_ms).map(|(quiet, control)| 2.0 * quiet + (control - quiet).max(0.0));
        let rounds = f64::from(figures.rounds.max(1));
        let busy = &figures.busy_processors;
        Self {
            attack,
            description,
            good_client,
            ratio,
            bound_ms,
            busy_processors: Phases {
                quiet: busy.quiet / rounds,
                attack: busy.attack / rounds,
                control: busy.control / rounds,
            },
            spinning_threads: figures.spinning_threads as f64 / rounds,
            attack_outcomes: figures.outcomes.clone(),
            requests,
        }
    }
}

impl fmt::Display for FairShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { description, good_client, requests, busy_processors: busy, .. } = self;
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        let three = |value: fn(&Summary) -> Option<f64>| {
            let Phases { quiet, attack, control } = requests;
            [quiet, attack, control].map(|summary| number(value(summary), 1)).join(", ")
        };
        write!(
            f,
            "| {description} | {good_client} | {}, {}, {} | {} | {} | {} | {} | {} ",
            requests.quiet.successful,
            requests.attack.successful,
            requests.control.successful,
            three(|summary| summary.p50_ms),
            three(|summary| summary.p99_ms),
            three(|summary| summary.longest_ms),
            number(self.ratio, 2),
            number(self.bound_ms, 1),
        )?;
        let refused = [
            ("quiet", &requests.quiet.refused),
            ("attack", &requests.attack.refused),
            ("control", &requests.control.refused),
        ];
        let refused: Vec<_> = refused
            .iter()
            .filter(|(_, outcomes)| !outcomes.is_empty())
            .map(|(phase, outcomes)| format!("{phase}: {outcomes}"))
            .collect();
        let refused = if refused.is_empty() { "none".to_owned() } else { refused.join("; ") };
        write!(
            f,
            "| {refused} | {:.1}, {:.1}, {:.1} | {:.1} | {} |",
            busy.quiet, busy.attack, busy.control, self.spinning_threads, self.attack_outcomes
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fairness::samples::Samples;

    fn summary(times_ms: &[u64], refusals: &[&str]) -> Summary {
        let mut samples = Samples::default();
        times_ms.iter().for_each(|ms| samples.add(Ok(Duration::from_millis(*ms))));
        refusals.iter().for_each(|outcome| samples.add(Err((*outcome).to_owned())));
        samples.summarize()
    }

    fn row(quiet: Summary, attack: Summary, control: Summary) -> FairShare {
        let requests = Phases { quiet, attack, control };
        FairShare::new("scans".to_owned(), "an attack".to_owned(), "reads", requests, &AttackFigures::default())
    }

    #[test]
    fn the_bound_is_twice_the_quiet_p99_and_what_the_control_adds() {
        let slower = row(summary(&[4], &[]), summary(&[20], &[]), summary(&[7], &[]));
        assert_eq!((slower.ratio, slower.bound_ms), (Some(5.0), Some(11.0)));
        let faster = row(summary(&[4], &[]), summary(&[2], &[]), summary(&[3], &[]));
        assert_eq!((faster.ratio, faster.bound_ms), (Some(0.5), Some(8.0)));
    }

    #[test]
    fn a_refused_request_has_no_time_and_is_counted() {
        let refused = row(summary(&[4], &[]), summary(&[], &["503 overloaded", "503 overloaded"]), summary(&[4], &[]));
        assert_eq!(refused.ratio, None);
        let line = refused.to_string();
        assert!(line.contains("| 1, 0, 1 | 4.0, -, 4.0 |"), "{line}");
        assert!(line.contains("| attack: 503 overloaded: 2 |"), "{line}");
        assert_eq!(line.matches('|').count(), TABLE_HEAD.lines().next().expect("a head").matches('|').count());
    }
}
