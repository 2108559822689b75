//! Whole requests to a running service: each gets a response, no response has status 500, and errors are problem
//! documents.
//!
//! The first line of an input is a method and a target. The lines up to an empty line are headers, and the rest is the
//! body. The target adds the headers `Host`, `Content-Length` and `Connection: close`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The part of a response that is read. It contains the head.
const HEAD_BYTES: usize = 16 * 1024;

/// Sends an input to a service, and checks the response.
pub fn check(data: &[u8], service: SocketAddr) {
    let split = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..split], data.get(split + 2..).unwrap_or_default());
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut request = lines.next().unwrap_or_default().to_vec();
    request.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for line in lines {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    write!(request, "Content-Length: {}\r\n\r\n", body.len()).expect("writing to memory does not fail");
    request.extend_from_slice(body);

    let mut connection = TcpStream::connect(service).expect("the service accepts connections");
    connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    // The service may respond to an invalid request, and close the connection, before it has read all of it.
    let _ = connection.write_all(&request);
    let mut response = Vec::new();
    let mut buffer = vec![0; HEAD_BYTES];
    while response.len() < HEAD_BYTES && !response.windows(4).any(|window| window == b"\r\n\r\n") {
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => response.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("no response: {error}"),
        }
    }
    let text = String::from_utf8_lossy(&response);
    // After an invalid request line, a server may close the connection without a response (RFC 9112, section 2.2).
    let Some(status) = text.strip_prefix("HTTP/1.1 ").and_then(|text| text.get(..3)) else { return };
    assert_ne!(status, "500", "{text}");
    let head = text.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    // If the request is not valid HTTP, the HTTP library responds, without a body and without X-Request-Id.
    if status.starts_with('4') && head.contains("x-request-id") && !data.starts_with(b"HEAD") {
        assert!(head.contains("application/problem+json"), "{text}");
    }
}
