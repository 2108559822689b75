//! `annals show`: prints the events of a stream, or one event with everything that it has.

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::client::event::{Event, parse};
use crate::cli::client::failure::{Failure, Kind};
use crate::cli::client::http::Client;
use crate::cli::client::lines::read_events;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::cli::client::pretty::pretty;
use crate::cli::client::target::{Target, target};
use crate::cli::client::text::printable;
use crate::config::client::ClientArgs;
use crate::wire::path::stream_path;

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals show Order/ord-1                  all events of the stream, one a line
  annals show Order/ord-1@3                the event of version 3
  annals show 019a1b2c-7d3e-7f40-8a51-0123456789ab
  annals show 1042                         the event at position 1042 of the log";

/// The arguments of `annals show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// A stream (Order/ord-1), an event (Order/ord-1@3), an event id, or a position of the log
    #[arg(value_parser = target)]
    target: Target,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// A page of the log.
#[derive(Deserialize)]
struct Page<'t> {
    #[serde(borrow)]
    events: Vec<&'t RawValue>,
}

/// Runs `annals show`.
pub async fn run(args: ShowArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    match args.target {
        Target::Stream(stream) => {
            let path = stream_path(stream.aggregate_type(), stream.aggregate_id());
            read_events(&client, &path, |event| output.event(event)).await?;
        }
        Target::Version(stream, version) => {
            let path = format!("{}/{version}", stream_path(stream.aggregate_type(), stream.aggregate_id()));
            print_event(&client.get(&path).await?, &mut output)?;
        }
        Target::EventId(event_id) => print_event(&client.get(&format!("/events/{event_id}")).await?, &mut output)?,
        Target::Position(position) => {
            let body = client.get(&format!("/events?after={}&limit=1", position - 1)).await?;
            let page: Page<'_> = parse(&body)?;
            let event = page.events.first().map(|event| event.get());
            // An API key may be unable to read the event. Then the page has a later one.
            let found = event.filter(|event| Event::parse(event).is_ok_and(|event| event.global_position == position));
            let found = found.ok_or_else(|| {
                Failure::new(Kind::NotFound, format!("no event at position {position} exists and can be read"))
            })?;
            print_event(found.as_bytes(), &mut output)?;
        }
    }
    output.flush()
}

/// Prints an event with all its members, one a line.
fn print_event(body: &[u8], output: &mut Output) -> Result<(), Failure> {
    if output.is_json {
        return output.line(&String::from_utf8_lossy(body));
    }
    let event: Event<'_> = parse(body)?;
    let optional = |id: Option<uuid::Uuid>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    for (name, part, value) in [
        ("event_type", Part::Kind, event.event_type.clone()),
        ("stream", Part::Stream, event.place()),
        ("global_position", Part::Detail, event.global_position.to_string()),
        ("occurred_at", Part::Detail, event.occurred_at.clone()),
        ("event_id", Part::Detail, event.event_id.to_string()),
        ("correlation_id", Part::Detail, optional(event.correlation_id)),
        ("causation_id", Part::Detail, optional(event.causation_id)),
    ] {
        let line = format!("{name:<15}  {}", output.paint(part, &value));
        output.line(&line)?;
    }
    for (name, payload) in [("event_data", Some(event.event_data)), ("metadata", event.metadata)] {
        let payload = payload.map_or_else(|| "none".to_owned(), |payload| pretty(payload.get()));
        for (number, line) in payload.lines().enumerate() {
            output.line(&format!("{:<15}  {}", if number == 0 { name } else { "" }, printable(line)))?;
        }
    }
    Ok(())
}
