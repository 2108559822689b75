//! The headers of an append, without its precondition: idempotency, default ids, and the preferred response. A claim has
//! the first of them, too.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use uuid::Uuid;

use crate::app::App;
use crate::domain::event::EventId;
use crate::domain::name::StreamId;
use crate::http::extract::headers::single_text;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::wire::correlation::id_from_text;
use crate::wire::validation::DefaultIds;

const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// The headers of an append.
pub struct AppendHeaders {
    idempotency_key: Option<String>,
    pub default_ids: DefaultIds,
    /// `Prefer: return=representation`: a conflict returns the events that the client missed.
    pub prefers_missed_events: bool,
}

/// `Idempotency-Key` of a request that is not an append.
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        idempotency_key(&parts.headers).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AppendHeaders {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let headers = &parts.headers;
        Ok(Self {
            idempotency_key: idempotency_key(headers)?,
            default_ids: DefaultIds {
                correlation_id: id(headers, "X-Correlation-Id"),
                causation_id: id(headers, "X-Causation-Id"),
            },
            prefers_missed_events: prefers_representation(headers),
        })
    }
}

impl AppendHeaders {
    /// Returns the id of an event that was sent without one. `index` is its index among the events of its stream in
    /// this request.
    pub fn event_id(&self, app: &App, stream: &StreamId, index: usize) -> EventId {
        match &self.idempotency_key {
            Some(key) => app.derived_ids.from_idempotency_key(stream, key, index),
            None => EventId::Generated(app.new_event_id()),
        }
    }
}

/// Parses `Idempotency-Key`: a quoted string (RFC 8941), or the same characters without quotes.
fn idempotency_key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    const NAME: &str = "Idempotency-Key";
    let invalid = |detail: &str| ApiError::invalid(FieldError::header(NAME, detail));
    let Some(value) = single_text(headers, NAME)? else { return Ok(None) };
    let key = match value.strip_prefix('"') {
        None if value.contains('"') => return Err(invalid("has a quote in it: quote the whole key")),
        None => value.to_owned(),
        Some(quoted) => {
            let inside =
                quoted.strip_suffix('"').ok_or_else(|| invalid("begins with a quote and does not end with one"))?;
            unescape(inside).ok_or_else(|| invalid("is not a quoted string: write \\\\ for \\ and \\\" for \""))?
        }
    };
    if key.is_empty() || key.chars().count() > IDEMPOTENCY_KEY_CHARS_MAX {
        return Err(invalid(&format!("must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters")));
    }
    Ok(Some(key))
}

fn unescape(quoted: &str) -> Option<String> {
    let mut plain = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '"' => return None,
            '\\' => characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            other => other,
        });
    }
    Some(plain)
}

/// Returns the id in a header, which may be any text; `None` if it is absent or empty. A header that occurs twice is
/// the list of its values (RFC 9110, section 5.3).
fn id(headers: &HeaderMap, name: &'static str) -> Option<Uuid> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()).collect();
    Some(values.join(&b", "[..])).filter(|text| !text.is_empty()).map(|text| id_from_text(&text))
}

/// Returns whether a header `Prefer` (RFC 7240) has `return=representation`. Unknown preferences are ignored, as the
/// RFC requires.
fn prefers_representation(headers: &HeaderMap) -> bool {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim().replace('"', "").eq_ignore_ascii_case("return=representation"))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn key(value: &'static str) -> Result<Option<String>, ()> {
        let name = HeaderName::from_static("idempotency-key");
        let headers = [(name, HeaderValue::from_static(value))].into_iter().collect();
        idempotency_key(&headers).map_err(drop)
    }

    #[test]
    fn an_idempotency_key_is_quoted_or_bare() {
        assert_eq!(key("abc"), Ok(Some("abc".to_owned())));
        assert_eq!(key("\"abc\""), Ok(Some("abc".to_owned())));
        assert_eq!(key("\"a\\\"b\\\\c\""), Ok(Some("a\"b\\c".to_owned())));
        assert_eq!(idempotency_key(&HeaderMap::new()).map_err(drop), Ok(None));
        for invalid in ["", "\"\"", "\"abc", "a\"b", "\"a\"b\"", "\"a\\b\""] {
            assert_eq!(key(invalid), Err(()), "{invalid}");
        }
    }
}
