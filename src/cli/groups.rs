//! `annals groups`: lists the consumer groups, and how far they are behind the log.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::client::event::parse;
use crate::cli::client::failure::Failure;
use crate::cli::client::output::{Output, Part};
use crate::cli::client::watch::{WatchArgs, paint_lag, watch};

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals groups                            lag, claims and parked streams of each consumer group
  annals groups --watch                    again every 2 seconds, until Ctrl-C
  annals groups --json | jq 'select(.parked_for_good > 0) | .group_name'";

/// A page of groups.
#[derive(Deserialize)]
struct Page<'t> {
    #[serde(borrow)]
    groups: Vec<&'t RawValue>,
}

#[derive(Deserialize)]
struct Group {
    group_name: String,
    paused: bool,
    last_processed_position: i64,
    lag: i64,
    lag_seconds: f64,
    open_claims: u64,
    parked_streams: i64,
    parked_for_good: i64,
}

/// Runs `annals groups`.
pub async fn run(args: WatchArgs) -> Result<(), Failure> {
    watch(args, "/groups?limit=1000", print).await
}

fn print(pages: &[Bytes], output: &mut Output) -> Result<(), Failure> {
    if !output.is_json {
        output.line(&format!(
            "{:>12}  {:>12}  {:>12}  {:>8}  {:>8}  {:>8}  GROUP",
            "LAG", "SECONDS", "POSITION", "CLAIMS", "PARKED", "FOR GOOD"
        ))?;
    }
    for page in pages {
        for group in parse::<Page<'_>>(page)?.groups {
            if output.is_json {
                output.line(group.get())?;
            } else {
                output_group(&parse(group.get().as_bytes())?, output)?;
            }
        }
    }
    Ok(())
}

fn output_group(group: &Group, output: &mut Output) -> Result<(), Failure> {
    let parked = format!("{:>8}  {:>8}", group.parked_streams, group.parked_for_good);
    let line = format!(
        "{}  {}  {}  {}{}",
        paint_lag(group.lag, group.lag_seconds, output),
        output.paint(Part::Detail, &format!("{:>12}  {:>8}", group.last_processed_position, group.open_claims)),
        if group.parked_streams == 0 { parked } else { output.paint(Part::Changed, &parked) },
        output.paint(Part::Stream, &group.group_name),
        if group.paused { " (paused)" } else { "" },
    );
    output.line(&line)
}
