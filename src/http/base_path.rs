//! The base path of a request, below which its client sees the service: `ANNALS_BASE_PATH`, or the header
//! `X-Forwarded-Prefix` of a proxy that is trusted. Every link of a response begins with it.
//!
//! A proxy may remove the base path from the requests that it forwards, or leave it: both are the same to the routes.

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri, header};

use crate::app::Settings;
use crate::wire::path::{self, BasePath};

/// The name of the header.
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

tokio::task_local! {
    static BASE_PATH: BasePath;
}

/// `X-Forwarded-Prefix` is not valid. The middleware refuses the request.
#[derive(Clone)]
pub struct InvalidForwardedPrefix;

/// What a request is for.
pub enum Target {
    /// A route. The request has its path without the base path.
    Route,
    /// The base path itself, without a slash at the end. The relative links of its page would lead elsewhere.
    Redirect(HeaderValue),
}

/// Returns the base path of the request that the current task handles.
pub fn current() -> BasePath {
    BASE_PATH.try_with(Clone::clone).unwrap_or_default()
}

/// Handles a request with this base path.
pub async fn scope<F: Future>(base: BasePath, handled: F) -> F::Output {
    if base.is_empty() { handled.await } else { BASE_PATH.scope(base, handled).await }
}

/// Runs a function that writes a response below this base path.
pub fn sync_scope<T>(base: BasePath, write: impl FnOnce() -> T) -> T {
    BASE_PATH.sync_scope(base, write)
}

/// Formats a link below the base path, with parameters.
pub fn link(path: &str, parameters: &[(&str, String)]) -> String {
    format!("{}{}", current(), path::link(path, parameters))
}

/// Removes the base path from the path of a request. Returns it, and what the request is for.
pub fn take<B>(request: &mut Request<B>, settings: &Settings) -> (BasePath, Target) {
    let base = forwarded(request, settings).unwrap_or_else(|| settings.base_path.clone());
    let uri = request.uri();
    let rest = if base.is_empty() { None } else { base.strip(uri.path()) };
    let Some(rest) = rest else { return (base, Target::Route) };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if rest.is_empty() {
        let location = HeaderValue::try_from(format!("{base}/{query}"));
        return (base, location.map_or(Target::Route, Target::Redirect));
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("{rest}{query}")).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    (base, Target::Route)
}

/// Returns the prefix that a proxy has sent, if proxies are trusted. Of several prefixes the first one is the client's.
fn forwarded<B>(request: &mut Request<B>, settings: &Settings) -> Option<BasePath> {
    if !settings.trusts_forwarded_prefix {
        return None;
    }
    let value = request.headers().get(FORWARDED_PREFIX)?;
    let first = value.to_str().ok().and_then(|value| value.split(',').next());
    let parsed = first.and_then(|first| {
        let path = first.trim();
        path.strip_suffix('/').unwrap_or(path).parse().ok()
    });
    if parsed.is_none() {
        request.extensions_mut().insert(InvalidForwardedPrefix);
    }
    parsed
}

/// Returns the response that redirects to the page of the base path.
pub fn redirect<B: Default>(location: HeaderValue) -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    response
}
