//! Query parameters: a route takes each parameter that it knows, and refuses every other one.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use chrono::{DateTime, Datelike, SubsecRound, TimeDelta, Utc};
use percent_encoding::percent_decode_str;

use crate::domain::name::check_path_name;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

/// The parameters that a route knows, read from the query.
pub trait FromQuery: Sized {
    /// Takes the parameters, and calls [`Query::finish`].
    fn from_query(query: Query) -> ApiResult<Self>;
}

/// Extracts the parameters of a route.
pub struct Parameters<T>(pub T);

/// The request has no query parameters.
pub struct NoQuery;

impl<S: Send + Sync, T: FromQuery> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        T::from_query(Query::parse(&parts.uri)?).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        Query::parse(&parts.uri)?.finish().map(|()| Self)
    }
}

/// The parameters of one request that were not taken yet.
pub struct Query {
    pairs: Vec<(String, String)>,
    /// The parameters of the route, which are those that it has asked for.
    known: Vec<&'static str>,
}

impl Query {
    /// Splits and decodes the query of a URI.
    pub fn parse(uri: &Uri) -> ApiResult<Self> {
        let query = uri.query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        Ok(Self { pairs: pairs.collect::<ApiResult<_>>()?, known: Vec::new() })
    }

    /// Takes a parameter. Fails if it is empty, or is given more than once.
    pub fn take(&mut self, name: &'static str) -> ApiResult<Option<String>> {
        match self.take_optional(name)? {
            Some(value) if value.is_empty() => Err(invalid(name, "must not be empty")),
            value => Ok(value),
        }
    }

    /// Takes a parameter that may be empty. Fails if it is given more than once.
    pub fn take_optional(&mut self, name: &'static str) -> ApiResult<Option<String>> {
        self.known.push(name);
        let mut values = self.pairs.extract_if(.., |(given, _)| given == name).map(|(_, value)| value);
        let value = values.next();
        if values.next().is_some() {
            return Err(invalid(name, "is given more than once"));
        }
        Ok(value)
    }

    /// Takes a parameter that is `true` or `false`; `false` if it is absent.
    pub fn take_flag(&mut self, name: &'static str) -> ApiResult<bool> {
        match self.take(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }

    /// Takes a name that may be a segment of a path: an aggregate type, an aggregate id, or the name of a projection.
    pub fn take_path_name(&mut self, name: &'static str) -> ApiResult<Option<String>> {
        let value = self.take(name)?;
        match value.as_deref().map(check_path_name) {
            Some(Err(fault)) => Err(invalid(name, fault.to_string())),
            _ => Ok(value),
        }
    }

    /// Takes all values of a parameter that may be repeated. None may be empty.
    pub fn take_all(&mut self, name: &'static str) -> ApiResult<Vec<String>> {
        self.known.push(name);
        let values: Vec<_> = self.pairs.extract_if(.., |(given, _)| given == name).map(|(_, value)| value).collect();
        if values.iter().any(String::is_empty) {
            return Err(invalid(name, "must not be empty"));
        }
        Ok(values)
    }

    /// Takes a whole number, digits only, from `min` to `max`.
    pub fn take_number<N>(&mut self, name: &'static str, min: N, max: N) -> ApiResult<Option<N>>
    where
        N: FromStr + PartialOrd + Display,
    {
        let Some(value) = self.take(name)? else { return Ok(None) };
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse::<N>() {
            Ok(number) if digits && min <= number && number <= max => Ok(Some(number)),
            _ => Err(invalid(name, format!("must be a whole number from {min} to {max}"))),
        }
    }

    /// Takes a time (RFC 3339) of the years 1 to 9998. The year 9999 is excluded, because such a time
    /// could not be formatted as RFC 3339 after it was rounded up.
    pub fn take_time(&mut self, name: &'static str) -> ApiResult<Option<DateTime<Utc>>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let has_separator = text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'));
        let time = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc());
        let time = time.filter(|time| has_separator && (1..=9998).contains(&time.year()));
        let detail = "must be a time like 2026-11-23T05:56:44.527251Z (RFC 3339); write a + as %2B";
        time.map(Some).ok_or_else(|| invalid(name, detail))
    }

    /// Fails if the request has one of these parameters, which the requested representation does not support.
    pub fn refuse(&self, names: &[&str], why: &str) -> ApiResult<()> {
        let refused = names.iter().find(|name| self.pairs.iter().any(|(given, _)| given == *name));
        refused.map_or(Ok(()), |name| Err(invalid(name, why)))
    }

    /// Fails if a parameter was not taken: the route does not know it. The error lists those that it knows.
    pub fn finish(self) -> ApiResult<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) if self.known.is_empty() => {
                Err(invalid(name, "is unknown: this route has no query parameters"))
            }
            Some((name, _)) => Err(invalid(name, format!("is unknown: the parameters are {}", self.known.join(", ")))),
        }
    }
}

/// Rounds a time up to microseconds. That is the resolution of `occurred_at`, so the bound selects the same events.
pub fn round_up_to_micros(time: DateTime<Utc>) -> DateTime<Utc> {
    let floor = time.trunc_subsecs(6);
    if floor < time { floor + TimeDelta::microseconds(1) } else { floor }
}

/// Percent-decodes a name or a value, with + for a space as in forms.
fn decode(text: &str) -> ApiResult<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned);
    decoded.map_err(|_| invalid(text, "is not UTF-8 when percent-decoded"))
}

fn invalid(name: &str, detail: impl Into<String>) -> ApiError {
    ApiError::invalid(FieldError::parameter(name, detail))
}
