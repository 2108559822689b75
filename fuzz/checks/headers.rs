//! Preconditions and content negotiation, with one header in each line: nothing panics, and an expected version is
//! parsed again as the same one.

use annals::domain::version::ExpectedVersion;
use annals::http::extract::accepts::accepted;
use annals::http::extract::conditional::{IfNoneMatch, expected_version, no_preconditions};
use annals::http::extract::json_request::require_json;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The first byte of a line selects the name of the header.
const NAMES: [HeaderName; 5] = [
    http::header::IF_MATCH,
    http::header::IF_NONE_MATCH,
    http::header::ACCEPT,
    http::header::CONTENT_TYPE,
    http::header::ETAG,
];

/// Checks an input.
pub fn check(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else { continue };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(NAMES[usize::from(*name) % NAMES.len()].clone(), value);
        }
    }
    if let Ok(ExpectedVersion::Exact(version)) = expected_version(&headers) {
        let mut again = HeaderMap::new();
        again.insert(http::header::IF_MATCH, format!("\"{version}\"").parse().expect("a header"));
        assert_eq!(expected_version(&again).ok(), Some(ExpectedVersion::Exact(version)));
    }
    let _ = no_preconditions(&headers);
    let _ = IfNoneMatch::from_headers(&headers).matches(41);
    let _ = require_json(&headers);
    let offered = ["application/json", "application/x-ndjson", "text/event-stream"];
    if let Ok(chosen) = accepted(&headers, &offered) {
        assert!(offered.contains(&chosen));
    }
}
