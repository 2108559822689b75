//! Lists that a command prints once, or again and again.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::sleep;

use crate::cli::client::event::parse;
use crate::cli::client::failure::{Failure, notice};
use crate::cli::client::http::Client;
use crate::cli::client::output::Output;
use crate::cli::client::problem::CallError;

const INTERVAL: Duration = Duration::from_secs(2);

/// The link of a page. A list that has no pages has none.
#[derive(Deserialize)]
struct Page {
    next: Option<String>,
}

/// Reads a list, and prints it. With `is_repeated`, prints it again every two seconds until the process is interrupted.
pub async fn watch(
    client: &Client,
    path: &str,
    is_repeated: bool,
    output: &mut Output,
    print: impl Fn(&[Bytes], &mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut was_listed = false;
    loop {
        match read_pages(client, path).await? {
            Ok(pages) => {
                if is_repeated && !output.is_json {
                    output.clear()?;
                }
                print(&pages, output)?;
                output.flush()?;
                was_listed = true;
            }
            // A person who watches continues to watch when the service is back.
            Err(error) if was_listed && error.is_temporary() => notice(&error.message()),
            Err(error) => return Err(error.into()),
        }
        if !is_repeated {
            return Ok(());
        }
        sleep(INTERVAL).await;
    }
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
