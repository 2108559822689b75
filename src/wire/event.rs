//! The JSON of events in responses. It is written directly into the buffer of the response. Payloads are the text that
//! PostgreSQL printed.

use std::io::Write;

use serde::Serialize;
use uuid::Uuid;

use crate::domain::event::{Recorded, StoredEvent};
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::wire::path::stream_path;
use crate::wire::time::{format_time, write_time};

/// Appends a number in decimal digits.
pub fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends one event as a JSON object.
pub fn write_event(out: &mut Vec<u8>, event: &StoredEvent<'_>) {
    out.extend_from_slice(b"{\"event_id\":\"");
    write_uuid(out, event.event_id);
    out.extend_from_slice(b"\",\"aggregate_type\":");
    write_string(out, event.aggregate_type);
    out.extend_from_slice(b",\"aggregate_id\":");
    write_string(out, event.aggregate_id);
    out.extend_from_slice(b",\"version\":");
    write_number(out, event.version);
    out.extend_from_slice(b",\"global_position\":");
    write_number(out, event.global_position);
    out.extend_from_slice(b",\"event_type\":");
    write_string(out, event.event_type);
    out.extend_from_slice(b",\"event_data\":");
    out.extend_from_slice(event.event_data.as_bytes());
    out.extend_from_slice(b",\"metadata\":");
    out.extend_from_slice(event.metadata.unwrap_or("null").as_bytes());
    out.extend_from_slice(b",\"occurred_at\":\"");
    write_time(out, event.occurred_at);
    out.push(b'"');
    write_optional_uuid(out, b",\"correlation_id\":", event.correlation_id);
    write_optional_uuid(out, b",\"causation_id\":", event.causation_id);
    out.push(b'}');
}

/// Appends one event as a CloudEvent (CloudEvents 1.0, JSON format), which cannot contain `metadata`.
pub fn write_cloud_event(out: &mut Vec<u8>, event: &StoredEvent<'_>) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":\"");
    write_uuid(out, event.event_id);
    write!(out, "\",\"source\":\"{}\"", stream_path(event.aggregate_type, event.aggregate_id))
        .expect("writing to memory does not fail");
    out.extend_from_slice(b",\"type\":");
    write_string(out, event.event_type);
    out.extend_from_slice(b",\"subject\":");
    write_string(out, event.aggregate_id);
    // CloudEvents has no 64-bit integers, so both numbers are strings. `sequence` has leading zeros to sort as text.
    write!(
        out,
        ",\"time\":\"{}\",\"sequence\":\"{:019}\",\"globalposition\":\"{}\"",
        format_time(event.occurred_at),
        event.version,
        event.global_position
    )
    .expect("writing to memory does not fail");
    for (name, id) in [(&b",\"correlationid\":"[..], event.correlation_id), (b",\"causationid\":", event.causation_id)]
    {
        // An attribute is absent, never null.
        if id.is_some() {
            write_optional_uuid(out, name, id);
        }
    }
    // An erased event has no data.
    if !event.is_erased() {
        out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
        out.extend_from_slice(event.event_data.as_bytes());
    }
    out.push(b'}');
}

/// Appends the id, version, position and time of an event that was written.
pub fn write_recorded(out: &mut Vec<u8>, event: &Recorded) {
    out.extend_from_slice(b"{\"event_id\":\"");
    write_uuid(out, event.event_id);
    out.extend_from_slice(b"\",\"version\":");
    write_number(out, event.version);
    out.extend_from_slice(b",\"global_position\":");
    write_number(out, event.global_position);
    out.extend_from_slice(b",\"occurred_at\":\"");
    write_time(out, event.occurred_at);
    out.extend_from_slice(b"\"}");
}

/// Appends the first members of an object about a stream: `{"aggregate_type", "aggregate_id", "version"`.
pub fn write_stream_head(out: &mut Vec<u8>, stream: &StreamId, version: Version) {
    out.extend_from_slice(b"{\"aggregate_type\":");
    write_string(out, stream.aggregate_type());
    out.extend_from_slice(b",\"aggregate_id\":");
    write_string(out, stream.aggregate_id());
    write!(out, ",\"version\":{version}").expect("writing to memory does not fail");
}

/// Appends a JSON string, escaped.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON");
}

fn write_optional_uuid(out: &mut Vec<u8>, name: &[u8], id: Option<Uuid>) {
    out.extend_from_slice(name);
    match id {
        None => out.extend_from_slice(b"null"),
        Some(id) => {
            out.push(b'"');
            write_uuid(out, id);
            out.push(b'"');
        }
    }
}

fn write_uuid(out: &mut Vec<u8>, id: Uuid) {
    let mut buffer = Uuid::encode_buffer();
    out.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
}

/// An event, as every read returns it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Event)]
pub struct EventSchema {
    #[schema(format = Uuid)]
    event_id: String,
    aggregate_type: String,
    aggregate_id: String,
    /// The version in its stream: 1, 2, 3 …
    version: i64,
    /// Position in the global log: 1, 2, 3 …
    global_position: i64,
    event_type: String,
    /// As JSONB stores it: any JSON value; null if the content of the event is erased.
    event_data: serde_json::Value,
    #[schema(value_type = Option<Object>)]
    metadata: Option<String>,
    /// RFC 3339, UTC, six digits.
    #[schema(format = DateTime)]
    occurred_at: String,
    #[schema(format = Uuid)]
    correlation_id: Option<String>,
    #[schema(format = Uuid)]
    causation_id: Option<String>,
}

/// An event as a CloudEvent (CloudEvents 1.0), without its metadata.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = CloudEvent)]
pub struct CloudEventSchema {
    specversion: String,
    /// The event's id.
    id: String,
    /// `/streams/{aggregate_type}/{aggregate_id}`
    source: String,
    #[serde(rename = "type")]
    kind: String,
    /// The aggregate's id.
    subject: String,
    #[schema(format = DateTime)]
    time: String,
    /// `application/json`; absent if the content of the event is erased.
    datacontenttype: Option<String>,
    /// The version with leading zeros, 19 digits.
    sequence: String,
    globalposition: String,
    correlationid: Option<String>,
    causationid: Option<String>,
    /// Absent if the content of the event is erased.
    data: Option<serde_json::Value>,
}
