//! Content negotiation (RFC 9110, section 12): which representation `Accept` selects.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use mime::Mime;

use crate::http::media_type::JSON;
use crate::http::problem::error::{ApiError, ApiResult};

/// The client accepts JSON, the only representation of the route.
pub struct AcceptsJson;

impl<S: Send + Sync> FromRequestParts<S> for AcceptsJson {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        accepted(&parts.headers, &[JSON]).map(|_| Self)
    }
}

/// Returns the media type of `offered` with the highest quality. If several have it, returns the first of them.
pub fn accepted(headers: &HeaderMap, offered: &[&'static str]) -> ApiResult<&'static str> {
    let ranges = ranges(headers);
    let best = offered
        .iter()
        .map(|media_type| (quality(&ranges, media_type), *media_type))
        .filter(|(quality, _)| *quality > 0.0)
        .reduce(|best, other| if other.0 > best.0 { other } else { best });
    best.map(|(_, media_type)| media_type).ok_or_else(|| ApiError::not_acceptable(offered))
}

/// Parses a media type. RFC 9110 allows blanks around the semicolons of its parameters.
pub fn parse_media_type(text: &str) -> Option<Mime> {
    text.split(';').map(str::trim).collect::<Vec<_>>().join(";").parse().ok()
}

/// Returns the media ranges of all `Accept` headers with their qualities; `*/*` if there is none.
fn ranges(headers: &HeaderMap) -> Vec<(Mime, f32)> {
    let values: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if values.iter().all(|value| value.trim().is_empty()) {
        return vec![(mime::STAR_STAR, 1.0)];
    }
    let parse = |range: &str| {
        let range = parse_media_type(range)?;
        let quality = range.get_param("q").map_or(Some(1.0), |q| q.as_str().parse().ok())?;
        Some((range, quality))
    };
    values.iter().flat_map(|value| value.split(',')).filter_map(parse).collect()
}

/// Returns the quality of a media type, by the most specific range that matches it; 0 if none matches.
fn quality(ranges: &[(Mime, f32)], media_type: &str) -> f32 {
    let (kind, _) = media_type.split_once('/').expect("a media type has two parts");
    let specificity = |range: &Mime| {
        // `Mime::subtype` excludes a suffix such as +json, so the whole essence is compared.
        let exact = range.essence_str() == media_type;
        let same_kind = range.type_() == kind && range.subtype() == mime::STAR;
        if exact {
            Some(2)
        } else if same_kind {
            Some(1)
        } else {
            (range.type_() == mime::STAR).then_some(0)
        }
    };
    ranges
        .iter()
        .filter_map(|(range, quality)| Some((specificity(range)?, *quality)))
        .max_by_key(|(specificity, _)| *specificity)
        .map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::http::media_type::{CLOUD_EVENTS, NDJSON};

    fn chosen(accept: &'static str) -> Option<&'static str> {
        let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
        accepted(&headers, &[JSON, NDJSON]).ok()
    }

    #[test]
    fn the_representation_with_the_highest_quality_is_chosen() {
        assert_eq!(accepted(&HeaderMap::new(), &[JSON, NDJSON]).ok(), Some(JSON));
        assert_eq!(chosen(""), Some(JSON));
        assert_eq!(chosen("*/*"), Some(JSON));
        assert_eq!(chosen("application/*"), Some(JSON));
        assert_eq!(chosen("application/x-ndjson"), Some(NDJSON));
        assert_eq!(chosen("application/json;q=0.5, application/x-ndjson"), Some(NDJSON));
        assert_eq!(chosen("application/json ;q=0.5 , application/x-ndjson ; q=0.7"), Some(NDJSON));
        assert_eq!(chosen("text/html, */*;q=0.1"), Some(JSON));
        assert_eq!(chosen("application/json;q=0, */*"), Some(NDJSON));
        let batch = [(header::ACCEPT, HeaderValue::from_static("application/cloudevents-batch+json; charset=utf-8"))];
        assert_eq!(accepted(&batch.into_iter().collect(), &[JSON, CLOUD_EVENTS]).ok(), Some(CLOUD_EVENTS));
        assert_eq!(chosen("application/json+json"), None);
        assert_eq!(chosen("text/html"), None);
        assert_eq!(chosen("application/json;q=0"), None);
    }
}
