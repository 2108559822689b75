//! `annals append`: appends one event. The command makes its id, so that it can retry safely.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::app::event_id_at;
use crate::cli::client::backoff::Backoff;
use crate::cli::client::event::parse;
use crate::cli::client::failure::{Failure, Kind, notice};
use crate::cli::client::http::Client;
use crate::cli::client::output::{Output, OutputArgs, Part};
use crate::cli::client::target::stream;
use crate::clock::Clock;
use crate::config::client::ClientArgs;
use crate::config::parse::duration;
use crate::domain::name::StreamId;
use crate::wire::json_error::describe;
use crate::wire::path::stream_path;

/// The text after the flags in the help.
pub const EXAMPLES: &str = "\
Examples:
  annals append Order/ord-1 OrderPlaced '{\"total\": 42}' --expect none
  annals append Order/ord-1 OrderPaid '{\"by\": \"card\"}' --expect 1
  jq -n '{by: \"card\"}' | annals append Order/ord-1 OrderPaid -";

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const CAUSATION_ID: HeaderName = HeaderName::from_static("x-causation-id");

/// The arguments of `annals append`.
#[derive(Debug, Args)]
pub struct AppendArgs {
    /// Stream, like Order/ord-1
    #[arg(value_parser = stream)]
    stream: StreamId,

    /// Event type, like OrderPaid
    event_type: String,

    /// Payload as JSON, any value but null; - reads it from standard input
    #[arg(allow_negative_numbers = true)]
    event_data: String,

    /// What the stream must be before the append: its version, none (it does not exist) or exists [default: anything]
    #[arg(long, value_name = "VERSION", value_parser = expect)]
    expect: Option<Expect>,

    /// Metadata, a JSON object
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,

    /// Correlation id: a UUID, or a text from which the service derives one
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,

    /// Causation id: the id of the event that caused this one
    #[arg(long, value_name = "ID")]
    causation_id: Option<String>,

    /// Event id, to repeat an append whose outcome is unknown [default: a new UUIDv7]
    #[arg(long, value_name = "UUID")]
    event_id: Option<Uuid>,

    /// How long to retry while the service is unavailable
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    patience: Duration,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// The value of `--expect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Version(u64),
    None,
    Exists,
}

fn expect(text: &str) -> Result<Expect, String> {
    match text {
        "none" => Ok(Expect::None),
        "exists" => Ok(Expect::Exists),
        version if version.bytes().all(|byte| byte.is_ascii_digit()) => {
            version.parse().map(Expect::Version).map_err(|_| "must be a version, none or exists".to_owned())
        }
        _ => Err("must be a version, none or exists".to_owned()),
    }
}

/// The body of the request.
#[derive(Serialize)]
struct Body<'a> {
    events: [NewEvent<'a>; 1],
}

#[derive(Serialize)]
struct NewEvent<'a> {
    event_id: Uuid,
    event_type: &'a str,
    event_data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

/// The response.
#[derive(Deserialize)]
struct Appended {
    version: u64,
    global_position: u64,
}

/// Runs `annals append`.
pub async fn run(args: AppendArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut output = Output::new(args.output);
    let event_id = args.event_id.unwrap_or_else(|| event_id_at(Clock::system().now()));
    let headers = headers(&args)?;
    let body = body(&args, event_id)?;
    let path = stream_path(args.stream.aggregate_type(), args.stream.aggregate_id());

    // A patience of thousands of years has no end.
    let deadline = Instant::now().checked_add(args.patience);
    let mut backoff = Backoff::new();
    let mut has_failed = false;
    let (status, response) = loop {
        let error = match client.post(&path, headers.clone(), body.clone()).await {
            Ok(appended) => break appended,
            Err(error) if !error.is_temporary() => return Err(error.into()),
            Err(error) => error,
        };
        let pause = backoff.next_pause(error.retry_after());
        if deadline.is_some_and(|deadline| Instant::now() + pause > deadline) {
            // The service may have written the event, and only the response was lost.
            let remedy = format!("To repeat the append safely, use --event-id {event_id}");
            return Err(Failure::new(Kind::Unavailable, format!("{}. {remedy}", error.message())));
        }
        if !has_failed {
            has_failed = true;
            notice(&format!("{}; retrying", error.message()));
        }
        sleep(pause).await;
    };

    if output.is_json {
        output.line(&String::from_utf8_lossy(&response))?;
    } else {
        let appended: Appended = parse(&response)?;
        let line = format!(
            "{}  {}  {}  {event_id}{}",
            output.paint(Part::Detail, &appended.global_position.to_string()),
            output.paint(Part::Stream, &format!("{}@{}", args.stream, appended.version)),
            output.paint(Part::Kind, &args.event_type),
            if status.as_u16() == 200 { "  (it was appended before)" } else { "" },
        );
        output.line(&line)?;
    }
    output.flush()
}

/// Returns the headers of the request: the precondition and the ids.
fn headers(args: &AppendArgs) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    match args.expect {
        None => {}
        Some(Expect::None) => drop(headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"))),
        Some(Expect::Exists) => drop(headers.insert(IF_MATCH, HeaderValue::from_static("*"))),
        Some(Expect::Version(version)) => {
            let tag = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits and quotes are visible");
            headers.insert(IF_MATCH, tag);
        }
    }
    for (flag, header, id) in [
        ("--correlation-id", CORRELATION_ID, &args.correlation_id),
        ("--causation-id", CAUSATION_ID, &args.causation_id),
    ] {
        if let Some(id) = id {
            let id = HeaderValue::from_str(id)
                .map_err(|_| Failure::new(Kind::Usage, format!("{flag} must not contain control characters")))?;
            headers.insert(header, id);
        }
    }
    Ok(headers)
}

/// Returns the body of the request. Its payloads are the text of the command line, so that numbers keep their digits.
fn body(args: &AppendArgs, event_id: Uuid) -> Result<String, Failure> {
    let mut input = String::new();
    let event_data = if args.event_data == "-" {
        std::io::stdin()
            .read_to_string(&mut input)
            .map_err(|error| Failure::new(Kind::Usage, format!("standard input: {error}")))?;
        &input
    } else {
        &args.event_data
    };
    let event_data = json("the payload", event_data)?;
    let metadata = args.metadata.as_deref().map(|metadata| json("--metadata", metadata)).transpose()?;
    let event = NewEvent { event_id, event_type: &args.event_type, event_data, metadata };
    Ok(serde_json::to_string(&Body { events: [event] }).expect("strings and JSON are JSON"))
}

fn json<'t>(name: &str, text: &'t str) -> Result<&'t RawValue, Failure> {
    serde_json::from_str(text).map_err(|error| {
        let hint = if text.starts_with(['{', '[', '"']) { "" } else { ". A text needs quotes: '\"text\"'" };
        Failure::new(Kind::Usage, format!("{name} {}{hint}", describe(&error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_version_is_digits_or_a_word() {
        assert_eq!(expect("3"), Ok(Expect::Version(3)));
        assert_eq!(expect("0"), Ok(Expect::Version(0)));
        assert_eq!([expect("none"), expect("exists")], [Ok(Expect::None), Ok(Expect::Exists)]);
        for text in ["", "-1", "+1", "any", "99999999999999999999"] {
            assert!(expect(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_payload_that_is_not_json_gets_a_hint() {
        let Err(Failure::Failed(Kind::Usage, message)) = json("the payload", "paid") else { panic!("a failure") };
        assert!(message.starts_with("the payload is not valid JSON") && message.contains("needs quotes"), "{message}");
        assert_eq!(json("the payload", "12345678901234567890.50").expect("JSON").get(), "12345678901234567890.50");
    }
}
