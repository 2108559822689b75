//! The segments of a path: percent-decoded once, and validated.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use uuid::Uuid;

use crate::domain::claim_id::{ClaimId, ParseClaimIdError};
use crate::domain::erasure::ErasureNo;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::name::{StreamId, StreamIdFault, check_not_reserved, check_path_name};
use crate::domain::version::VERSION_MAX;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;

/// `{aggregate_type}/{aggregate_id}`
pub struct StreamPath(pub StreamId);

/// `{aggregate_type}/{aggregate_id}` of a stream that the request writes: its type must not be reserved.
pub struct WritableStreamPath(pub StreamId);

/// `{aggregate_type}`
pub struct TypePath(pub String);

/// `{aggregate_type}` of a reducer that the request writes: it must not be reserved.
pub struct WritableTypePath(pub String);

/// `{projection_name}`
pub struct ProjectionPath(pub String);

/// `{group_name}`
pub struct GroupPath(pub String);

/// `{claim_id}`
pub struct ClaimPath(pub ClaimId);

/// `{version}`, at least 1 and at most [`VERSION_MAX`].
pub struct VersionPath(pub u64);

/// `{erasure}`
pub struct ErasurePath(pub ErasureNo);

/// `{event_id}`
pub struct EventIdPath(pub Uuid);

/// The segments that a route names, percent-decoded; `None` if they are not UTF-8.
///
/// The extraction does not fail. A fault is reported when a segment is read, because other faults may take precedence.
pub struct PathParams(Option<RawPathParams>);

impl PathParams {
    /// Returns a segment, not validated.
    pub fn get(&self, name: &str) -> ApiResult<&str> {
        let not_utf8 = || invalid("path", "is not UTF-8 when percent-decoded");
        let found = self.0.as_ref().ok_or_else(not_utf8)?.iter().find(|(given, _)| *given == name);
        Ok(found.map(|(_, value)| value).expect("the route has a segment of this name"))
    }

    /// Returns a segment that is a name.
    fn name(&self, segment: &'static str) -> ApiResult<String> {
        let name = self.get(segment)?;
        check_path_name(name).map_err(|fault| invalid(segment, fault.to_string()))?;
        Ok(name.to_owned())
    }

    /// Returns the stream of two segments, validated by `parse`.
    fn stream(&self, parse: fn(String, String) -> Result<StreamId, StreamIdFault>) -> ApiResult<StreamId> {
        let (aggregate_type, aggregate_id) = (self.get("aggregate_type")?, self.get("aggregate_id")?);
        let stream = parse(aggregate_type.to_owned(), aggregate_id.to_owned());
        stream.map_err(|fault| invalid(fault.field, fault.fault.to_string()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Self(RawPathParams::from_request_parts(parts, state).await.ok()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for StreamPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        params.stream(StreamId::parse).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WritableStreamPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        params.stream(StreamId::parse_writable).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WritableTypePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let TypePath(aggregate_type) = TypePath::from_request_parts(parts, state).await?;
        check_not_reserved(&aggregate_type).map_err(|fault| invalid("aggregate_type", fault.to_string()))?;
        Ok(Self(aggregate_type))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TypePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        params.name("aggregate_type").map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ProjectionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        params.name("projection_name").map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for GroupPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        params.name("group_name").map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClaimPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        let claim_id = params.get("claim_id")?.parse();
        claim_id.map(Self).map_err(|fault: ParseClaimIdError| invalid("claim_id", fault.to_string()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        let text = params.get("version")?;
        // A version has one spelling, so that an event has one URL in caches.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let version = text.parse().ok().filter(|version| digits && (1..=VERSION_MAX).contains(version));
        version
            .map(Self)
            .ok_or_else(|| invalid("version", "must be a version: 1, 2, 3 … (an aggregate id cannot contain a slash)"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ErasurePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        let text = params.get("erasure")?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|number| digits && (1..=EXACT_INTEGER_MAX).contains(number));
        number.map(Self).ok_or_else(|| invalid("erasure", "must be the number of an erasure: 1, 2, 3 …"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EventIdPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Ok(params) = PathParams::from_request_parts(parts, state).await;
        let event_id = Uuid::try_parse(params.get("event_id")?);
        event_id.map(Self).map_err(|_| invalid("event_id", "must be a UUID"))
    }
}

fn invalid(segment: &'static str, detail: impl Into<String>) -> ApiError {
    ApiError::invalid(FieldError::path(segment, detail))
}
