//! `annals tail`: prints the newest events, and new ones as they are appended.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::client::event::{Event, parse};
use crate::cli::client::failure::{Failure, Kind};
use crate::cli::client::follow::follow;
use crate::cli::client::http::Client;
use crate::cli::client::lines::read_events;
use crate::cli::client::output::{Output, OutputArgs};
use crate::clock::Clock;
use crate::config::client::ClientArgs;
use crate::config::parse::whole_number;
use crate::wire::path::link;
use crate::wire::time::format_time;

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals tail                              the newest 10 events of the log
  annals tail -f                           and then new ones, until Ctrl-C
  annals tail -n 50 --type Order           the newest 50 events of orders
  annals tail -f -n 0 --event OrderPaid --event OrderShipped
  annals tail --since 1h --json | jq .event_type";

const NUMBER_DEFAULT: usize = 10;
/// The largest number of events on a page.
const PAGE_EVENTS_MAX: usize = 1_000;

/// The arguments of `annals tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Print new events as they are appended, until interrupted
    #[arg(short, long)]
    follow: bool,

    /// Number of events to print first, 0 to 100000 [default: 10, with --since all]
    #[arg(short, long, value_name = "EVENTS", value_parser = whole_number(0..=100_000_usize))]
    number: Option<usize>,

    /// Only events of this aggregate type; may be repeated
    #[arg(long = "type", value_name = "AGGREGATE_TYPE")]
    aggregate_types: Vec<String>,

    /// Only events of this aggregate of the type; may be repeated
    #[arg(long = "id", value_name = "AGGREGATE_ID", requires = "aggregate_types")]
    aggregate_ids: Vec<String>,

    /// Only events of this event type; may be repeated
    #[arg(long = "event", value_name = "EVENT_TYPE")]
    event_types: Vec<String>,

    /// Only events that occurred within this time, like 15m, 1h or 7d, or since a time like 2026-11-23T05:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// The value of `--since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Ago(Duration),
    Time(DateTime<Utc>),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(Since::Time(time.to_utc()));
    }
    humantime::parse_duration(text)
        .map(Since::Ago)
        .map_err(|_| "must be a length of time like 15m, 1h or 7d, or a time like 2026-11-23T05:00:00Z".to_owned())
}

impl Since {
    fn resolve(self, now: DateTime<Utc>) -> Result<DateTime<Utc>, Failure> {
        match self {
            Self::Time(time) => Ok(time),
            Self::Ago(ago) => {
                let time = TimeDelta::from_std(ago).ok().and_then(|ago| now.checked_sub_signed(ago));
                time.ok_or_else(|| Failure::new(Kind::Usage, "--since is too long"))
            }
        }
    }
}

/// A page of the log, the newest events first.
#[derive(Deserialize)]
struct Page<'t> {
    #[serde(borrow)]
    events: Vec<&'t RawValue>,
    next: Option<String>,
}

/// The head of the log.
#[derive(Deserialize)]
struct Head {
    epoch: u64,
    head: u64,
}

/// Runs `annals tail`.
pub async fn run(args: TailArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    let filters = filters(&args)?;
    if args.number.is_none() && args.since.is_some() {
        if args.follow {
            match follow(&client, &filters, "0".to_owned(), &mut output).await? {}
        }
        read_events(&client, &link("/events", &filters), |event| output.event(event)).await?;
        return output.flush();
    }
    let number = args.number.unwrap_or(NUMBER_DEFAULT);
    if !args.follow {
        print_newest(&client, &filters, number, u64::MAX, &mut output).await?;
        return output.flush();
    }
    // The event stream begins at this head. An event that is appended meanwhile is in the stream, so it is not printed
    // before.
    let Head { epoch, head } = parse(&client.get("/events?after=head").await?)?;
    print_newest(&client, &filters, number, head, &mut output).await?;
    match follow(&client, &filters, format!("{epoch}:{head}"), &mut output).await? {}
}

/// Returns the query parameters of the filters.
fn filters(args: &TailArgs) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut filters = Vec::new();
    for (name, values) in [
        ("aggregate_type", &args.aggregate_types),
        ("aggregate_id", &args.aggregate_ids),
        ("event_type", &args.event_types),
    ] {
        filters.extend(values.iter().map(|value| (name, value.clone())));
    }
    if let Some(since) = args.since {
        filters.push(("occurred_from", format_time(since.resolve(Clock::system().now())?)));
    }
    Ok(filters)
}

/// Prints the newest events up to a position, the oldest of them first.
async fn print_newest(
    client: &Client,
    filters: &[(&str, String)],
    number: usize,
    up_to: u64,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut parameters = filters.to_vec();
    parameters.push(("direction", "backward".to_owned()));
    parameters.push(("limit", number.clamp(1, PAGE_EVENTS_MAX).to_string()));
    let mut next = (number > 0).then(|| link("/events", &parameters));
    let mut newest: Vec<String> = Vec::new();
    while let Some(path) = next.take() {
        let body = client.get(&path).await?;
        let page: Page<'_> = parse(&body)?;
        for event in page.events {
            if newest.len() < number && Event::parse(event.get())?.global_position <= up_to {
                newest.push(event.get().to_owned());
            }
        }
        next = page.next.filter(|_| newest.len() < number);
    }
    newest.iter().rev().try_for_each(|event| output.event(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_length_of_time_or_a_time() {
        let now = DateTime::from_timestamp(1_000_000, 0).expect("a time");
        let from = |text: &str| since(text).map(|since| since.resolve(now).expect("a time"));
        assert_eq!(from("1h"), Ok(now - TimeDelta::hours(1)));
        assert_eq!(from("1970-01-02T01:00:00+01:00"), Ok(DateTime::from_timestamp(86_400, 0).expect("a time")));
        assert!(from("yesterday").is_err());
        assert!(Since::Ago(Duration::from_secs(u64::MAX)).resolve(now).is_err());
    }
}
