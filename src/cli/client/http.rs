//! The HTTP client of the commands.
//!
//! reqwest with rustls is in the program already, for archives in clouds, so that https costs no further library.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::time::timeout;

use crate::cli::client::failure::{Failure, Kind};
use crate::cli::client::problem::{CallError, Problem};
use crate::config::client::ClientArgs;

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const EVENT_STREAM: &str = "text/event-stream";
const PROBLEM: &str = "application/problem+json";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence before and within a response. An event stream has a comment every 15 seconds.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The same for lines: a filter may match nothing for long while the service reads archived months.
pub const LINES_SILENCE_MAX: Duration = Duration::from_secs(600);

/// The longest pause that a service can ask for, in seconds.
const RETRY_AFTER_SECONDS_MAX: u64 = 3_600;

/// A client of one service.
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// Returns whether a URL names this machine.
fn is_loopback(base: &str) -> bool {
    let host = reqwest::Url::parse(base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Client {
    /// Creates a client with the settings of a command.
    pub fn new(args: &ClientArgs) -> Result<Self, Failure> {
        let base = args.base_url()?;
        let mut headers = HeaderMap::new();
        if let Some(key) = args.key() {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
                Failure::new(Kind::Usage, "ANNALS_KEY must be an API key, which consists of ASCII characters")
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // reqwest has no cryptography of its own. An error means that a provider is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .user_agent(concat!("annals/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if base.starts_with("http://") {
            // Without this, a machine without CA certificates could not connect without TLS either.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        if is_loopback(&base) {
            // A proxy of the environment could not reach this machine, and would receive the key.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| {
            Failure::new(Kind::Other, format!("the HTTP client cannot start: {}", innermost(&error)))
        })?;
        Ok(Self { http, base })
    }

    /// Requests a path, with its query, in a representation. Returns the response before its body is read.
    pub async fn open(&self, path: &str, accept: &'static str) -> Result<Response, CallError> {
        self.send(self.http.get(self.url(path)), accept).await
    }

    /// Requests a path, and returns the JSON.
    pub async fn get(&self, path: &str) -> Result<Bytes, CallError> {
        self.body(self.open(path, JSON).await?).await
    }

    /// Posts JSON with further headers. Returns the response and its body.
    pub async fn post(&self, path: &str, headers: HeaderMap, body: String) -> Result<(StatusCode, Bytes), CallError> {
        let request = self.http.post(self.url(path)).headers(headers).header(CONTENT_TYPE, JSON).body(body);
        let response = self.send(request, JSON).await?;
        Ok((response.status(), self.body(response).await?))
    }

    /// Puts JSON, and returns the JSON of the response.
    pub async fn put(&self, path: &str, body: String) -> Result<Bytes, CallError> {
        let request = self.http.put(self.url(path)).header(CONTENT_TYPE, JSON).body(body);
        self.body(self.send(request, JSON).await?).await
    }

    /// Waits for the next part of a body; `None` at its end. Fails if the service is silent for too long.
    pub async fn next_chunk(&self, response: &mut Response, silence: Duration) -> Result<Option<Bytes>, CallError> {
        match timeout(silence, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.unreachable(&format!("the response was cut short ({})", innermost(&error)))),
            Err(_) => Err(self.silent(silence)),
        }
    }

    /// Returns the error for a body that ended too early, or has another form than expected.
    pub fn cut_short(&self) -> CallError {
        self.unreachable("the response was cut short")
    }

    /// Returns the error for a response that Annals does not send.
    pub fn foreign(&self, what: &str) -> CallError {
        CallError::Foreign(format!("{}: {what}. Set ANNALS_URL to the address of an Annals service", self.base))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn unreachable(&self, what: &str) -> CallError {
        CallError::Unreachable(format!("{}: {what}", self.base))
    }

    fn silent(&self, silence: Duration) -> CallError {
        self.unreachable(&format!("the service did not respond within {} s", silence.as_secs()))
    }

    async fn send(&self, request: RequestBuilder, accept: &'static str) -> Result<Response, CallError> {
        let response = match timeout(SILENCE_MAX, request.header(ACCEPT, accept).send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let remedy = ". Start the service, or set ANNALS_URL to its address";
                let remedy = if error.is_connect() { remedy } else { "" };
                return Err(self.unreachable(&format!("{}{remedy}", innermost(&error))));
            }
            Err(_) => return Err(self.silent(SILENCE_MAX)),
        };
        let (status, media_type) = (response.status(), media_type(&response));
        if status.is_success() && media_type == accept {
            return Ok(response);
        }
        if media_type != PROBLEM {
            let what = format!("it responded with status {} and {media_type}", status.as_u16());
            // A proxy responds so while the service is unavailable.
            return Err(match status.as_u16() {
                502..=504 => self.unreachable(&what),
                _ => self.foreign(&what),
            });
        }
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.body(response).await?;
        let mut problem: Problem =
            serde_json::from_slice(&body).map_err(|_| self.foreign("it responded with an unknown kind of problem"))?;
        problem.retry_after = seconds.map(|seconds: u64| Duration::from_secs(seconds.min(RETRY_AFTER_SECONDS_MAX)));
        Err(CallError::Problem(Box::new(problem)))
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, CallError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.next_chunk(&mut response, SILENCE_MAX).await? {
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }
}

/// Returns the media type of a response without parameters.
fn media_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no media type");
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Returns the text of the last error of a chain. The errors before it only say that a request failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut error: &dyn Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
