//! JSON bodies: read up to the limit, parsed with payloads left as raw text, faults pointed at.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::Deserialize;
use serde_path_to_error::Segment;

use crate::app::Settings;

use super::negotiate::require_json_body;
use super::problem::{Code, FieldError, Problem};

type Fallible<T> = Result<T, Box<Problem>>;

/// Reads a body that says it is JSON, and comes in time.
pub async fn read_json(headers: &HeaderMap, body: Body, settings: &Settings) -> Fallible<String> {
    require_json_body(headers)?;
    let bytes_max = settings.max_body_bytes;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let collected = tokio::time::timeout(settings.clients.body, Limited::new(body, bytes_max).collect()).await;
    let collected = collected.map_err(|_| {
        let seconds = settings.clients.body.as_secs();
        Problem::invalid(FieldError::pointer("", format!("the body did not arrive within {seconds} s")))
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    })?;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large(bytes_max)
        } else {
            Problem::invalid(FieldError::pointer("", "the body broke off before its end"))
        }
    })?;
    String::from_utf8(collected.to_bytes().into()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Problem::invalid(FieldError::pointer("", format!("the body is not UTF-8, from byte {at} on")))
    })
}

/// Parses a body; a fault is told with a pointer to where it is.
pub fn parse<'b, T: Deserialize<'b>>(body: &'b str) -> Fallible<T> {
    // The path to a fault costs something on every member: it is looked for only when there is a fault.
    serde_json::from_str(body).map_err(|first| {
        let mut deserializer = serde_json::Deserializer::from_str(body);
        match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Ok(_) => Problem::invalid(FieldError::pointer("", first.to_string())),
            Err(error) => {
                let pointer = pointer(error.path());
                Problem::invalid(FieldError::pointer(pointer, error.into_inner().to_string()))
            }
        }
    })
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn too_large(bytes_max: usize) -> Box<Problem> {
    Problem::new(Code::PayloadTooLarge, format!("the body is larger than {bytes_max} bytes"))
        .with("max_bytes", &bytes_max)
}
