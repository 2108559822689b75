//! Lists that a command prints once, or again and again.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use tokio::time::sleep;

use crate::cli::client::event::parse;
use crate::cli::client::failure::{Failure, notice};
use crate::cli::client::http::Client;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::cli::client::problem::CallError;
use crate::config::client::ClientArgs;

const INTERVAL: Duration = Duration::from_secs(2);

/// The arguments of a command that prints a list.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Print the list again every 2 seconds, until interrupted
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// The link of a page. A list that has no pages has none.
#[derive(Deserialize)]
struct Page {
    next: Option<String>,
}

/// Reads a list, and prints it. With `--watch`, prints it again every two seconds until the process is interrupted.
pub async fn watch(
    args: WatchArgs,
    path: &str,
    print: impl Fn(&[Bytes], &mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    let mut was_listed = false;
    loop {
        match read_pages(&client, path).await? {
            Ok(pages) => {
                if args.watch && !output.is_json {
                    output.clear()?;
                }
                print(&pages, &mut output)?;
                output.flush()?;
                was_listed = true;
            }
            // A person who watches continues to watch when the service is back.
            Err(error) if was_listed && error.is_temporary() => notice(&error.message()),
            Err(error) => return Err(error.into()),
        }
        if !args.watch {
            return Ok(());
        }
        sleep(INTERVAL).await;
    }
}

/// Returns the columns of the lag in positions and in seconds, painted if the reader is behind.
pub fn paint_lag(positions: i64, seconds: f64, output: &Output) -> String {
    let lag = format!("{positions:>12}  {seconds:>12.1}");
    if positions == 0 { lag } else { output.paint(Part::Changed, &lag) }
}

async fn read_pages(client: &Client, path: &str) -> Result<Result<Vec<Bytes>, CallError>, Failure> {
    let mut pages = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        match client.get(&path).await {
            Ok(body) => {
                next = parse::<Page>(&body)?.next;
                pages.push(body);
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(pages))
}
