//! Preconditions (RFC 9110 section 13): If-Match and If-None-Match against the version of a stream.

use axum::http::{HeaderMap, HeaderValue, header};

use super::headers::single;
use super::problem::{FieldError, Problem};
use crate::domain::version::{ExpectedVersion, Version};

type Fallible<T> = Result<T, Box<Problem>>;

/// As people write them, and as errors name them.
const IF_MATCH: &str = "If-Match";
const IF_NONE_MATCH: &str = "If-None-Match";

/// `Cache-Control` of what changes: it may be kept, and is asked for again with its tag.
pub const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// `"43"`: a version or a position as an entity tag.
pub fn etag(number: impl Into<i64>) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", number.into())).expect("digits in quotes are a header value")
}

/// The expected version of an append.
pub fn expected_version(headers: &HeaderMap) -> Fallible<ExpectedVersion> {
    let if_match = single_tag(headers, IF_MATCH)?;
    let if_none_match = single_tag(headers, IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(ExpectedVersion::Any),
        (Some("*"), None) => Ok(ExpectedVersion::Exists),
        (Some(tag), None) => version_tag(tag).map(ExpectedVersion::Exact),
        (None, Some("*")) => Ok(ExpectedVersion::None),
        (None, Some(_)) => {
            Err(invalid(IF_NONE_MATCH, "takes only * here; the version that you expect goes into If-Match"))
        }
        (Some(_), Some(_)) => Err(invalid(IF_NONE_MATCH, "and If-Match exclude each other: send one of them")),
    }
}

/// Refuses preconditions where the expected version stands in the body.
pub fn no_preconditions(headers: &HeaderMap) -> Fallible<()> {
    for name in [IF_MATCH, IF_NONE_MATCH] {
        if headers.contains_key(name) {
            return Err(invalid(name, "is not taken here: expected_version stands in the body, for each stream"));
        }
    }
    Ok(())
}

/// Whether a reader has this version already (304); tags are compared weakly, and may be a list.
pub fn not_modified(headers: &HeaderMap, version: Version) -> Fallible<bool> {
    let current = etag(version);
    for value in headers.get_all(header::IF_NONE_MATCH) {
        let value = value.to_str().map_err(|_| not_a_tag(IF_NONE_MATCH))?.trim();
        if value == "*" {
            return Ok(true);
        }
        let tags = tags(value).ok_or_else(|| not_a_tag(IF_NONE_MATCH))?;
        if tags.iter().any(|tag| tag.as_bytes() == current.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The tags of a list, in their quotes and without their weakness; empty elements are passed over (RFC 9110 section 5.6.1).
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

fn version_tag(tag: &str) -> Fallible<u64> {
    if tag.contains(',') {
        return Err(invalid(IF_MATCH, "takes one tag, not a list: an append expects one version"));
    }
    let strong = tag.strip_prefix("W/").unwrap_or(tag);
    let plain = |digits: &&str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (*digits == "0" || !digits.starts_with('0'))
    };
    let digits = opaque(strong).filter(plain);
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| not_a_tag(IF_MATCH))
}

fn opaque(tag: &str) -> Option<&str> {
    tag.strip_prefix('"')?.strip_suffix('"').filter(|inside| !inside.contains('"'))
}

fn single_tag<'h>(headers: &'h HeaderMap, name: &'static str) -> Fallible<Option<&'h str>> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    value.to_str().map(|value| Some(value.trim())).map_err(|_| not_a_tag(name))
}

fn not_a_tag(name: &str) -> Box<Problem> {
    invalid(name, "must be a version in quotes, like \"41\", or *")
}

fn invalid(name: &str, detail: &str) -> Box<Problem> {
    Problem::invalid(FieldError::header(name, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn expected(headers: &[(HeaderName, &'static str)]) -> Result<ExpectedVersion, ()> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        expected_version(&headers).map_err(drop)
    }

    #[test]
    fn the_expected_version_is_read_from_either_header() {
        use header::{IF_MATCH, IF_NONE_MATCH};
        assert_eq!(expected(&[]), Ok(ExpectedVersion::Any));
        assert_eq!(expected(&[(IF_MATCH, "\"41\"")]), Ok(ExpectedVersion::Exact(41)));
        assert_eq!(expected(&[(IF_MATCH, "W/\"41\"")]), Ok(ExpectedVersion::Exact(41)));
        assert_eq!(expected(&[(IF_MATCH, "\"0\"")]), Ok(ExpectedVersion::Exact(0)));
        assert_eq!(expected(&[(IF_MATCH, "*")]), Ok(ExpectedVersion::Exists));
        assert_eq!(expected(&[(IF_NONE_MATCH, "*")]), Ok(ExpectedVersion::None));
    }

    #[test]
    fn headers_that_are_not_understood_are_refused() {
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
            "\"99999999999999999999\"",
        ] {
            assert_eq!(expected(&[(IF_MATCH, value)]), Err(()), "{value}");
        }
        assert_eq!(expected(&[(IF_NONE_MATCH, "\"1\"")]), Err(()));
        assert_eq!(expected(&[(IF_MATCH, "\"1\""), (IF_NONE_MATCH, "*")]), Err(()));
        assert_eq!(expected(&[(IF_MATCH, "\"1\""), (IF_MATCH, "\"1\"")]), Err(()));
    }

    #[test]
    fn a_reader_lists_what_it_has() {
        let has = |value: &'static str| {
            let headers = [(header::IF_NONE_MATCH, HeaderValue::from_static(value))].into_iter().collect();
            not_modified(&headers, 43).map_err(drop)
        };
        assert_eq!(has("\"43\""), Ok(true));
        assert_eq!(has("W/\"42\", W/\"43\""), Ok(true));
        assert_eq!(has("*"), Ok(true));
        assert_eq!(has("\"42\""), Ok(false));
        assert_eq!(has("\"other\""), Ok(false));
        assert_eq!(has("\"a,b\",, \"43\" ,"), Ok(true));
        assert_eq!(has("\"42\" \"43\""), Err(()));
        assert_eq!(has("43"), Err(()));
    }
}
