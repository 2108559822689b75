//! The response to an append: the places of the events.

use std::io::Write;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use crate::domain::append::Append;
use crate::domain::cursor::Epoch;
use crate::domain::event::Recorded;
use crate::domain::version::Version;
use crate::http::media_type::JSON;
use crate::http::problem::error::ApiError;
use crate::wire::event::{write_recorded, write_stream_head};

/// The result of an append to one stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_appended's output, for the OpenAPI document")]
#[schema(as = AppendResult)]
pub struct Appended {
    aggregate_type: String,
    aggregate_id: String,
    /// Version of the last event of this append.
    version: Version,
    first_version: Version,
    /// Position of the last event of this append.
    global_position: i64,
    /// The epoch of the log, in which the position identifies the event.
    epoch: Epoch,
    /// This append crossed a multiple of the snapshot interval, and only the client can make the snapshot.
    snapshot_due: bool,
    events: Vec<RecordedOut>,
}

/// The place of an event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the shape of write_recorded's output, for the OpenAPI document")]
#[schema(as = RecordedEvent)]
pub struct RecordedOut {
    #[schema(format = Uuid)]
    event_id: String,
    version: Version,
    global_position: i64,
    #[schema(format = DateTime)]
    occurred_at: String,
}

/// How the events of a request were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Now,
    /// By an earlier request with the same event ids: this one was a replay.
    Before,
}

/// Writes the result of one append.
pub fn write_appended(out: &mut Vec<u8>, append: &Append, epoch: Epoch, recorded: &[Recorded], snapshot_due: bool) {
    let (Some(first), Some(last)) = (recorded.first(), recorded.last()) else { return };
    write_stream_head(out, &append.stream, last.version);
    write!(
        out,
        ",\"first_version\":{},\"global_position\":{},\"epoch\":{epoch},\"snapshot_due\":{snapshot_due},\"events\":[",
        first.version, last.global_position
    )
    .expect("writing to memory does not fail");
    for (n, event) in recorded.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write_recorded(out, event);
    }
    out.extend_from_slice(b"]}");
}

/// Returns the response with this body: 201, or 200 for a replay.
pub fn append_response(written: Written, body: Vec<u8>) -> Response {
    let status = match written {
        Written::Now => StatusCode::CREATED,
        Written::Before => StatusCode::OK,
    };
    let mut response = (status, Body::from(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    if written == Written::Before {
        let name = HeaderName::from_static("idempotent-replayed");
        response.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    response
}

/// The store returned fewer results than the request has appends: a defect.
pub fn incomplete_result() -> ApiError {
    ApiError::internal("the store returned fewer results than the request has appends")
}
