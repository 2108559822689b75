//! `annals state`: prints the state of an aggregate, now or in the past, or the difference between two states.

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::client::diff::{Difference, differences};
use crate::cli::client::event::parse;
use crate::cli::client::failure::Failure;
use crate::cli::client::http::Client;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::cli::client::pretty::pretty;
use crate::cli::client::target::stream;
use crate::cli::client::text::printable;
use crate::config::client::ClientArgs;
use crate::domain::name::StreamId;
use crate::wire::path::{link, segment};
use crate::wire::time::format_time;

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals state Order/ord-1                 the state after the last event
  annals state Order/ord-1 --at 3          the state after version 3
  annals state Order/ord-1 --at 2026-11-23T05:00:00Z
  annals state Order/ord-1 --diff 2..3     what the event of version 3 changed
  annals state Order/ord-1 --diff 2..      what has changed since version 2

The aggregate type needs a reducer: docs/tutorial/first-reducer.md shows how to register one.";

/// The arguments of `annals state`.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Aggregate, like Order/ord-1
    #[arg(value_parser = stream)]
    aggregate: StreamId,

    /// The state after this version, or at this time, like 2026-11-23T05:00:00Z [default: now]
    #[arg(long, value_name = "VERSION_OR_TIME", value_parser = at)]
    at: Option<At>,

    /// The difference between the states after two versions, like 2..3; without the second one, up to now
    #[arg(long, value_name = "VERSIONS", value_parser = diff, conflicts_with = "at")]
    diff: Option<Diff>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// The value of `--at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Version(u64),
    Time(DateTime<Utc>),
}

/// The value of `--diff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Diff {
    before: u64,
    after: Option<u64>,
}

fn at(text: &str) -> Result<At, String> {
    if let Ok(version) = version(text) {
        return Ok(At::Version(version));
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| At::Time(time.to_utc()))
        .map_err(|_| "must be a version from 1 on, or a time like 2026-11-23T05:00:00Z".to_owned())
}

fn diff(text: &str) -> Result<Diff, String> {
    let parsed = text.split_once("..").and_then(|(before, after)| {
        let after = if after.is_empty() { None } else { Some(version(after).ok()?) };
        Some(Diff { before: version(before).ok()?, after })
    });
    parsed.ok_or_else(|| "must be two versions, like 2..3, or one, like 2..".to_owned())
}

fn version(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.parse::<std::num::NonZeroU64>().map(std::num::NonZeroU64::get)
}

/// A state, as the service returns it.
#[derive(Deserialize)]
struct State<'t> {
    version: u64,
    occurred_at: String,
    #[serde(borrow)]
    state: &'t RawValue,
}

/// Runs `annals state`.
pub async fn run(args: StateArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    if let Some(Diff { before, after }) = args.diff {
        let before = read(&client, &args.aggregate, Some(At::Version(before))).await?;
        let after = read(&client, &args.aggregate, after.map(At::Version)).await?;
        let (before, after): (State<'_>, State<'_>) = (parse(&before)?, parse(&after)?);
        for difference in differences(before.state, after.state)? {
            print_difference(&difference, &mut output)?;
        }
        return output.flush();
    }
    let body = read(&client, &args.aggregate, args.at).await?;
    if output.is_json {
        output.line(&String::from_utf8_lossy(&body))?;
        return output.flush();
    }
    let state: State<'_> = parse(&body)?;
    if output.is_terminal {
        let place = output.paint(Part::Stream, &format!("{}@{}", args.aggregate, state.version));
        let line = format!("{place}  {}", output.paint(Part::Detail, &state.occurred_at));
        output.line(&line)?;
    }
    for line in pretty(state.state.get()).lines() {
        output.line(&printable(line))?;
    }
    output.flush()
}

async fn read(client: &Client, aggregate: &StreamId, at: Option<At>) -> Result<bytes::Bytes, Failure> {
    let path =
        format!("/aggregates/{}/{}/state", segment(aggregate.aggregate_type()), segment(aggregate.aggregate_id()));
    let parameters = match at {
        None => vec![],
        Some(At::Version(version)) => vec![("version", version.to_string())],
        Some(At::Time(time)) => vec![("at", format_time(time))],
    };
    Ok(client.get(&link(&path, &parameters)).await?)
}

fn print_difference(difference: &Difference<'_>, output: &mut Output) -> Result<(), Failure> {
    let Difference { pointer, before, after } = difference;
    if output.is_json {
        let pointer = serde_json::to_string(pointer).expect("a string is JSON");
        let member =
            |name: &str, json: Option<&str>| json.map_or_else(String::new, |json| format!(",\"{name}\":{json}"));
        let (before, after) = (member("before", *before), member("after", *after));
        return output.line(&format!("{{\"pointer\":{pointer}{before}{after}}}"));
    }
    let (part, sign, change) = match (before, after) {
        (Some(before), Some(after)) => (Part::Changed, '~', format!("{before} → {after}")),
        (Some(before), None) => (Part::Removed, '-', (*before).to_owned()),
        (None, after) => (Part::Added, '+', after.unwrap_or("null").to_owned()),
    };
    let name = if pointer.is_empty() { "the state" } else { pointer.as_str() };
    let line = output.paint(part, &format!("{sign} {name}: {change}"));
    output.line(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_named_by_a_version_or_a_time() {
        assert_eq!(at("3"), Ok(At::Version(3)));
        assert_eq!(at("1970-01-01T00:00:00Z"), Ok(At::Time(DateTime::from_timestamp(0, 0).expect("a time"))));
        assert!(at("0").is_err() && at("now").is_err());
        assert_eq!(diff("2..3"), Ok(Diff { before: 2, after: Some(3) }));
        assert_eq!(diff("2.."), Ok(Diff { before: 2, after: None }));
        for text in ["", "2", "..", "..3", "0..1", "2..x", "2...3"] {
            assert!(diff(text).is_err(), "{text}");
        }
    }
}
