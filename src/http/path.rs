//! Names in paths, both ways: decoded once and checked, and encoded for links.

use std::convert::Infallible;
use std::fmt::Write;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::problem::{FieldError, Problem};
use crate::domain::name::{StreamId, check_path_name};

/// Everything but what RFC 3986 lets stand in a segment unescaped.
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

/// The segments of the path that a route names, percent-decoded once; `None` if they are not UTF-8.
///
/// A fault is told by whoever asks for a segment: other faults of a request have precedence.
pub struct PathParams(Option<RawPathParams>);

impl PathParams {
    /// A segment as it was sent.
    pub fn get(&self, name: &str) -> Result<&str, Box<Problem>> {
        let not_utf8 = || Problem::invalid(FieldError::path("path", "is not UTF-8 when percent-decoded"));
        let found = self.0.as_ref().ok_or_else(not_utf8)?.iter().find(|(given, _)| *given == name);
        Ok(found.map(|(_, value)| value).expect("the route has a segment of this name"))
    }

    /// The stream that `{aggregate_type}/{aggregate_id}` names.
    pub fn stream(&self) -> Result<StreamId, Box<Problem>> {
        StreamId::parse(self.get("aggregate_type")?.to_owned(), self.get("aggregate_id")?.to_owned())
            .map_err(|fault| Problem::invalid(FieldError::path(fault.field, fault.fault.to_string())))
    }

    /// A segment that is a name.
    pub fn name(&self, segment: &'static str) -> Result<&str, Box<Problem>> {
        let name = self.get(segment)?;
        check_path_name(name).map_err(|fault| Problem::invalid(FieldError::path(segment, fault.to_string())))?;
        Ok(name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(RawPathParams::from_request_parts(parts, state).await.ok()))
    }
}

/// A name as a segment of a path.
pub fn segment(name: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(name, SEGMENT)
}

/// `/streams/<type>/<id>`
pub fn stream_path(stream: &StreamId) -> String {
    stream_path_of(stream.aggregate_type(), stream.aggregate_id())
}

/// The same of names that were checked.
pub fn stream_path_of(aggregate_type: &str, aggregate_id: &str) -> String {
    format!("/streams/{}/{}", segment(aggregate_type), segment(aggregate_id))
}

/// What RFC 3986 lets stand in a query unescaped, less what parts parameters (`&`, `=`, `+`).
const QUERY: &AsciiSet = &SEGMENT.remove(b'/').remove(b'?').add(b'&').add(b'=').add(b'+');

/// A link with parameters.
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
