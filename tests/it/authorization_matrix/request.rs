//! No promise: a request of the matrix, and the ways in which it is sent.

use serde_json::Value;

use super::rules::Needs;
use crate::support::{Call, Reply, TestApp, send_raw, within_a_minute};

/// The bytes of an event stream that are read at most.
const STREAM_BYTES_MAX: usize = 256 * 1024;

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// By an HTTP client, which keeps its connections.
    Client,
    /// The same for an event stream. It is read until it has caught up, and closed.
    EventStream,
    /// As bytes on a connection of its own, because an HTTP client would change the path.
    Raw,
}

/// A request, what it needs, and what its response has.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: &'static str,
    /// The path of the operation in the OpenAPI document; `None` if the document does not have it.
    pub operation: Option<&'static str>,
    /// The path and the query. `{case}` is the number of the case.
    pub path: String,
    pub headers: Vec<(&'static str, &'static str)>,
    /// JSON; `{case}` is the number of the case.
    pub body: Option<String>,
    pub transport: Transport,
    pub needs: Needs,
    /// The statuses of the response if the request is admitted.
    pub outcomes: &'static [u16],
    /// The types whose data the response contains, if the key may read them.
    pub shows: Vec<&'static str>,
    /// The same request for a resource that does not exist.
    twin: Option<Twin>,
}

#[derive(Debug, Clone)]
struct Twin {
    path: String,
    /// The names of both resources, as errors show them.
    names: [String; 2],
}

impl Request {
    pub fn new(method: &'static str, path: impl Into<String>, needs: Needs, outcomes: &'static [u16]) -> Self {
        Self {
            method,
            operation: None,
            path: path.into(),
            headers: Vec::new(),
            body: None,
            transport: Transport::Client,
            needs,
            outcomes,
            shows: Vec::new(),
            twin: None,
        }
    }

    /// Sets the operation of the OpenAPI document to which the request belongs.
    pub fn for_operation(self, operation: &'static str) -> Self {
        Self { operation: Some(operation), ..self }
    }

    pub fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn with_body(self, body: &Value) -> Self {
        Self { body: Some(body.to_string()), ..self }
    }

    /// Sets the types whose data the response contains, if the key may read them.
    pub fn showing(self, types: impl IntoIterator<Item = &'static str>) -> Self {
        Self { shows: types.into_iter().collect(), ..self }
    }

    /// Sets the same request for a resource that does not exist, and the names of both resources.
    pub fn with_twin(self, path: impl Into<String>, name: impl Into<String>, missing: impl Into<String>) -> Self {
        Self { twin: Some(Twin { path: path.into(), names: [name.into(), missing.into()] }), ..self }
    }

    pub fn over(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    /// Returns the request with GET and with HEAD.
    pub fn with_head(self) -> [Self; 2] {
        [Self { method: "HEAD", ..self.clone() }, self]
    }

    /// Returns the same request for a resource that does not exist, and the names of both resources.
    pub fn twin(&self) -> Option<(Self, &[String; 2])> {
        let Twin { path, names } = self.twin.as_ref()?;
        let body = self.body.as_ref().map(|body| body.replace(&names[0], &names[1]));
        Some((Self { path: path.clone(), body, twin: None, ..self.clone() }, names))
    }

    /// Sends the request. `authorization` has the values of the header `Authorization`.
    pub async fn send(&self, app: &TestApp, authorization: &[String], case: usize) -> Reply {
        let of_case = |text: &String| text.replace("{case}", &case.to_string());
        let (path, body) = (of_case(&self.path), self.body.as_ref().map(of_case));
        if self.transport == Transport::Raw {
            return send_raw(app, self.to_bytes(&path, body.as_deref(), authorization).as_bytes()).await;
        }
        let mut call = app.call(self.method, &path);
        for value in authorization {
            call = call.header("authorization", value);
        }
        for (name, value) in &self.headers {
            call = call.header(name, value);
        }
        if let Some(body) = body {
            call = call.header("content-type", "application/json").body(body);
        }
        if self.transport == Transport::EventStream { read_until_caught_up(call).await } else { call.send().await }
    }

    fn to_bytes(&self, path: &str, body: Option<&str>, authorization: &[String]) -> String {
        let mut head = format!("{} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", self.method);
        for value in authorization {
            head += &format!("authorization: {value}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        format!("{head}\r\n{}", body.unwrap_or_default())
    }
}

/// Reads a response. If it is an event stream, reads it until it has caught up with the log, and closes it.
async fn read_until_caught_up(call: Call) -> Reply {
    const CAUGHT_UP: &[u8] = b"event: caught-up";
    let mut response = call.header("accept", "text/event-stream").open().await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body: Vec<u8> = Vec::new();
    let has_caught_up = |body: &[u8]| body.windows(CAUGHT_UP.len()).any(|window| window == CAUGHT_UP);
    while body.len() < STREAM_BYTES_MAX && !has_caught_up(&body) {
        match within_a_minute("the next chunk", response.chunk()).await.expect("a chunk") {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    Reply { status, headers, body: body.into() }
}
