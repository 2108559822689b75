//! New events of the log as they are appended: an event stream that resumes at its cursor.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::cli::client::backoff::Backoff;
use crate::cli::client::failure::{Failure, notice};
use crate::cli::client::http::{Client, EVENT_STREAM};
use crate::cli::client::lines::Lines;
use crate::cli::client::output::Output;
use crate::cli::client::problem::CallError;
use crate::wire::path::link;

/// Where an event stream continues, and when.
struct Resume {
    /// The id of the last event or heartbeat.
    cursor: String,
    /// The shortest pause before the next connection, which the service sends as `retry`.
    retry: Option<Duration>,
    backoff: Backoff,
}

/// Writes the events after a cursor that match the filters, and then new ones, until the process is interrupted. A lost
/// connection is replaced. A failure of the first connection is returned, because then a setting may be wrong.
pub async fn follow(
    client: &Client,
    filters: &[(&str, String)],
    after: String,
    output: &mut Output,
) -> Result<Infallible, Failure> {
    let mut resume = Resume { cursor: after, retry: None, backoff: Backoff::new() };
    let (mut was_connected, mut is_lost) = (false, false);
    loop {
        let mut parameters = filters.to_vec();
        parameters.push(("after", resume.cursor.clone()));
        let ended = match Lines::open(client, &link("/events", &parameters), EVENT_STREAM).await {
            Ok(lines) => {
                if is_lost {
                    notice("connected again");
                }
                (was_connected, is_lost) = (true, false);
                read(lines, &mut resume, output).await?
            }
            Err(error) => error,
        };
        let pause = resume.backoff.next_pause(ended.retry_after().or(resume.retry));
        if let Some(position) = ended.rewind_to() {
            notice(&format!("the log has lost events after position {position}, and continues there in a new epoch"));
            resume.cursor = position.to_string();
        } else if !was_connected || !ended.is_temporary() {
            return Err(ended.into());
        } else if !is_lost {
            is_lost = true;
            notice(&format!("{}; reconnecting", ended.message()));
        }
        sleep(pause).await;
    }
}

/// Writes the events of one connection. Returns why the connection ended.
async fn read(mut lines: Lines<'_>, resume: &mut Resume, output: &mut Output) -> Result<CallError, Failure> {
    // The fields of the current frame.
    let (mut name, mut id, mut data) = (String::new(), String::new(), String::new());
    loop {
        if lines.is_drained() {
            output.flush()?;
        }
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(CallError::Unreachable("the service ended the event stream".to_owned())),
            Err(error) => return Ok(error),
        };
        if line.is_empty() {
            // Frames with a name are `caught-up` and heartbeats, which only move the cursor.
            if name.is_empty() && !data.is_empty() {
                output.event(&data)?;
            }
            if !id.is_empty() {
                resume.cursor.clone_from(&id);
                resume.backoff = Backoff::new();
            }
            for field in [&mut name, &mut id, &mut data] {
                field.clear();
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "id" => value.clone_into(&mut id),
            "data" => value.clone_into(&mut data),
            "retry" => resume.retry = value.parse().ok().map(Duration::from_millis),
            // A comment, or a field of a later version.
            _ => {}
        }
    }
}
