//! No promise: requests that no HTTP library would send, over a connection of their own.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Reply;
use super::{TestApp, within_a_minute};

/// Opens a connection to the service.
pub async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.base.trim_start_matches("http://")).await.expect("a connection")
}

/// Sends bytes on a new connection, and reads the response until the service closes the connection.
pub async fn send_raw(app: &TestApp, request: &[u8]) -> Reply {
    let mut connection = connect(app).await;
    connection.write_all(request).await.expect("the request is sent");
    let mut response = Vec::new();
    let read = connection.read_to_end(&mut response);
    within_a_minute("the service closes the connection", read).await.expect("the response is received");
    parse_response(&response)
}

/// Parses a response whose body ends with the bytes.
pub fn parse_response(response: &[u8]) -> Reply {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
    let head = std::str::from_utf8(&response[..end]).expect("a head in ASCII");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        headers.append(
            HeaderName::try_from(name).expect("a header name"),
            HeaderValue::try_from(value).expect("a header value"),
        );
    }
    let reply = Reply {
        status: status.parse().expect("a status"),
        headers,
        body: Bytes::copy_from_slice(&response[end + 4..]),
    };
    reply.check("a raw request");
    reply
}
