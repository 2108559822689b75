//! Content negotiation (RFC 9110 section 12): which representation `Accept` asks for, and what `Content-Type` says.

use axum::http::{HeaderMap, header};
use mime::Mime;

use super::problem::{Code, Problem};

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const EVENT_STREAM: &str = "text/event-stream";
pub const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// The one of `offered` that the client likes best; the first of those that it likes equally.
pub fn accepted(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Box<Problem>> {
    let ranges = ranges(headers);
    let best = offered
        .iter()
        .map(|media_type| (quality(&ranges, media_type), *media_type))
        .filter(|(quality, _)| *quality > 0.0)
        .reduce(|best, other| if other.0 > best.0 { other } else { best });
    match best {
        Some((_, media_type)) => Ok(media_type),
        None => Err(Problem::new(Code::NotAcceptable, format!("available here: {}", offered.join(", ")))),
    }
}

/// Refuses a body that does not say that it is JSON.
pub fn require_json_body(headers: &HeaderMap) -> Result<(), Box<Problem>> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let coding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("unreadable"));
    if let Some(coding) = coding.filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        let detail = format!("the body has Content-Encoding {coding}: send it as it is");
        return Err(Problem::new(Code::UnsupportedMediaType, detail));
    }
    match declared.and_then(media_type) {
        Some(media_type) if media_type.essence_str() == JSON => Ok(()),
        _ => {
            let detail = match declared {
                Some(declared) => format!("the body is declared as {declared}: send Content-Type: {JSON}"),
                None => format!("the body has no Content-Type: send Content-Type: {JSON}"),
            };
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
    }
}

/// A media type; RFC 9110 lets blanks stand around the semicolons of its parameters.
fn media_type(text: &str) -> Option<Mime> {
    text.split(';').map(str::trim).collect::<Vec<_>>().join(";").parse().ok()
}

/// The media ranges of all `Accept` headers with their qualities; everything, if there is none.
fn ranges(headers: &HeaderMap) -> Vec<(Mime, f32)> {
    let values: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if values.iter().all(|value| value.trim().is_empty()) {
        return vec![(mime::STAR_STAR, 1.0)];
    }
    let parse = |range: &str| {
        let range = media_type(range)?;
        let quality = range.get_param("q").map_or(Some(1.0), |q| q.as_str().parse().ok())?;
        Some((range, quality))
    };
    values.iter().flat_map(|value| value.split(',')).filter_map(parse).collect()
}

/// The quality that the most specific range which matches gives to a media type; 0 if none does.
fn quality(ranges: &[(Mime, f32)], media_type: &str) -> f32 {
    let (kind, _) = media_type.split_once('/').expect("a media type has two parts");
    let specificity = |range: &Mime| {
        // The subtype alone would leave out a suffix like +json.
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
    use super::*;
    use axum::http::HeaderValue;

    fn chosen(accept: &'static str) -> Option<&'static str> {
        let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
        accepted(&headers, &[JSON, NDJSON]).ok()
    }

    #[test]
    fn the_best_liked_representation_is_chosen() {
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
