//! The id of a request.

use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

pub const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_CHARS_MAX: usize = 128;

/// The id that the client sent, or a new one.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the client's id if it can be logged and returned, otherwise the one that `new_id` makes.
    pub fn from_headers(headers: &HeaderMap, new_id: impl FnOnce() -> Uuid) -> Self {
        let is_valid = |id: &&HeaderValue| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let new = || {
            let mut buffer = Uuid::encode_buffer();
            HeaderValue::from_str(new_id().hyphenated().encode_lower(&mut buffer)).expect("a UUID is a header value")
        };
        Self(headers.get(REQUEST_ID).filter(is_valid).cloned().unwrap_or_else(new))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("it consists of visible ASCII characters")
    }

    pub fn into_header(self) -> HeaderValue {
        self.0
    }
}
