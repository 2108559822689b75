//! Requests with a JSON body.

use std::fmt::Display;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::Deserialize;
use serde_path_to_error::Segment;

use crate::app::{App, Settings};
use crate::http::caller::Caller;
use crate::http::extract::accepts::parse_media_type;
use crate::http::media_type::JSON;
use crate::http::problem::code::Code;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::wire::json_error::describe;
use crate::wire::object::Object;

/// A request with a JSON body: the body is read first, then the parts are extracted in the order of `P`.
///
/// So 415, 413 and 429 take precedence over everything that is wrong with the path, the query and the headers (400).
/// The headers are not copied.
pub struct JsonRequest<P> {
    pub parts: P,
    pub body: JsonBody,
}

/// A request whose body may be absent; otherwise as [`JsonRequest`].
pub struct OptionalJsonRequest<P> {
    pub parts: P,
    /// `None`: the request has no body.
    pub body: Option<JsonBody>,
}

/// A body that is declared as JSON, and is UTF-8.
pub struct JsonBody(String);

impl<P> FromRequest<Arc<App>> for JsonRequest<P>
where
    P: FromRequestParts<Arc<App>> + Send,
{
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Ok(caller) = Caller::from_request_parts(&mut parts, app).await;
        let body = read_json(&parts.headers, body, &app.settings).await;
        let body = body.and_then(|body| caller.count_bytes(body.len()).map(|()| body));
        let body = body.map_err(IntoResponse::into_response)?;
        let parts = P::from_request_parts(&mut parts, app).await.map_err(IntoResponse::into_response)?;
        Ok(Self { parts, body: JsonBody(body) })
    }
}

impl<P> FromRequest<Arc<App>> for OptionalJsonRequest<P>
where
    P: FromRequestParts<Arc<App>> + Send,
{
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        if request.body().size_hint().exact() == Some(0) {
            let (mut parts, _) = request.into_parts();
            let parts = P::from_request_parts(&mut parts, app).await.map_err(IntoResponse::into_response)?;
            return Ok(Self { parts, body: None });
        }
        let JsonRequest { parts, body } = JsonRequest::from_request(request, app).await?;
        Ok(Self { parts, body: Some(body) })
    }
}

/// Reads a body: fails unless it is declared as JSON (415), is not too large (413), and arrives in time and in UTF-8
/// (400).
async fn read_json(headers: &HeaderMap, body: Body, settings: &Settings) -> ApiResult<String> {
    require_json(headers)?;
    let bytes_max = settings.max_body_bytes;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bytes_max as u64) {
        return Err(ApiError::payload_too_large(bytes_max));
    }
    let collected = tokio::time::timeout(settings.clients.body, Limited::new(body, bytes_max).collect()).await;
    let collected = collected.map_err(|_| {
        let seconds = settings.clients.body.as_secs();
        invalid_body(format_args!("the body did not arrive within {seconds} s"))
            .with_header(header::CONNECTION, HeaderValue::from_static("close"))
    })?;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::payload_too_large(bytes_max)
        } else {
            invalid_body("the connection was closed before the body was complete")
        }
    })?;
    String::from_utf8(collected.to_bytes().into()).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        invalid_body(format_args!("the body is not UTF-8 from byte {valid} on"))
    })
}

/// Fails unless the headers declare an uncompressed body of JSON.
pub fn require_json(headers: &HeaderMap) -> ApiResult<()> {
    let unsupported = |detail: String| ApiError::new(Code::UnsupportedMediaType, detail);
    let coding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("unreadable"));
    if let Some(coding) = coding.filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(unsupported(format!("the body has Content-Encoding {coding}: send it uncompressed")));
    }
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if declared.and_then(parse_media_type).is_some_and(|media_type| media_type.essence_str() == JSON) {
        return Ok(());
    }
    Err(unsupported(match declared {
        Some(declared) => format!("the body is declared as {declared}: send Content-Type: {JSON}"),
        None => format!("the body has no Content-Type: send Content-Type: {JSON}"),
    }))
}

impl JsonBody {
    /// Parses the body, which must be an object. An error has a JSON pointer to the invalid member. If the body is not
    /// an object, the error shows `example`.
    pub fn parse<'b, T: Deserialize<'b>>(&'b self, example: &str) -> ApiResult<T> {
        // Tracking the path costs time for every member, so only an invalid body is parsed again with it.
        serde_json::from_str(&self.0).map(|Object(body)| body).map_err(|first| {
            let mut deserializer = serde_json::Deserializer::from_str(&self.0);
            match serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer) {
                Ok(_) => invalid_body(describe(&first)),
                Err(error) => {
                    let (pointer, mut detail) = (pointer(error.path()), describe(error.inner()));
                    if !self.0.trim_ascii_start().starts_with('{') {
                        detail = format!("{detail}. Example: {example}");
                    }
                    ApiError::invalid(FieldError::pointer(pointer, detail))
                }
            }
        })
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn invalid_body(detail: impl Display) -> ApiError {
    ApiError::invalid(FieldError::pointer("", detail.to_string()))
}
