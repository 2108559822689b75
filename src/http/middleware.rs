//! Around every request, from the outside in: its id and its time, compression for those who ask, panics, the limit of
//! connections. Here is the one place where problems become bodies, and where a request becomes a line of the log: at
//! `debug`, and a refused or failed one at `info`, `warn` or `error`.
//!
//! All of it is one layer: the router keeps each of its layers in a box, and clones the boxes for every request.

use std::any::Any;
use std::convert::Infallible;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use super::problem::{Code, Problem};
use crate::app::App;

/// The id of the request at hand: the client's, or one that was made for it.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

/// Says which key a request was answered to, for the log.
#[derive(Debug, Clone)]
pub struct AnsweredTo(pub String);

/// Said of a request whose connection is one too many.
#[derive(Debug, Clone, Copy)]
pub struct BeyondLimit;

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_CHARS_MAX: usize = 128;
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A route, observed.
#[derive(Clone)]
pub struct Observe<S> {
    app: Arc<App>,
    inner: S,
}

impl<S> Observe<S> {
    pub fn new(app: Arc<App>, inner: S) -> Self {
        Self { app, inner }
    }
}

impl<S> Service<Request> for Observe<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let observed = Observed::of(&self.app, &request);
        let codings = Codings::of(&request);
        request.extensions_mut().insert(observed.id.clone());
        let answering = if is_turned_away(&request) { None } else { Some(self.inner.call(request)) };
        Box::pin(async move {
            let response = match answering {
                Some(answering) => AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|panic| {
                    Ok(Problem::new(Code::Internal, UNEXPECTED).because(told(&*panic)).into_response())
                })?,
                None => Problem::new(Code::Overloaded, TOO_MANY_CONNECTIONS).into_response(),
            };
            Ok(observed.finish(codings.compress(response).await))
        })
    }
}

const UNEXPECTED: &str = "an unexpected error; the log has it under this request's id";
const TOO_MANY_CONNECTIONS: &str = "as many connections are open as there may be; nothing was written";

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a handler panicked: {}", message.unwrap_or("no message"))
}

/// On a connection beyond the limit who watches over the service gets an answer, and everybody else is to come back.
fn is_turned_away(request: &Request) -> bool {
    let watches = || matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics");
    request.extensions().get::<BeyondLimit>().is_some() && !watches()
}

/// A request, as it is remembered until it is answered.
struct Observed {
    app: Arc<App>,
    started: Instant,
    id: RequestId,
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
    traceparent: Option<HeaderValue>,
}

impl Observed {
    fn of(app: &Arc<App>, request: &Request) -> Self {
        Self {
            app: app.clone(),
            started: Instant::now(),
            id: RequestId::of(app, request.headers()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get().cloned(),
            traceparent: request.headers().get("traceparent").cloned(),
        }
    }

    /// Counts the request, logs it, and completes its answer.
    fn finish(self, mut response: Response) -> Response {
        let problem = take_problem(&mut response);
        if let Some(problem) = &problem {
            write_problem(&mut response, problem, self.id.as_str());
        }
        let elapsed = self.started.elapsed();
        let route = self.route.as_ref().map_or("none", MatchedPath::as_str);
        self.app
            .metrics
            .http_request_duration_seconds
            .with_label_values(&[method_label(&self.method), route, response.status().as_str()])
            .observe(elapsed.as_secs_f64());

        let answered_to = response.extensions_mut().remove::<AnsweredTo>();
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    method = %self.method,
                    path = self.uri.path(),
                    status = response.status().as_u16(),
                    code = problem.as_ref().map(|problem| problem.code.as_str()),
                    cause = problem.as_ref().and_then(|problem| problem.cause()),
                    elapsed_ms = elapsed.as_micros() as f64 / 1_000.0,
                    request_id = self.id.as_str(),
                    trace_id = trace_id(self.traceparent.as_ref()),
                    key_id = answered_to.as_ref().map(|key| key.0.as_str()),
                    "request"
                )
            };
        }
        match response.status() {
            StatusCode::INTERNAL_SERVER_ERROR => log!(error),
            status if status.is_server_error() => log!(warn),
            status if status.is_client_error() => log!(info),
            _ => log!(debug),
        }
        response.headers_mut().insert(REQUEST_ID, self.id.0);
        response
    }
}

impl RequestId {
    /// The client's id, where it is fit to be logged and echoed; else a new one.
    fn of(app: &App, headers: &HeaderMap) -> Self {
        let fit = |id: &&HeaderValue| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let made = || {
            let mut buffer = uuid::Uuid::encode_buffer();
            let id = app.new_event_id().hyphenated().encode_lower(&mut buffer);
            HeaderValue::from_str(id).expect("a UUID is a header value")
        };
        Self(headers.get(REQUEST_ID).filter(fit).cloned().unwrap_or_else(made))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("it is made of visible ASCII")
    }
}

/// The trace that a caller says this request belongs to (W3C Trace Context): logged, and not stored.
fn trace_id(traceparent: Option<&HeaderValue>) -> Option<&str> {
    let trace_id = traceparent?.to_str().ok()?.split('-').nth(1)?;
    let hexadecimal = trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then_some(trace_id)
}

/// The problem that a response is, or one for an error that has no body of ours: no route, or no such method.
fn take_problem(response: &mut Response) -> Option<Box<Problem>> {
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) => Some(Box::new(problem)),
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            Some(Problem::new(Code::MethodNotAllowed, "the header Allow lists the methods of this path"))
        }
        None if response.status() == StatusCode::NOT_FOUND => {
            Some(Problem::new(Code::RouteNotFound, "no route has this path; /docs lists them"))
        }
        // Said by the compression, of an answer to GET or HEAD.
        None if response.status() == StatusCode::NOT_ACCEPTABLE => {
            Some(Problem::new(Code::NotAcceptable, "Accept-Encoding forbids every coding, and identity too"))
        }
        None => None,
    }
}

fn write_problem(response: &mut Response, problem: &Problem, id: &str) {
    *response.status_mut() = problem.status;
    let body = problem.body(id);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(body);
}

/// What a request says of the codings of its answer.
enum Codings {
    /// It writes. The compression refuses a coding only when the answer is there: nothing may have been written then.
    NotAsked,
    Accepted(Vec<HeaderValue>),
}

impl Codings {
    fn of(request: &Request) -> Self {
        match *request.method() {
            Method::GET | Method::HEAD => {
                Self::Accepted(request.headers().get_all(header::ACCEPT_ENCODING).iter().cloned().collect())
            }
            _ => Self::NotAsked,
        }
    }

    /// Compresses what is worth it. Not event streams, which must arrive at once. Tags stay as they are: they name a version
    /// of a stream, in whatever coding it is sent.
    async fn compress(self, response: Response) -> Response {
        const WORTH_IT_BYTES: u64 = 1_024;
        let Self::Accepted(codings) = self else { return response };
        let mut request = Request::new(Body::empty());
        for coding in codings {
            request.headers_mut().append(header::ACCEPT_ENCODING, coding);
        }
        let worth_it = SizeAbove::new(WORTH_IT_BYTES).and(NotForContentType::SSE);
        let mut response = Some(response);
        let answer = move |_: Request| ready(Ok::<_, Infallible>(response.take().expect("it is asked for once")));
        let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it);
        let Ok(compressed) = compression.layer(service_fn(answer)).oneshot(request).await;
        compressed.map(Body::new)
    }
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
