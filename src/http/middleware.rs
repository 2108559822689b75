//! Around every request: its id, its time, one line in the log, and the one place where problems become bodies.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::problem::{Code, Problem};
use crate::app::App;

/// The id of the request at hand: the client's, or one that was made for it.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_CHARS_MAX: usize = 128;
pub const PROBLEM_JSON: &str = "application/problem+json";

pub async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&app, &request);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    if !matches!(method, Method::GET | Method::HEAD) {
        // The compression refuses a coding only when the answer is there: nothing may have been written then.
        request.headers_mut().remove(header::ACCEPT_ENCODING);
    }

    // What is logged on the way carries the id too.
    let span = tracing::info_span!("request", request_id = id, trace_id = trace_id(&request));
    let mut response = next.run(request).instrument(span).await;
    let code = finish_problem(&mut response, &id);
    if let Ok(id) = HeaderValue::try_from(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }

    let elapsed = started.elapsed();
    let status = response.status();
    app.metrics
        .http_request_duration_seconds
        .with_label_values(&[method_label(&method), &route, status.as_str()])
        .observe(elapsed.as_secs_f64());
    let elapsed_ms = elapsed.as_micros() as f64 / 1_000.0;
    let code = code.map_or("", Code::as_str);
    if status.is_server_error() {
        tracing::warn!(%method, path, status = status.as_u16(), code, elapsed_ms, request_id = id, "request");
    } else {
        tracing::info!(%method, path, status = status.as_u16(), code, elapsed_ms, request_id = id, "request");
    }
    response
}

/// On a connection beyond the limit: who watches over the service gets an answer, everybody else is to come back.
pub async fn when_full(request: Request, next: Next) -> Response {
    let watches = matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics");
    if watches || request.extensions().get::<BeyondLimit>().is_none() {
        return next.run(request).await;
    }
    Problem::new(Code::Overloaded, "as many connections are open as there may be; nothing was written").into_response()
}

/// Said of a request whose connection is one too many.
#[derive(Debug, Clone, Copy)]
pub struct BeyondLimit;

/// The trace that a caller says this request belongs to (W3C Trace Context): logged, and not stored.
fn trace_id(request: &Request) -> Option<String> {
    let value = request.headers().get("traceparent")?.to_str().ok()?;
    let trace_id = value.split('-').nth(1)?;
    let hexadecimal = trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| trace_id.to_owned())
}

/// The client's id, where it is fit to be logged and echoed; else a new one.
fn request_id(app: &App, request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let fit =
        |id: &&str| (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(fit).map_or_else(|| app.new_event_id().to_string(), str::to_owned)
}

/// Writes the body of a problem, or makes one of an error that has no body of ours: no route, or no such method.
fn finish_problem(response: &mut Response, id: &str) -> Option<Code> {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => Box::new(problem),
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Code::MethodNotAllowed, "the header Allow lists the methods of this path")
        }
        None if response.status() == StatusCode::NOT_FOUND => {
            Problem::new(Code::RouteNotFound, "no route has this path; /docs lists them")
        }
        // Said by the compression, of an answer to GET or HEAD.
        None if response.status() == StatusCode::NOT_ACCEPTABLE => {
            Problem::new(Code::NotAcceptable, "Accept-Encoding forbids every coding, and identity too")
        }
        None => return None,
    };
    *response.status_mut() = problem.status;
    let body = problem.body(id);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(body);
    Some(problem.code)
}

/// A panic in a handler is a defect, and answers as one.
pub fn on_panic(panic: Box<dyn std::any::Any + Send>) -> Response {
    let panic = AssertUnwindSafe(panic);
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = message.unwrap_or("no message"), "a handler panicked");
    Problem::new(Code::Internal, "an unexpected error; the log has it under this request's id").into_response()
}

/// Methods that anybody may invent do not become label values.
fn method_label(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE | Method::OPTIONS | Method::PATCH => {
            method.as_str()
        }
        _ => "other",
    }
}
