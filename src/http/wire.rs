//! Events as they are sent: written straight into the response's buffer, payloads as the text that PostgreSQL printed.

use std::io::Write;

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::path::stream_path_of;
use crate::domain::event::Recorded;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::StoredEvent;

/// RFC 3339 in UTC with six digits: sorts as text.
pub fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Appends the same. A page has many, and to format them one by one would take longer than to write all the rest.
fn write_time(out: &mut Vec<u8>, at: DateTime<Utc>) {
    let Ok(year @ 0..=9999) = u32::try_from(at.year()) else { return out.extend_from_slice(time(at).as_bytes()) };
    // A leap second is the last one, longer.
    let micros = at.nanosecond() / 1_000;
    if micros > 999_999 {
        return out.extend_from_slice(time(at).as_bytes());
    }
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (number, last) in
        [(year, 3), (at.month(), 6), (at.day(), 9), (at.hour(), 12), (at.minute(), 15), (at.second(), 18), (micros, 25)]
    {
        let (mut number, mut digit) = (number, last);
        while number > 0 {
            text[digit] += (number % 10) as u8;
            number /= 10;
            digit = digit.wrapping_sub(1);
        }
    }
    out.extend_from_slice(&text);
}

fn write_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
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

/// Appends one event as a CloudEvent (CloudEvents 1.0, JSON format). `metadata` has no place in it.
pub fn write_cloud_event(out: &mut Vec<u8>, event: &StoredEvent<'_>) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":\"");
    write_uuid(out, event.event_id);
    write!(out, "\",\"source\":\"{}\"", stream_path_of(event.aggregate_type, event.aggregate_id))
        .expect("writing to memory does not fail");
    out.extend_from_slice(b",\"type\":");
    write_string(out, event.event_type);
    out.extend_from_slice(b",\"subject\":");
    write_string(out, event.aggregate_id);
    // The specification has no 64-bit integers: both numbers are strings, and the first sorts as one.
    write!(
        out,
        ",\"time\":\"{}\",\"datacontenttype\":\"application/json\",\"sequence\":\"{:019}\",\"globalposition\":\"{}\"",
        time(event.occurred_at),
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
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(event.event_data.as_bytes());
    out.push(b'}');
}

/// Appends where an event stands that was written.
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

/// Appends the beginning of an object that is about a stream: `{"aggregate_type", "aggregate_id", "version"`.
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

/// An event as [`write_event`] writes it, for the OpenAPI document.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Event)]
pub struct EventSchema {
    #[schema(format = Uuid)]
    event_id: String,
    aggregate_type: String,
    aggregate_id: String,
    /// Position in its stream: 1, 2, 3 …
    version: i64,
    /// Position in the global log: 1, 2, 3 …
    global_position: i64,
    event_type: String,
    /// As JSONB keeps it: any JSON value but null.
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

/// An event as [`write_cloud_event`] writes it, for the OpenAPI document.
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
    datacontenttype: String,
    /// The version, with zeros in front: 19 digits.
    sequence: String,
    globalposition: String,
    correlationid: Option<String>,
    causationid: Option<String>,
    data: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_chrono_writes_it() {
        let times = [
            "2026-11-23T05:56:44.527251Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "2016-12-31T23:59:60.5Z",
            "+12026-01-02T03:04:05.000006Z",
            "-0001-01-02T03:04:05Z",
        ];
        for text in times {
            let at: DateTime<Utc> = text.parse().expect("a time");
            let mut out = Vec::new();
            write_time(&mut out, at);
            assert_eq!(String::from_utf8(out), Ok(time(at)), "{text}");
        }
    }
}
