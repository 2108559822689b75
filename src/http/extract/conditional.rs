//! Conditional requests (RFC 9110, section 13): `If-Match` and `If-None-Match` with the version of a stream or the
//! position of a projection.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};

use crate::domain::version::{ExpectedVersion, Version};
use crate::http::extract::headers::single;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

/// The names as errors show them.
const IF_MATCH: &str = "If-Match";
const IF_NONE_MATCH: &str = "If-None-Match";

/// The precondition of a write: the version that the client expects.
pub struct Precondition(pub ExpectedVersion);

/// Fails if the request has a precondition: its body has the expected versions.
pub struct NoPreconditions;

/// `If-None-Match` of a read. It is parsed when it is compared, because other checks of the request take precedence.
pub struct IfNoneMatch(Vec<HeaderValue>);

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        expected_version(&parts.headers).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NoPreconditions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        no_preconditions(&parts.headers).map(|()| Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}

/// Returns the version that the headers of a write expect.
pub fn expected_version(headers: &HeaderMap) -> ApiResult<ExpectedVersion> {
    let if_match = single_tag(headers, IF_MATCH)?;
    let if_none_match = single_tag(headers, IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(ExpectedVersion::Any),
        (Some("*"), None) => Ok(ExpectedVersion::Exists),
        (Some(tag), None) => version_tag(tag).map(ExpectedVersion::Exact),
        (None, Some("*")) => Ok(ExpectedVersion::None),
        (None, Some(_)) => {
            Err(invalid(IF_NONE_MATCH, "must be *: an expected version or position belongs in If-Match"))
        }
        (Some(_), Some(_)) => Err(invalid(IF_NONE_MATCH, "must not be sent together with If-Match")),
    }
}

/// Fails if the request has a precondition.
pub fn no_preconditions(headers: &HeaderMap) -> ApiResult<()> {
    for name in [IF_MATCH, IF_NONE_MATCH] {
        if headers.contains_key(name) {
            return Err(invalid(name, "is not supported here: the body has an expected_version for each stream"));
        }
    }
    Ok(())
}

impl IfNoneMatch {
    /// Copies the values of the header.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Returns whether the request has the header.
    pub fn is_present(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns whether the client already has this version (304). The header may be a list of tags, which are compared
    /// weakly.
    pub fn matches(&self, version: Version) -> ApiResult<bool> {
        let current = u64::try_from(version).ok();
        for value in &self.0 {
            let value = value.to_str().map_err(|_| not_a_tag(IF_NONE_MATCH))?.trim();
            if value == "*" {
                return Ok(true);
            }
            let tags = tags(value).ok_or_else(|| not_a_tag(IF_NONE_MATCH))?;
            if tags.iter().any(|tag| current.is_some() && number_in_tag(tag) == current) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Splits a list of tags. The tags keep their quotes, without `W/`; empty elements are ignored (RFC 9110, section
/// 5.6.1).
fn tags(list: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let mut rest = list.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let quoted = rest.strip_prefix("W/").unwrap_or(rest);
        let inside = quoted.strip_prefix('"')?.find('"')?;
        let (tag, after) = quoted.split_at(inside + 2);
        found.push(tag);
        let next = after.trim_start_matches([' ', '\t']);
        if !next.is_empty() && !next.starts_with(',') {
            return None;
        }
        rest = next.trim_start_matches([' ', '\t', ',']);
    }
    Some(found)
}

fn version_tag(tag: &str) -> ApiResult<u64> {
    if tag.contains(',') {
        return Err(invalid(IF_MATCH, "must be one value in quotes, not a list"));
    }
    number_in_tag(tag.strip_prefix("W/").unwrap_or(tag)).ok_or_else(|| not_a_tag(IF_MATCH))
}

/// Returns the number in a tag, which has its quotes.
///
/// A proxy that compresses a response adds the coding to the tag: `"41-gzip"` (Apache), `"41--gzip"` (Jetty),
/// `"41;gzip"`. The client sends that tag back, and it names the same version.
fn number_in_tag(tag: &str) -> Option<u64> {
    const CODINGS: [&str; 6] = ["gzip", "x-gzip", "br", "zstd", "deflate", "compress"];
    let inside = tag.strip_prefix('"')?.strip_suffix('"')?;
    let end = inside.find(|character: char| !character.is_ascii_digit()).unwrap_or(inside.len());
    let (digits, mut suffix) = inside.split_at(end);
    while !suffix.is_empty() {
        let coded = ["--", "-", ";"].iter().find_map(|separator| suffix.strip_prefix(separator))?;
        suffix = CODINGS.iter().find_map(|coding| {
            let (start, rest) = coded.split_at_checked(coding.len())?;
            start.eq_ignore_ascii_case(coding).then_some(rest)
        })?;
    }
    if digits.starts_with('0') && digits != "0" { None } else { digits.parse().ok() }
}

fn single_tag<'h>(headers: &'h HeaderMap, name: &'static str) -> ApiResult<Option<&'h str>> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    value.to_str().map(|value| Some(value.trim())).map_err(|_| not_a_tag(name))
}

fn not_a_tag(name: &str) -> ApiError {
    invalid(name, "must be a version or a position in quotes, like \"41\", or *")
}

fn invalid(name: &str, detail: &str) -> ApiError {
    ApiError::invalid(FieldError::header(name, detail))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn expected(headers: &[(HeaderName, &'static str)]) -> Result<ExpectedVersion, ()> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        expected_version(&headers).map_err(drop)
    }

    #[test]
    fn both_headers_state_an_expected_version() {
        use header::{IF_MATCH, IF_NONE_MATCH};
        assert_eq!(expected(&[]), Ok(ExpectedVersion::Any));
        assert_eq!(expected(&[(IF_MATCH, "\"41\"")]), Ok(ExpectedVersion::Exact(41)));
        assert_eq!(expected(&[(IF_MATCH, "W/\"41\"")]), Ok(ExpectedVersion::Exact(41)));
        assert_eq!(expected(&[(IF_MATCH, "\"0\"")]), Ok(ExpectedVersion::Exact(0)));
        for changed_by_proxies in [
            "\"41-gzip\"",
            "W/\"41-gzip\"",
            "\"41--gzip\"",
            "\"41;gzip\"",
            "\"41-br\"",
            "\"41--zstd\"",
            "\"41-gzip-br\"",
        ] {
            assert_eq!(expected(&[(IF_MATCH, changed_by_proxies)]), Ok(ExpectedVersion::Exact(41)));
        }
        assert_eq!(expected(&[(IF_MATCH, "*")]), Ok(ExpectedVersion::Exists));
        assert_eq!(expected(&[(IF_NONE_MATCH, "*")]), Ok(ExpectedVersion::None));
    }

    #[test]
    fn invalid_preconditions_are_refused() {
        use header::{IF_MATCH, IF_NONE_MATCH};
        for value in [
            "41",
            "\"a\"",
            "\"\"",
            "\"-1\"",
            "\"+1\"",
            "\"1\", \"2\"",
            "",
            "\"005\"",
            "\"1",
            "\"1-\"",
            "\"1-2\"",
            "\"1-gzipped\"",
            "\"-gzip\"",
            "\"01-gzip\"",
            "\"99999999999999999999\"",
        ] {
            assert_eq!(expected(&[(IF_MATCH, value)]), Err(()), "{value}");
        }
        assert_eq!(expected(&[(IF_NONE_MATCH, "\"1\"")]), Err(()));
        assert_eq!(expected(&[(IF_MATCH, "\"1\""), (IF_NONE_MATCH, "*")]), Err(()));
        assert_eq!(expected(&[(IF_MATCH, "\"1\""), (IF_MATCH, "\"1\"")]), Err(()));
    }

    #[test]
    fn if_none_match_is_a_list_of_tags() {
        let has = |value: &'static str| {
            let headers = [(header::IF_NONE_MATCH, HeaderValue::from_static(value))].into_iter().collect();
            IfNoneMatch::from_headers(&headers).matches(43).map_err(drop)
        };
        assert_eq!(has("\"43\""), Ok(true));
        assert_eq!(has("W/\"42\", W/\"43\""), Ok(true));
        assert_eq!(has("*"), Ok(true));
        assert_eq!(has("W/\"42-gzip\", \"43--br\""), Ok(true));
        assert_eq!(has("\"42-gzip\""), Ok(false));
        assert_eq!(has("\"42\""), Ok(false));
        assert_eq!(has("\"other\""), Ok(false));
        assert_eq!(has("\"a,b\",, \"43\" ,"), Ok(true));
        assert_eq!(has("\"42\" \"43\""), Err(()));
        assert_eq!(has("43"), Err(()));
    }
}
