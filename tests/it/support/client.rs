//! No promise: a client that checks the rules that every response obeys, in addition to what the test asserts.

use annals::http::problem::code::Code;
use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// The headers that a response may have. A new header must be added here.
const HEADERS: &[&str] = &[
    "access-control-allow-origin",
    "access-control-expose-headers",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "etag",
    "idempotent-replayed",
    "link",
    "location",
    "preference-applied",
    "referrer-policy",
    "retry-after",
    "transfer-encoding",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
    "x-request-id",
];

#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    request: reqwest::RequestBuilder,
    path: String,
}

impl Call {
    pub(super) fn new(request: reqwest::RequestBuilder, path: &str) -> Self {
        Self { request, path: path.to_owned() }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.body(body), ..self }
    }

    /// Sets the expected version.
    pub fn if_match(self, version: u64) -> Self {
        self.header("if-match", &format!("\"{version}\""))
    }

    /// Sends the request. Returns the response before its body is read.
    pub async fn open(self) -> reqwest::Response {
        self.request.send().await.unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    pub async fn send(self) -> Reply {
        let response = self.request.send().await.unwrap_or_else(|error| panic!("{}: {error}", self.path));
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{}: {error}", self.path));
        let reply = Reply { status, headers, body };
        reply.check(&self.path);
        reply
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header value of visible characters"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Expects a problem with this status and code. Returns the problem.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        problem
    }

    /// Expects `invalid_request` with a first error at this place: `{"pointer": …}`, `{"header": …}` and so on.
    #[track_caller]
    pub fn expect_invalid(self, kind: &str, place: &str) {
        let problem = self.expect_problem(400, "invalid_request");
        assert_eq!(problem["errors"][0][kind], place, "{problem}");
    }

    /// Returns the lines of an NDJSON response.
    pub fn lines(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("application/x-ndjson"));
        self.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Returns the `version` members of the events of a page.
    pub fn versions(&self) -> Vec<u64> {
        let page = self.json();
        let events = page["events"].as_array().expect("events").clone();
        events.iter().map(|event| event["version"].as_u64().expect("a version")).collect()
    }

    #[track_caller]
    pub(super) fn check(&self, path: &str) {
        // A package provides the pages of Swagger UI.
        if path.starts_with("/docs") {
            return;
        }
        for name in self.headers.keys() {
            assert!(
                HEADERS.contains(&name.as_str()),
                "the response of {path} has the header {name}, which is not in the list"
            );
        }
        let request_id = self.header("x-request-id").expect("every response has a request id");
        if self.status == 503 {
            assert!(self.header("retry-after").is_some(), "{path} responds with 503 and without Retry-After");
        }
        if self.status < 400 || path.starts_with("/readyz") && self.status == 503 || self.body.is_empty() {
            return;
        }
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{path}: {}", self.text());
        let problem = self.json();
        let code = problem["code"].as_str().expect("a problem has a code");
        assert!(Code::parse(code).is_some(), "{path} responds with the unknown code {code}");
        // A service with a base path has it before.
        let page = problem["type"].as_str().expect("a problem has a type");
        assert!(page.ends_with(&format!("/problems/{code}")), "{path}: {page}");
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["instance"], request_id);
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{path}: {member} of {problem}");
        }
    }
}
