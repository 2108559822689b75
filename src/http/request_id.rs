//! The id of a request.

use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

/// The name of the header.
pub const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_CHARS_MAX: usize = 128;

/// The id of a request: the one that the client sent, or a new one.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the client's id if it has 1 to 128 visible ASCII characters, otherwise the id that `new_id` generates.
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

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("it consists of visible ASCII characters")
    }

    /// Returns the id as the value of the header.
    pub fn into_header(self) -> HeaderValue {
        self.0
    }
}
