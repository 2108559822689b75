//! Headers for caches: `ETag` and `Cache-Control`.

use axum::http::HeaderValue;

/// For responses that change: a cache may store them, and must validate them before each use.
pub const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// For responses that no cache may store.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// For single events. An event never changes, but an operator may erase it: a cache may use it for a day, and only for
/// the client that was allowed to read it.
pub const SINGLE_EVENT: HeaderValue = HeaderValue::from_static("private, max-age=86400, immutable");

/// Formats a version or a position as an entity tag: `"43"`.
pub fn etag(number: impl Into<i64>) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", number.into())).expect("digits in quotes are a header value")
}
