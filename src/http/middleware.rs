//! The layer around every request. From the outside in, it handles the request id and the duration, compression,
//! panics, the host of the request, and the limit of connections.
//!
//! It writes the bodies of problems, and logs each request; see [`crate::http::request_log`].
//!
//! All of this is one layer, because the router boxes each of its layers and clones the boxes for every request.

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
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::app::App;
use crate::http::base_path::InvalidForwardedPrefix;
use crate::http::caller::AuthenticatedKeyId;
use crate::http::erasure_guard::{guarded, may_return_content};
use crate::http::host::check_host;
use crate::http::lingering_body::linger;
use crate::http::missing_events::report_missing_event;
use crate::http::problem::code::Code;
use crate::http::problem::error::{ApiError, ApiResult, Problem};
use crate::http::problem::field_error::FieldError;
use crate::http::request_id::{REQUEST_ID, RequestId};
use crate::http::request_log::{RequestLog, logged_detail};
use crate::http::routing_hints::{RouteMethods, method_not_allowed, route_not_found};
use crate::wire::path::InvalidBasePath;

/// Marks the requests of a connection that has a spare seat or no seat.
#[derive(Debug, Clone, Copy)]
pub struct OverConnectionLimit;

/// A route with this layer around it.
#[derive(Clone)]
pub struct Observe<S> {
    app: Arc<App>,
    methods: Arc<RouteMethods>,
    request_log: Arc<RequestLog>,
    inner: S,
}

impl<S> Observe<S> {
    /// Wraps a route.
    pub fn new(app: Arc<App>, methods: Arc<RouteMethods>, request_log: Arc<RequestLog>, inner: S) -> Self {
        Self { app, methods, request_log, inner }
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
        let observed = ObservedRequest::new(self, &request);
        let codings = AcceptedCodings::from_request(&request);
        request.extensions_mut().insert(observed.id.clone());
        let request = linger(request, observed.body_deadline());
        let mark = may_return_content(&request).then(|| self.app.feed.read_mark());
        let handled = admit(&self.app, &request).map(|()| self.inner.call(request));
        Box::pin(async move {
            let response = match handled {
                Ok(handled) => {
                    let handled = AssertUnwindSafe(handled).catch_unwind().map(|handled| {
                        handled.unwrap_or_else(|panic| Ok(ApiError::internal(panic_message(&*panic)).into_response()))
                    });
                    match mark {
                        Some(mark) => guarded(mark, handled).await?,
                        None => handled.await?,
                    }
                }
                Err(refusal) => refusal.into_response(),
            };
            Ok(observed.finish(codings.compress(response).await))
        })
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a handler panicked: {}", message.unwrap_or("no message"))
}

/// Fails if a request is refused before its route receives it: because of its host, or because its connection is above
/// the limit. Above the limit of connections, only probes and metrics are served.
fn admit(app: &App, request: &Request) -> ApiResult<()> {
    check_host(&app.settings, request)?;
    if request.extensions().get::<InvalidForwardedPrefix>().is_some() {
        return Err(ApiError::invalid(FieldError::header("X-Forwarded-Prefix", InvalidBasePath.to_string())));
    }
    let is_monitoring = || matches!(request.uri().path(), "/livez" | "/readyz" | "/metrics");
    if request.extensions().get::<OverConnectionLimit>().is_some() && !is_monitoring() {
        let detail = "the connections are at their limit, or the client has its share of them; nothing was written";
        return Err(ApiError::new(Code::Overloaded, detail));
    }
    Ok(())
}

/// The parts of a request that are needed when its response is complete.
struct ObservedRequest {
    app: Arc<App>,
    methods: Arc<RouteMethods>,
    request_log: Arc<RequestLog>,
    started: Instant,
    id: RequestId,
    method: Method,
    uri: Uri,
    route: Option<MatchedPath>,
    traceparent: Option<HeaderValue>,
}

impl ObservedRequest {
    fn new<S>(layer: &Observe<S>, request: &Request) -> Self {
        let app = &layer.app;
        Self {
            app: app.clone(),
            methods: layer.methods.clone(),
            request_log: layer.request_log.clone(),
            started: Instant::now(),
            id: RequestId::from_headers(request.headers(), || app.new_event_id()),
            method: request.method().clone(),
            uri: request.uri().clone(),
            route: request.extensions().get().cloned(),
            traceparent: request.headers().get("traceparent").cloned(),
        }
    }

    /// Returns the template of the route.
    fn route(&self) -> &str {
        self.route.as_ref().map_or("none", MatchedPath::as_str)
    }

    /// Returns the time at which the body must have arrived.
    fn body_deadline(&self) -> tokio::time::Instant {
        (self.started + self.app.settings.clients.body).into()
    }

    /// Counts the request, logs it, and completes the response.
    fn finish(self, mut response: Response) -> Response {
        let problem = self.take_problem(&mut response);
        if let Some(problem) = &problem {
            if problem.is_missing_event {
                report_missing_event(&self.app.metrics, problem.cause().unwrap_or_default());
            }
            problem.write_to(&mut response, self.id.as_str());
        }
        let elapsed = self.started.elapsed();
        self.app
            .metrics
            .http_request_duration_seconds
            .with_label_values(&[method_label(&self.method), self.route(), response.status().as_str()])
            .observe(elapsed.as_secs_f64());

        let key_id = response.extensions_mut().remove::<AuthenticatedKeyId>();
        let is_refused = response.status().is_client_error();
        let left_out = if is_refused { self.request_log.admit() } else { Some(0) };
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    method = %self.method,
                    path = self.uri.path(),
                    status = response.status().as_u16(),
                    code = problem.as_ref().map(|problem| problem.code.as_str()),
                    detail = problem.as_ref().and_then(logged_detail),
                    cause = problem.as_ref().and_then(|problem| problem.cause()),
                    elapsed_ms = elapsed.as_micros() as f64 / 1_000.0,
                    request_id = self.id.as_str(),
                    trace_id = trace_id(self.traceparent.as_ref()),
                    key_id = key_id.as_ref().map(|key_id| key_id.0.as_str()),
                    left_out = left_out.filter(|lines| *lines > 0),
                    "request"
                )
            };
        }
        match response.status() {
            StatusCode::INTERNAL_SERVER_ERROR => log!(error),
            status if status.is_server_error() => log!(warn),
            _ if left_out.is_none() => {}
            status if status.is_client_error() => log!(info),
            _ => log!(debug),
        }
        response.headers_mut().insert(REQUEST_ID, self.id.into_header());
        response
    }

    /// Takes the problem out of a response. An error response of the router or of the compression has no problem, so
    /// one is created here.
    fn take_problem(&self, response: &mut Response) -> Option<Problem> {
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            return Some(problem);
        }
        let path = self.uri.path();
        let error = match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => method_not_allowed(&self.method, path, self.route(), &self.methods),
            StatusCode::NOT_FOUND => route_not_found(path),
            // The compression returns it for GET and HEAD.
            StatusCode::NOT_ACCEPTABLE => {
                let detail = "the header Accept-Encoding accepts none of the available codings: identity, gzip, zstd";
                ApiError::new(Code::NotAcceptable, detail)
            }
            _ => return None,
        };
        Some(error.into_problem())
    }
}

/// Returns the trace id of a request (W3C Trace Context). It is logged, and not stored.
fn trace_id(traceparent: Option<&HeaderValue>) -> Option<&str> {
    let trace_id = traceparent?.to_str().ok()?.split('-').nth(1)?;
    let hexadecimal = trace_id.len() == 32 && trace_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then_some(trace_id)
}

/// The codings that a client accepts for the response.
enum AcceptedCodings {
    /// The request writes, and its response is not compressed: the compression could refuse it (406) after the write.
    Ignored,
    Accepted(Vec<HeaderValue>),
}

impl AcceptedCodings {
    fn from_request(request: &Request) -> Self {
        match *request.method() {
            Method::GET | Method::HEAD => {
                Self::Accepted(request.headers().get_all(header::ACCEPT_ENCODING).iter().cloned().collect())
            }
            _ => Self::Ignored,
        }
    }

    /// Compresses a response that is large enough. Event streams are not compressed, because each event must be sent at
    /// once. Entity tags are the same in every coding, because they name a version of a stream.
    async fn compress(self, response: Response) -> Response {
        const MIN_BYTES: u64 = 1_024;
        let Self::Accepted(codings) = self else { return response };
        let mut request = Request::new(Body::empty());
        for coding in codings {
            request.headers_mut().append(header::ACCEPT_ENCODING, coding);
        }
        let predicate = SizeAbove::new(MIN_BYTES).and(NotForContentType::SSE);
        let mut response = Some(response);
        let respond = move |_: Request| ready(Ok::<_, Infallible>(response.take().expect("it is called once")));
        let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(predicate);
        let Ok(compressed) = compression.layer(service_fn(respond)).oneshot(request).await;
        compressed.map(Body::new)
    }
}

/// Returns the label of a method. A client can send any method, so unknown ones share a label.
fn method_label(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE | Method::OPTIONS | Method::PATCH => {
            method.as_str()
        }
        _ => "other",
    }
}
