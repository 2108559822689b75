//! `Last-Event-ID`: the id of the last event that an event stream has sent to the client.
//!
//! A browser sends the header when it reconnects. Scripts that replace its event source cannot set headers everywhere,
//! and send the query parameter `lastEventId` instead.

use axum::http::HeaderMap;

use crate::http::extract::headers::single_text;
use crate::http::extract::query::Query;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

const HEADER: &str = "Last-Event-ID";
const PARAMETER: &str = "lastEventId";

/// The id, and the part of the request that has it.
pub struct LastEventId {
    /// The id, which is not empty.
    pub text: String,
    field: fn(&str) -> FieldError,
}

impl LastEventId {
    /// Returns the error for an id that is not understood.
    pub fn invalid(&self, detail: &str) -> ApiError {
        ApiError::invalid((self.field)(detail))
    }
}

/// Returns the id of the header or, without the header, of the parameter. An empty one counts as absent: the client has
/// not received an event yet.
pub fn take_last_event_id(headers: &HeaderMap, query: &mut Query) -> ApiResult<Option<LastEventId>> {
    let header = single_text(headers, HEADER)?.unwrap_or_default();
    let parameter = query.take_optional(PARAMETER)?.unwrap_or_default();
    Ok(if !header.is_empty() {
        Some(LastEventId { text: header.to_owned(), field: |detail| FieldError::header(HEADER, detail) })
    } else if !parameter.is_empty() {
        Some(LastEventId { text: parameter, field: |detail| FieldError::parameter(PARAMETER, detail) })
    } else {
        None
    })
}
