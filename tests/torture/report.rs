//! The report of a run, as text.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::faults::Kind;
use super::history;
use super::history::Read;
use super::mutants::Mutant;
use super::run::Outcome;

/// Formats the figures of a run.
pub fn format_run(outcome: &Outcome) -> String {
    let history = &outcome.history;
    let attempts = || history.requests.iter().flat_map(|request| &request.attempts);
    let count =
        |is_counted: fn(&history::Outcome) -> bool| attempts().filter(|attempt| is_counted(&attempt.outcome)).count();
    let kills = outcome.faults.iter().filter(|kind| kind.is_kill()).count();
    let erased = history.log.iter().filter(|event| event.is_erased).count();
    let heads = history.reads.iter().filter(|read| matches!(read, Read::Head { .. })).count();
    let delivered: usize = history.readers.iter().map(|reader| reader.events.len()).sum();
    let connections: u32 = history.readers.iter().map(|reader| reader.connections).sum();
    let mut text = String::new();
    for (what, figure) in [
        ("seed", outcome.seed.to_string()),
        ("PostgreSQL", outcome.major.to_string()),
        ("rounds", format!("{} ({kills} kills)", outcome.faults.len())),
        ("time", format!("{:.0} s", outcome.took.as_secs_f64())),
        ("requests", history.requests.len().to_string()),
        ("attempts", attempts().count().to_string()),
        ("written", count(|outcome| matches!(outcome, history::Outcome::Written(_))).to_string()),
        ("replayed", count(|outcome| matches!(outcome, history::Outcome::Replayed(_))).to_string()),
        ("conflicts", count(|outcome| matches!(outcome, history::Outcome::Conflict(_))).to_string()),
        ("refused", count(|outcome| matches!(outcome, history::Outcome::Refused(_))).to_string()),
        ("outcome unknown at first", count(|outcome| matches!(outcome, history::Outcome::Unknown(_))).to_string()),
        ("events in the log", history.log.len().to_string()),
        ("delivered to readers", format!("{delivered}, over {connections} event streams")),
        ("heads of the log read", heads.to_string()),
        (
            "acknowledged by workers",
            history.processed.iter().map(|done| done.positions.len()).sum::<usize>().to_string(),
        ),
        ("erasures", format!("{}, of {erased} events", history.erased.len())),
        ("states read", (history.reads.len() - heads).to_string()),
        ("broken promises", outcome.violations.len().to_string()),
    ] {
        writeln!(text, "{what:>24}  {figure}").expect("writing to memory does not fail");
    }
    for (kind, _) in Kind::ALL {
        let times = outcome.faults.iter().filter(|done| **done == kind).count();
        writeln!(text, "{:>24}  {times}", format!("{kind:?}")).expect("writing to memory does not fail");
    }
    text
}

/// A mutant, and how it was found.
pub struct Found {
    pub mutant: &'static Mutant,
    /// The broken rules. There are none if it was not found.
    pub rules: BTreeSet<&'static str>,
    /// The length of the search.
    pub after: String,
}

/// Formats a Markdown table with the rules that found each mutant, and the length of the search.
pub fn format_mutants(found: &[Found]) -> String {
    let mut text = "| mutant | what is broken | found by | after |\n|---|---|---|---|\n".to_owned();
    for Found { mutant, rules, after } in found {
        let rules: Vec<_> = rules.iter().copied().collect();
        let found_by = if rules.is_empty() { "NOT FOUND".to_owned() } else { rules.join("; ") };
        writeln!(text, "| {} | {} | {found_by} | {after} |", mutant.name, mutant.what)
            .expect("writing to memory does not fail");
    }
    text
}
