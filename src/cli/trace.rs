//! `annals trace`: prints the events of a correlation id as a tree of causes, with the time between each event and its
//! cause.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use uuid::Uuid;

use crate::cli::client::event::Event;
use crate::cli::client::failure::{Failure, Kind, notice};
use crate::cli::client::http::Client;
use crate::cli::client::lines::read_events;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::config::client::ClientArgs;
use crate::wire::path::link;

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals trace 019a1b2c-7d3e-7f40-8a51-0123456789ab
  annals trace req-77                      the id that was sent as X-Correlation-Id
  annals trace req-77 --json               the events in the order of the log, one a line

An event is below the event that its causation_id names.";

/// The largest number of events of a tree.
const EVENTS_MAX: usize = 10_000;
/// The deepest level that is indented. A long chain would otherwise be wider than every terminal.
const INDENTED_LEVELS_MAX: usize = 20;

/// The arguments of `annals trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Correlation id: a UUID, or the text that was sent as X-Correlation-Id
    correlation_id: String,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// An event of the tree.
struct Step {
    event_id: Uuid,
    causation_id: Option<Uuid>,
    occurred_at: DateTime<Utc>,
    time: String,
    place: String,
    event_type: String,
}

/// A step that will be printed.
struct Pending {
    step: usize,
    /// The cause; `None` for a root.
    cause: Option<usize>,
    /// The lines before the step, which belong to its ancestors.
    prefix: String,
    level: usize,
    is_last: bool,
}

/// Runs `annals trace`.
pub async fn run(args: TraceArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    let parameters = [("correlation_id", args.correlation_id.clone()), ("limit", (EVENTS_MAX + 1).to_string())];
    let mut steps: Vec<Step> = Vec::new();
    let mut count = 0;
    read_events(&client, &link("/events", &parameters), |event| {
        count += 1;
        if count > EVENTS_MAX {
            Ok(())
        } else if output.is_json {
            output.line(event)
        } else {
            steps.push(Step::parse(event)?);
            Ok(())
        }
    })
    .await?;
    if count == 0 {
        let message = format!("no event that can be read has the correlation id {}", args.correlation_id);
        return Err(Failure::new(Kind::NotFound, message));
    }
    print_tree(&steps, &mut output)?;
    output.flush()?;
    if count > EVENTS_MAX {
        notice(&format!("only the first {EVENTS_MAX} events are shown"));
    }
    Ok(())
}

impl Step {
    fn parse(event: &str) -> Result<Self, Failure> {
        let event = Event::parse(event)?;
        let occurred_at = DateTime::parse_from_rfc3339(&event.occurred_at)
            .map_err(|_| Failure::new(Kind::Other, format!("the service returned the time {}", event.occurred_at)))?;
        Ok(Self {
            event_id: event.event_id,
            causation_id: event.causation_id,
            occurred_at: occurred_at.to_utc(),
            place: event.place(),
            time: event.occurred_at,
            event_type: event.event_type,
        })
    }
}

/// Returns the cause of each step, if it is an earlier step. A later one is no cause, and so the tree has no circles.
fn causes(steps: &[Step]) -> Vec<Option<usize>> {
    let mut earlier: HashMap<Uuid, usize> = HashMap::new();
    let mut causes = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        causes.push(step.causation_id.and_then(|id| earlier.get(&id).copied()));
        earlier.insert(step.event_id, index);
    }
    causes
}

/// Prints each root with the steps below it, in the order of the log.
fn print_tree(steps: &[Step], output: &mut Output) -> Result<(), Failure> {
    let causes = causes(steps);
    let mut effects: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (step, cause) in causes.iter().enumerate() {
        if let Some(cause) = cause {
            effects[*cause].push(step);
        }
    }
    // The next step is at the end. A stack in place of recursion, because a chain may be long.
    let roots = (0..steps.len()).rev().filter(|step| causes[*step].is_none());
    let mut pending: Vec<Pending> =
        roots.map(|step| Pending { step, cause: None, prefix: String::new(), level: 0, is_last: true }).collect();
    while let Some(next) = pending.pop() {
        let line = describe(&next, steps, output);
        output.line(&line)?;
        let is_indented = (1..=INDENTED_LEVELS_MAX).contains(&next.level);
        let own_line = if is_indented { if next.is_last { "   " } else { "│  " } } else { "" };
        let prefix = format!("{}{own_line}", next.prefix);
        for (index, step) in effects[next.step].iter().enumerate().rev() {
            pending.push(Pending {
                step: *step,
                cause: Some(next.step),
                prefix: prefix.clone(),
                level: next.level + 1,
                is_last: index + 1 == effects[next.step].len(),
            });
        }
    }
    Ok(())
}

/// Returns the line of a step.
fn describe(pending: &Pending, steps: &[Step], output: &Output) -> String {
    let step = &steps[pending.step];
    let (place, event_type) = (output.paint(Part::Stream, &step.place), output.paint(Part::Kind, &step.event_type));
    match pending.cause {
        None => {
            // The cause has another correlation id, or the key of the client cannot read it.
            let cause = step.causation_id.map_or_else(String::new, |cause| format!("  caused by {cause}"));
            let (time, cause) = (output.paint(Part::Detail, &step.time), output.paint(Part::Detail, &cause));
            format!("{time}  {place}  {event_type}{cause}")
        }
        Some(cause) => {
            let gap = (step.occurred_at - steps[cause].occurred_at).to_std().unwrap_or_default();
            let gap = output.paint(Part::Detail, &format!("+{}", format_gap(gap)));
            let branch = if pending.is_last { "└─" } else { "├─" };
            format!("{}{branch} {gap}  {place}  {event_type}", pending.prefix)
        }
    }
}

/// Formats the time between two events with about three digits.
fn format_gap(gap: Duration) -> String {
    let milliseconds = gap.as_secs_f64() * 1_000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 1_000.0 {
        format!("{milliseconds:.0} ms")
    } else if milliseconds < 60_000.0 {
        format!("{:.2} s", milliseconds / 1_000.0)
    } else {
        humantime::format_duration(Duration::from_secs(gap.as_secs())).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: u128, cause: Option<u128>) -> Step {
        Step {
            event_id: Uuid::from_u128(id),
            causation_id: cause.map(Uuid::from_u128),
            occurred_at: DateTime::UNIX_EPOCH,
            time: String::new(),
            place: String::new(),
            event_type: String::new(),
        }
    }

    #[test]
    fn only_an_earlier_event_is_a_cause() {
        let steps = [step(1, None), step(2, Some(1)), step(3, Some(4)), step(4, Some(3)), step(5, Some(5))];
        assert_eq!(causes(&steps), [None, Some(0), None, Some(2), None]);
    }

    #[test]
    fn times_between_events_have_about_three_digits() {
        for (microseconds, expected) in [
            (0, "0.0 ms"),
            (1_234, "1.2 ms"),
            (12_345, "12 ms"),
            (1_234_567, "1.23 s"),
            (61_000_000, "1m 1s"),
            (90_061_000_000, "1day 1h 1m 1s"),
        ] {
            assert_eq!(format_gap(Duration::from_micros(microseconds)), expected);
        }
    }
}
