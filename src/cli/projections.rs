//! `annals projections`: lists the projections, and how far they are behind the log.

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
  annals projections                       lag, seconds behind, position, time and name of each projection
  annals projections --watch               again every 2 seconds, until Ctrl-C
  annals projections --json | jq 'select(.lag > 1000)'";

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
pub async fn run(args: WatchArgs) -> Result<(), Failure> {
    watch(args, "/projections", print).await
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
        let line = format!(
            "{}  {}  {}",
            paint_lag(projection.lag, projection.lag_seconds, output),
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
