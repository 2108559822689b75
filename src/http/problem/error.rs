//! The error of a request, and the problem document that it becomes.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::http::base_path;
use crate::http::cache::NO_STORE;
use crate::http::media_type::PROBLEM_JSON;
use crate::http::problem::code::Code;
use crate::http::problem::field_error::FieldError;

/// The result of a handler or an extractor.
pub type ApiResult<T> = Result<T, ApiError>;

/// The error of a request. The problem is boxed, because it is large and rare.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Problem>);

/// A problem document, and the data that the middleware needs to log and send it.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Code,
    pub status: StatusCode,
    pub detail: String,
    /// An event of the log is missing: the middleware counts the problem.
    pub is_missing_event: bool,
    /// For operators: logged, and not sent.
    cause: Option<String>,
    /// Members beside those that every problem has.
    members: Vec<(&'static str, Box<RawValue>)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// Creates an error with the status of its code. A 503 has `Retry-After: 1`.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = code.status();
        let mut headers = Vec::new();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.push((header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        Self(Box::new(Problem {
            code,
            status,
            detail: detail.into(),
            is_missing_event: false,
            cause: None,
            members: Vec::new(),
            headers,
        }))
    }

    /// Creates the error for a fault of the request.
    pub fn invalid(error: FieldError) -> Self {
        Self::new(Code::InvalidRequest, error.sentence()).with("errors", &[error])
    }

    /// Creates the error for a fault in the body.
    pub fn invalid_member(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(FieldError::pointer(pointer, detail))
    }

    /// Fails unless a number in the body is in a range.
    pub fn check_range(pointer: impl Into<String>, number: i64, min: i64, max: i64) -> Result<(), Self> {
        if (min..=max).contains(&number) {
            return Ok(());
        }
        Err(Self::invalid_member(pointer, format!("must be from {min} to {max}")))
    }

    /// Replaces the status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds a member.
    pub fn with(self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Self {
        self.with_raw(name, to_raw_value(value).expect("members of problems are plain data"))
    }

    /// Adds a member that is JSON text.
    pub fn with_raw(mut self, name: &'static str, value: Box<RawValue>) -> Self {
        self.0.members.push((name, value));
        self
    }

    /// Adds a header to the response.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Adds the cause, which is logged and not sent.
    pub fn with_cause(mut self, cause: impl ToString) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// Marks the error as a report of a missing event.
    pub fn mark_missing_event(mut self) -> Self {
        self.0.is_missing_event = true;
        self
    }

    /// Returns the problem.
    pub fn problem(&self) -> &Problem {
        &self.0
    }

    /// Returns the problem, and consumes the error.
    pub fn into_problem(self) -> Problem {
        *self.0
    }
}

impl Problem {
    /// Returns the cause for the log.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Writes the document into a response, with the id of the request as `instance`.
    pub fn write_to(&self, response: &mut Response, request_id: &str) {
        *response.status_mut() = self.status;
        let body = self.to_json(request_id);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        *response.body_mut() = Body::from(body);
    }

    /// Returns the document, with the id of the request as `instance`.
    pub fn to_json(&self, instance: &str) -> Vec<u8> {
        serde_json::to_vec(&Document { problem: self, instance }).expect("a problem is plain data")
    }
}

struct Document<'p> {
    problem: &'p Problem,
    instance: &'p str,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Problem { code, status, detail, members, .. } = self.problem;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format!("{}/problems/{}", base_path::current(), code.as_str()))?;
        map.serialize_entry("title", code.title())?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("instance", self.instance)?;
        map.serialize_entry("code", code.as_str())?;
        for (name, value) in members {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Puts the problem into the extensions of the response. The middleware writes the body, because it knows the request
/// id.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.into_problem();
        let mut response = problem.status.into_response();
        for (name, value) in &problem.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response.extensions_mut().insert(problem);
        response
    }
}
