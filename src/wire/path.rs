//! Paths and links in responses. Names are percent-encoded.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

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

/// The path below which clients see the service: empty, or like `/stores/shop`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BasePath(Arc<str>);

/// The first segments of all routes. A request below such a base path would be taken for another one.
const ROUTES: [&str; 19] = [
    "aggregates",
    "appends",
    "assets",
    "console",
    "docs",
    "erasures",
    "events",
    "groups",
    "keys",
    "livez",
    "metrics",
    "openapi.json",
    "problems",
    "projections",
    "readyz",
    "reducers",
    "snapshots",
    "stats",
    "streams",
];

/// Why a text is no base path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a path like /annals or /stores/shop: up to 200 letters, digits and -._~ between slashes, without a slash at \
     the end, and not beginning with the name of a route like /events"
)]
pub struct InvalidBasePath;

impl FromStr for BasePath {
    type Err = InvalidBasePath;

    /// Parses a base path. A slash alone is the empty one.
    fn from_str(text: &str) -> Result<Self, InvalidBasePath> {
        const LENGTH_MAX: usize = 200;
        if matches!(text, "" | "/") {
            return Ok(Self::default());
        }
        let is_segment = |segment: &str| {
            let is_plain = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
            is_plain && !matches!(segment, "" | "." | "..")
        };
        let segments = text.strip_prefix('/').ok_or(InvalidBasePath)?;
        if segments.split('/').next().is_some_and(|first| ROUTES.contains(&first)) {
            return Err(InvalidBasePath);
        }
        if text.len() > LENGTH_MAX || !segments.split('/').all(is_segment) {
            return Err(InvalidBasePath);
        }
        Ok(Self(text.into()))
    }
}

impl BasePath {
    /// Returns whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rest of a path that is below it, which is empty for the base path itself; `None` for any other path.
    pub fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(&*self.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_has_plain_segments() {
        for valid in ["/annals", "/stores/shop-1", "/a.b/~c_d"] {
            assert_eq!(valid.parse::<BasePath>().map(|base| base.to_string()), Ok(valid.to_owned()));
        }
        for empty in ["", "/"] {
            assert_eq!(empty.parse(), Ok(BasePath::default()));
        }
        let long = format!("/{}", "a".repeat(200));
        for invalid in [
            "annals", "/annals/", "//a", "/a//b", "/a b", "/a%20", "/../a", "/a/.", "/ä", "/a?b", "/events", "/docs/a",
            &long,
        ] {
            assert_eq!(invalid.parse::<BasePath>(), Err(InvalidBasePath), "{invalid}");
        }
    }

    #[test]
    fn only_whole_segments_are_stripped() {
        let base: BasePath = "/a".parse().expect("a base path");
        assert_eq!(base.strip("/a/events"), Some("/events"));
        assert_eq!(base.strip("/a/a"), Some("/a"));
        assert_eq!(base.strip("/a"), Some(""));
        assert_eq!(base.strip("/ab"), None);
        assert_eq!(base.strip("/events"), None);
    }
}
