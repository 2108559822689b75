//! The request of a read of a stream.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::domain::cursor::Cursor;
use crate::domain::name::StreamId;
use crate::domain::version::{VERSION_MAX, Version};
use crate::http::base_path::link;
use crate::http::extract::conditional::IfNoneMatch;
use crate::http::extract::last_event_id::take_last_event_id;
use crate::http::extract::min_position::take_min_position;
use crate::http::extract::path::StreamPath;
use crate::http::extract::query::Query;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::representation::format::Representation;
use crate::store::streams::range::{Direction, VersionRange};
use crate::wire::path::stream_path;

/// A read of a stream. It is extracted as a whole, because the representation decides which parameters are valid.
pub struct StreamReadRequest {
    pub representation: Representation,
    pub stream: StreamId,
    pub limit: Option<usize>,
    pub min_position: Option<Cursor>,
    /// The last version that an event stream has sent to the client.
    pub last_version: Option<u64>,
    pub if_none_match: IfNoneMatch,
    from_version: Option<u64>,
    to_version: Option<u64>,
    direction: Direction,
}

impl<S: Send + Sync> FromRequestParts<S> for StreamReadRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let representation = Representation::from_headers(&parts.headers)?;
        let StreamPath(stream) = StreamPath::from_request_parts(parts, state).await?;
        let is_event_stream = representation == Representation::EventStream;
        let mut query = Query::parse(&parts.uri)?;
        if is_event_stream {
            query.refuse(&["to_version"], "is not supported for an event stream, which has no end")?;
        }
        let last_version = if is_event_stream { last_version(&parts.headers, &mut query)? } else { None };
        let mut from_version = query.take_number("from_version", 1, VERSION_MAX)?;
        let to_version = query.take_number("to_version", 1, VERSION_MAX)?;
        let limit = representation.take_limit(&mut query)?;
        let direction = take_direction(&mut query, representation)?;
        let min_position = take_min_position(&mut query)?;
        query.finish()?;
        if let (Some(from), Some(to)) = (from_version, to_version)
            && from > to
        {
            let detail =
                format!("must not be above to_version ({from} > {to}): it is the lower bound in both directions");
            return Err(ApiError::invalid(FieldError::parameter("from_version", detail)));
        }
        let if_none_match = IfNoneMatch::from_headers(&parts.headers);
        // An invalid header is reported before the stream is looked up.
        if_none_match.matches(0)?;
        if let Some(last) = last_version {
            from_version = from_version.max(Some(last + 1));
        }
        Ok(Self {
            representation,
            stream,
            limit,
            min_position,
            last_version,
            if_none_match,
            from_version,
            to_version,
            direction,
        })
    }
}

impl StreamReadRequest {
    /// Returns the bounds as versions. Bounds that no stream can reach select no events.
    pub fn range(&self) -> VersionRange {
        let version = |version: u64| Version::try_from(version).unwrap_or(Version::MAX);
        VersionRange {
            from: version(self.from_version.unwrap_or(1)),
            to: version(self.to_version.unwrap_or(VERSION_MAX)),
            direction: self.direction,
        }
    }

    /// Returns the link to the rest of the range.
    pub fn link_to(&self, rest: VersionRange) -> String {
        let version = |version: Version| Some(u64::try_from(version).unwrap_or(1));
        let (from_version, to_version, direction) = match self.direction {
            Direction::Forward => (version(rest.from), self.to_version, None),
            Direction::Backward => (self.from_version, version(rest.to), Some("backward".to_owned())),
        };
        let mut parameters = Vec::new();
        parameters.extend(from_version.map(|version| ("from_version", version.to_string())));
        parameters.extend(to_version.map(|version| ("to_version", version.to_string())));
        parameters.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        parameters.extend(direction.map(|direction| ("direction", direction)));
        link(&stream_path(self.stream.aggregate_type(), self.stream.aggregate_id()), &parameters)
    }
}

fn take_direction(query: &mut Query, representation: Representation) -> ApiResult<Direction> {
    let invalid = |detail: &str| Err(ApiError::invalid(FieldError::parameter("direction", detail)));
    match query.take("direction")?.as_deref() {
        None | Some("forward") => Ok(Direction::Forward),
        Some("backward") if representation == Representation::EventStream => {
            invalid("must be forward for an event stream")
        }
        Some("backward") => Ok(Direction::Backward),
        Some(_) => invalid("must be forward or backward"),
    }
}

/// Returns the version after which an event stream resumes.
fn last_version(headers: &HeaderMap, query: &mut Query) -> ApiResult<Option<u64>> {
    let Some(last_event_id) = take_last_event_id(headers, query)? else { return Ok(None) };
    let digits = Some(&last_event_id.text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let version = digits.and_then(|digits| digits.parse().ok()).filter(|version| *version < VERSION_MAX);
    version.map(Some).ok_or_else(|| last_event_id.invalid("must be a version, like 42"))
}
