//! `annals projections`: lists the projections, and how far they are behind the log.

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::client::event::parse;
use crate::cli::client::failure::Failure;
use crate::cli::client::http::Client;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::cli::client::watch::watch;
use crate::config::client::ClientArgs;

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals projections                       lag, seconds behind, position, time and name of each projection
  annals projections --watch               again every 2 seconds, until Ctrl-C
  annals projections --json | jq 'select(.lag > 1000)'";

/// The arguments of `annals projections`.
#[derive(Debug, Args)]
pub struct ProjectionsArgs {
    /// Print the list again every 2 seconds, until interrupted
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// The list of projections.
#[derive(Deserialize)]
struct List<'t> {
    #[serde(borrow)]
    projections: Vec<&'t RawValue>,
}

#[derive(Deserialize)]
struct Projection {
    projection_name: String,
    last_processed_position: i64,
    last_processed_at: String,
    lag: i64,
    lag_seconds: f64,
}

/// Runs `annals projections`.
pub async fn run(args: ProjectionsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    watch(&client, "/projections", args.watch, &mut output, print).await
}

fn print(pages: &[Bytes], output: &mut Output) -> Result<(), Failure> {
    let [body] = pages else { return Ok(()) };
    let list: List<'_> = parse(body)?;
    if output.is_json {
        return list.projections.iter().try_for_each(|projection| output.line(projection.get()));
    }
    output
        .line(&format!("{:>12}  {:>12}  {:>12}  {:<27}  PROJECTION", "LAG", "SECONDS", "POSITION", "PROCESSED AT"))?;
    for projection in list.projections {
        let projection: Projection = parse(projection.get().as_bytes())?;
        let lag = format!("{:>12}  {:>12.1}", projection.lag, projection.lag_seconds);
        let line = format!(
            "{}  {}  {}",
            if projection.lag == 0 { lag } else { output.paint(Part::Changed, &lag) },
            output.paint(
                Part::Detail,
                &format!("{:>12}  {:<27}", projection.last_processed_position, projection.last_processed_at)
            ),
            output.paint(Part::Stream, &projection.projection_name),
        );
        output.line(&line)?;
    }
    Ok(())
}
