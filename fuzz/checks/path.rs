//! Names in paths and parameters: a valid name in a link is parsed as the same name, and the parser of a query never
//! panics.

use annals::domain::name::{NAME_CHARS_MAX, check_name, check_path_name};
use annals::http::extract::query::Query;
use annals::wire::path::{link, segment};
use http::Uri;
use percent_encoding::percent_decode_str;

/// Checks an input.
pub fn check(data: &[u8]) {
    if let Ok(uri) = Uri::try_from(data)
        && let Ok(mut query) = Query::parse(&uri)
    {
        let _ = query.take_number::<i64>("limit", 1, 1_000);
        let _ = query.take_time("at");
        let _ = query.take_optional("lastEventId");
        let _ = query.take_all("event_type");
        let _ = query.finish();
    }
    let Ok(name) = std::str::from_utf8(data) else { return };
    if check_name(name).is_ok() {
        assert!((1..=NAME_CHARS_MAX).contains(&name.chars().count()));
        let path = link("/events", &[("event_type", name.to_owned())]);
        let uri = Uri::try_from(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let taken = Query::parse(&uri).ok().and_then(|mut query| query.take("event_type").ok().flatten());
        assert_eq!(taken.as_deref(), Some(name));
    }
    if check_path_name(name).is_ok() {
        let path = format!("/streams/{}/1", segment(name));
        let uri = Uri::try_from(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let parts: Vec<_> = uri.path().split('/').collect();
        assert_eq!(parts.len(), 4, "{path}");
        assert_eq!(percent_decode_str(parts[2]).decode_utf8().as_deref(), Ok(name));
    }
}
