//! Requests with an API key, over connections that outlive refusals and failures.

use std::time::Duration;

use crate::load;
use crate::load::Client;

/// The outcome of a request whose connection failed.
pub const CONNECTION_FAILED: &str = "connection failed";
/// The outcome of a request without a response in [`RESPONSE_TIMEOUT`].
pub const NO_RESPONSE: &str = "no response";
/// The longest wait for a response. It is longer than the longest wait that a request may ask for, which is 60 s.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(75);

/// An API key, and the requests that carry it.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// Wraps the text of a key.
    pub fn new(key: String) -> Self {
        Self(key)
    }

    /// Returns a request that reads.
    pub fn get(&self, target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", self.authorization())
    }

    /// Returns a request that stores a JSON document.
    pub fn put(&self, target: &str, body: &str) -> String {
        format!("PUT {target} HTTP/1.1\r\nHost: localhost\r\n{}{}", self.authorization(), load::json_body(body))
    }

    /// Returns a request that appends to a stream, without a precondition.
    pub fn append(&self, stream: &str, body: &str) -> String {
        load::append(stream, &self.authorization(), body)
    }

    /// Returns a request for the event stream of all events that follow. With HTTP/1.0, the body of the response is not
    /// divided into chunks.
    pub fn subscribe(&self) -> String {
        let authorization = self.authorization();
        format!(
            "GET /events?after=head HTTP/1.0\r\nHost: localhost\r\n{authorization}Accept: text/event-stream\r\n\r\n"
        )
    }

    /// Returns the header line of the key.
    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.0)
    }
}

/// The end of a request: a response, or a failure.
pub struct Reply {
    /// The status of the response; `None` if there was none.
    pub status: Option<u16>,
    /// The description for the report: the status, with the code of a problem document, or the failure.
    pub outcome: String,
}

impl Reply {
    /// Returns whether the service did not do what the request asked for.
    pub fn is_refusal(&self) -> bool {
        self.status.is_none_or(|status| status >= 400)
    }
}

/// A connection with one request at a time. After a failure, the next request opens it again.
pub struct Connection {
    address: String,
    client: Option<Client>,
}

impl Connection {
    /// Prepares a connection to `host:port`. The first request opens it.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), client: None }
    }

    /// Sends a request, and waits for its response.
    pub async fn exchange(&mut self, request: &str) -> Reply {
        let exchanged = tokio::time::timeout(RESPONSE_TIMEOUT, self.try_exchange(request)).await;
        let failure = match exchanged {
            Ok(Ok(reply)) => return reply,
            Ok(Err(_)) => CONNECTION_FAILED,
            Err(_) => NO_RESPONSE,
        };
        self.client = None;
        Reply { status: None, outcome: failure.to_owned() }
    }

    async fn try_exchange(&mut self, request: &str) -> anyhow::Result<Reply> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(Client::connect(&self.address).await?),
        };
        let (status, response) = client.response(request).await?;
        let (head, body) = split_response(response);
        let reply = Reply { status: Some(status), outcome: describe(status, body) };
        if is_last(head) {
            self.client = None;
        }
        Ok(reply)
    }
}

/// Splits a response into its head and its body.
pub fn split_response(response: &[u8]) -> (&[u8], &[u8]) {
    const BLANK_LINE: &[u8] = b"\r\n\r\n";
    let head_end = response.windows(BLANK_LINE.len()).position(|window| window == BLANK_LINE);
    match head_end {
        Some(head_end) => (&response[..head_end], &response[head_end + BLANK_LINE.len()..]),
        None => (response, &[]),
    }
}

/// Returns the description of a response for the report.
pub fn describe(status: u16, body: &[u8]) -> String {
    if status < 400 {
        return status.to_string();
    }
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match problem["code"].as_str() {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    }
}

/// Returns whether the service closes the connection after a response with this head.
fn is_last(head: &[u8]) -> bool {
    const CLOSE: &[u8] = b"\r\nconnection: close";
    head.windows(CLOSE.len()).any(|window| window.eq_ignore_ascii_case(CLOSE))
}
