//! Clients that are slow, or too many: each is given up in time, and nobody else notices.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{TestApp, Wanted, within_a_minute};

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.base.trim_start_matches("http://")).await.expect("a connection")
}

/// What the server sends until it closes the connection.
async fn until_closed(connection: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = within_a_minute("the server closes the connection", connection.read_to_end(&mut answer)).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_costs_its_sender_the_connection() {
    let mut wanted = Wanted::default();
    wanted.settings.clients.head = Duration::from_millis(300);
    let app = TestApp::start_as(wanted).await;
    let (mut silent, mut slow) = (connect(&app).await, connect(&app).await);
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.expect("it is sent");
    until_closed(&mut silent).await;
    assert!(!until_closed(&mut slow).await.contains("200 OK"));
    app.get("/livez").send().await.expect_status(200);
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_told_so_and_writes_nothing() {
    let mut wanted = Wanted::default();
    wanted.settings.clients.body = Duration::from_millis(300);
    let app = TestApp::start_as(wanted).await;
    let mut slow = connect(&app).await;
    let head =
        "POST /streams/Order/1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    slow.write_all(head.as_bytes()).await.expect("it is sent");
    slow.write_all(b"{\"events\": [").await.expect("it is sent");
    let answer = until_closed(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("\"code\":\"invalid_request\"") && answer.contains("did not arrive within"), "{answer}");
    app.get("/streams/Order/1").send().await.expect_problem(404, "stream_not_found");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_to_come_back_and_probes_are_answered() {
    let mut wanted = Wanted::default();
    wanted.settings.clients.connections = 1;
    let app = TestApp::start_as(wanted).await;
    let request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut seated = connect(&app).await;
    seated.write_all(request).await.expect("it is sent");
    let mut answer = [0; 12];
    seated.read_exact(&mut answer).await.expect("an answer");
    // Beyond it there is one request a connection: who watches is answered, everybody else comes back later.
    let ask = async |path: &str, more: &str| {
        let mut connection = connect(&app).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n{more}\r\n");
        connection.write_all(request.as_bytes()).await.expect("it is sent");
        until_closed(&mut connection).await
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(ask(path, "").await.starts_with("HTTP/1.1 200"), "{path}");
    }
    let refused = ask("/streams/Order/1", "").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("\"code\":\"overloaded\"") && refused.contains("\"instance\":\"mine\""), "{refused}");
    drop(seated);
    within_a_minute("the seat is free again", async {
        while !ask("/streams/Order/1", "Connection: close\r\n").await.starts_with("HTTP/1.1 404") {}
    })
    .await;
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let app = TestApp::start().await;
    let mut connection = connect(&app).await;
    for _ in 0..3 {
        connection.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it is sent");
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = vec![0; 4096];
        let read = connection.read(&mut rest).await.expect("the rest");
        assert!(read > 0);
    }
}
