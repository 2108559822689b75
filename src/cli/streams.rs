//! `annals streams`: lists the streams of a type.

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::client::event::parse;
use crate::cli::client::failure::Failure;
use crate::cli::client::http::Client;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::config::client::ClientArgs;
use crate::wire::path::{link, segment};

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals streams Order                     version, time of the last event, and id of every order
  annals streams Order ord-2026-           those whose id begins with ord-2026-
  annals streams Order --json | jq -r .aggregate_id";

/// The arguments of `annals streams`.
#[derive(Debug, Args)]
pub struct StreamsArgs {
    /// Aggregate type, like Order
    aggregate_type: String,

    /// Only streams whose aggregate id begins with this text
    prefix: Option<String>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// A page of streams.
#[derive(Deserialize)]
struct Page<'t> {
    #[serde(borrow)]
    streams: Vec<&'t RawValue>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    aggregate_id: String,
    version: u64,
    last_occurred_at: String,
}

/// Runs `annals streams`.
pub async fn run(args: StreamsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    let mut parameters = vec![("limit", "1000".to_owned())];
    parameters.extend(args.prefix.map(|prefix| ("prefix", prefix)));
    let mut next = Some(link(&format!("/streams/{}", segment(&args.aggregate_type)), &parameters));
    while let Some(path) = next.take() {
        let body = client.get(&path).await?;
        let page: Page<'_> = parse(&body)?;
        for stream in page.streams {
            print(stream.get(), &mut output)?;
        }
        output.flush()?;
        next = page.next;
    }
    Ok(())
}

fn print(stream: &str, output: &mut Output) -> Result<(), Failure> {
    if output.is_json {
        return output.line(stream);
    }
    let stream: Stream = parse(stream.as_bytes())?;
    let line = format!(
        "{}  {}  {}",
        output.paint(Part::Detail, &format!("{:>8}", stream.version)),
        output.paint(Part::Detail, &stream.last_occurred_at),
        output.paint(Part::Stream, &stream.aggregate_id),
    );
    output.line(&line)
}
