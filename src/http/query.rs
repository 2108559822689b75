//! Query parameters: each known one is taken, and what is left over is an error.

use std::fmt::Display;
use std::str::FromStr;

use axum::http::Uri;
use chrono::{DateTime, Datelike, Utc};
use percent_encoding::percent_decode_str;

use super::problem::{FieldError, Problem};

type Fallible<T> = Result<T, Box<Problem>>;

/// The parameters of one request.
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn of(uri: &Uri) -> Fallible<Self> {
        let query = uri.query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        Ok(Self { pairs: pairs.collect::<Fallible<_>>()? })
    }

    /// Takes a parameter that may be given once, and not empty.
    pub fn take(&mut self, name: &str) -> Fallible<Option<String>> {
        let mut values = self.pairs.extract_if(.., |(given, _)| given == name).map(|(_, value)| value);
        let value = values.next();
        if values.next().is_some() {
            return Err(Problem::invalid(FieldError::parameter(name, "is given more than once")));
        }
        match value {
            Some(value) if value.is_empty() => Err(Problem::invalid(FieldError::parameter(name, "must not be empty"))),
            value => Ok(value),
        }
    }

    /// Takes all values of a parameter that may be repeated; none of them empty.
    pub fn take_all(&mut self, name: &str) -> Fallible<Vec<String>> {
        let values: Vec<_> = self.pairs.extract_if(.., |(given, _)| given == name).map(|(_, value)| value).collect();
        if values.iter().any(String::is_empty) {
            return Err(Problem::invalid(FieldError::parameter(name, "must not be empty")));
        }
        Ok(values)
    }

    /// Takes a whole number within bounds.
    pub fn take_number<N>(&mut self, name: &str, least: N, most: N) -> Fallible<Option<N>>
    where
        N: FromStr + PartialOrd + Display,
    {
        let Some(value) = self.take(name)? else { return Ok(None) };
        let plain = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse::<N>() {
            Ok(number) if plain && least <= number && number <= most => Ok(Some(number)),
            _ => Err(Problem::invalid(FieldError::parameter(
                name,
                format!("must be a whole number from {least} to {most}"),
            ))),
        }
    }

    /// Takes a time of RFC 3339, of the years 1 to 9998: whatever it is rounded to can be written again.
    pub fn take_time(&mut self, name: &str) -> Fallible<Option<DateTime<Utc>>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let written_so = text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'));
        let time = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc());
        let time = time.filter(|time| written_so && (1..=9998).contains(&time.year()));
        let fault = "must be a time like 2026-11-23T05:56:44.527251Z (RFC 3339); write a + as %2B";
        time.map(Some).ok_or_else(|| Problem::invalid(FieldError::parameter(name, fault)))
    }

    /// Takes a parameter that only stands there: `?verbose`.
    pub fn take_flag(&mut self, name: &str) -> Fallible<bool> {
        let before = self.pairs.len();
        self.pairs.retain(|(given, value)| given != name || !(value.is_empty() || value == "true"));
        Ok(self.pairs.len() < before)
    }

    /// Refuses what was not taken.
    pub fn finish(self) -> Fallible<()> {
        match self.pairs.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid(FieldError::parameter(name, "is not known here"))),
        }
    }
}

/// Percent-decoded, with + for a space, as forms write it.
fn decoded(text: &str) -> Fallible<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map(|decoded| decoded.into_owned());
    decoded.map_err(|_| Problem::invalid(FieldError::parameter(text, "is not UTF-8 when percent-decoded")))
}

/// Refuses all parameters.
pub fn no_parameters(uri: &Uri) -> Fallible<()> {
    Query::of(uri)?.finish()
}
