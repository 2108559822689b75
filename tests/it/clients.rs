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
async fn connections_beyond_the_limit_wait_for_a_seat() {
    let mut wanted = Wanted::default();
    wanted.settings.clients.connections = 1;
    let app = TestApp::start_as(wanted).await;
    let request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut seated = connect(&app).await;
    seated.write_all(request).await.expect("it is sent");
    let mut answer = [0; 12];
    seated.read_exact(&mut answer).await.expect("an answer");
    let mut waiting = connect(&app).await;
    waiting.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("it is sent");
    // However long one waits, there is no second seat.
    let early = tokio::time::timeout(Duration::from_millis(300), waiting.readable()).await;
    assert!(early.is_err(), "it was served beside the first one");
    drop(seated);
    assert!(until_closed(&mut waiting).await.starts_with("HTTP/1.1 200"));
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
