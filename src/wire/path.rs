//! Paths and links in responses. Names are percent-encoded.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that are percent-encoded in a segment: all but those that RFC 3986 allows there.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Formats a name as a segment of a path.
pub fn segment(name: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(name, SEGMENT)
}

/// Formats `/streams/<type>/<id>`.
pub fn stream_path(aggregate_type: &str, aggregate_id: &str) -> String {
    format!("/streams/{}/{}", segment(aggregate_type), segment(aggregate_id))
}

/// The characters that are percent-encoded in a query: all but those that RFC 3986 allows there, and the separators of
/// parameters (`&`, `=`, `+`).
const QUERY: &AsciiSet = &SEGMENT.remove(b'/').remove(b'?').add(b'&').add(b'=').add(b'+');

/// Formats a link with parameters.
pub fn link(path: &str, parameters: &[(&str, String)]) -> String {
    let mut link = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        write!(link, "{separator}{name}={}", utf8_percent_encode(value, QUERY))
            .expect("writing to a string does not fail");
        separator = '&';
    }
    link
}
