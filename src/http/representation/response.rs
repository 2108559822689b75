//! Responses that several routes have in common.

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::http::cache::{NO_CACHE, SINGLE_EVENT};
use crate::http::media_type::JSON;
use crate::http::problem::error::{ApiError, ApiResult};

/// Returns a JSON document that a cache must validate.
pub fn json(document: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, NO_CACHE)], Json(document)).into_response()
}

/// Returns one event, given as JSON.
pub fn single_event(event: Vec<u8>) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(JSON)), (header::CACHE_CONTROL, SINGLE_EVENT)];
    (headers, event).into_response()
}

/// Returns the response if it needs no body: the client has this version already, or requests the headers only.
pub fn without_body(method: &Method, is_unchanged: bool, headers: &HeaderMap) -> Option<Response> {
    if is_unchanged {
        let mut headers = headers.clone();
        headers.remove(header::CONTENT_TYPE);
        return Some((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    // The length of this body is unknown, so no Content-Length says that the page is empty (RFC 9110, section 8.6).
    let unknown_body = || Body::from_stream(stream::empty::<Result<Bytes, Infallible>>());
    (*method == Method::HEAD).then(|| (headers.clone(), unknown_body()).into_response())
}

/// Returns the text of a stored document as JSON that a response includes unchanged.
pub fn stored_json(document: String) -> ApiResult<Box<RawValue>> {
    RawValue::from_string(document)
        .map_err(|error| ApiError::internal(format!("a stored document is not JSON: {error}")))
}
