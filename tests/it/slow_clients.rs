//! Promise P10: clients that send slowly, idle connections, and connections above the limit get an error or are closed
//! in time. All other clients are served.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{TestApp, TestOptions, connect, pause_between_polls, within_a_minute};

/// Returns the bytes that the server sends until it closes the connection.
async fn until_closed(connection: &mut TcpStream) -> String {
    let mut sent = Vec::new();
    // A reset also closes the connection.
    let _ = within_a_minute("the server closes the connection", connection.read_to_end(&mut sent)).await;
    String::from_utf8(sent).expect("text")
}

/// Sends the beginning of a head. Returns the time until the server closes the connection, and the response.
async fn send_part_of_a_head(app: &TestApp, head: &[u8]) -> (Duration, String) {
    // The server cannot start the time limit before the connection exists. So the measured time is at least the limit,
    // even on a slow machine.
    let before = Instant::now();
    let mut connection = connect(app).await;
    connection.write_all(head).await.expect("the request is sent");
    let response = until_closed(&mut connection).await;
    (before.elapsed(), response)
}

#[tokio::test]
async fn a_connection_without_a_complete_head_is_closed_at_the_limit_and_not_before() {
    const LIMIT: Duration = Duration::from_millis(300);
    let mut options = TestOptions::default();
    options.settings.clients.head = LIMIT;
    let app = TestApp::start_with(options).await;
    let part_of_a_head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let (silent, slow) = tokio::join!(send_part_of_a_head(&app, b""), send_part_of_a_head(&app, part_of_a_head));
    for (open, response) in [silent, slow] {
        assert!(open >= LIMIT, "the connection was already closed after {open:?}");
        assert_eq!(response, "", "a request without a complete head has no response");
    }
    app.get("/livez").send().await.expect_status(200);
}

#[tokio::test]
async fn a_request_whose_body_exceeds_the_time_limit_gets_400_and_writes_nothing() {
    let mut options = TestOptions::default();
    options.settings.clients.body = Duration::from_millis(300);
    let app = TestApp::start_with(options).await;
    let mut slow = connect(&app).await;
    let head = "POST /streams/Order/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n";
    slow.write_all(head.as_bytes()).await.expect("the request is sent");
    slow.write_all(b"{\"events\": [").await.expect("the request is sent");
    let response = until_closed(&mut slow).await;
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
    assert!(response.contains("\"code\":\"invalid_request\""), "{response}");
    assert!(response.contains("did not arrive within"), "{response}");
    app.get("/streams/Order/1").send().await.expect_problem(404, "stream_not_found");
}

#[tokio::test]
async fn above_the_connection_limit_only_probes_and_metrics_are_served() {
    let mut options = TestOptions::default();
    options.settings.clients.connections = 1;
    let app = TestApp::start_with(options).await;
    let first = app.subscribe("/events").await;
    // Above the limit, a connection serves one request. Probes and metrics are served, and other requests get 503.
    let request_once = async |path: &str, more: &str| {
        let mut connection = connect(&app).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\n{more}\r\n");
        connection.write_all(request.as_bytes()).await.expect("the request is sent");
        until_closed(&mut connection).await
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(request_once(path, "").await.starts_with("HTTP/1.1 200"), "{path}");
    }
    let refused = request_once("/streams/Order/1", "").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("\"code\":\"overloaded\"") && refused.contains("\"instance\":\"mine\""), "{refused}");
    drop(first);
    within_a_minute("a connection below the limit is possible again", async {
        while !request_once("/streams/Order/1", "Connection: close\r\n").await.starts_with("HTTP/1.1 404") {
            pause_between_polls().await;
        }
    })
    .await;
}

/// Starts a service with a number of seats.
async fn start_with_seats(connections: usize) -> TestApp {
    let mut options = TestOptions::default();
    options.settings.clients.connections = connections;
    TestApp::start_with(options).await
}

/// Sends a request, and reads its response. The connection remains open. Returns the status line.
async fn request(connection: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("the request is sent");
    within_a_minute("the response arrives", read_response(connection)).await.0
}

#[tokio::test]
async fn a_new_client_gets_the_seat_of_the_connection_that_is_idle_for_the_longest_time() {
    let app = start_with_seats(3).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = connect(&app).await;
        assert_eq!(request(&mut client, "/livez").await, "HTTP/1.1 200 OK");
        clients.push(client);
    }
    assert_eq!(request(&mut clients[0], "/livez").await, "HTTP/1.1 200 OK");
    let mut fourth = connect(&app).await;
    assert_eq!(request(&mut fourth, "/events").await, "HTTP/1.1 200 OK");
    assert_eq!(until_closed(&mut clients[1]).await, "", "the second connection is closed without a response");
    // The others are not closed.
    for client in [2, 0] {
        assert_eq!(request(&mut clients[client], "/events").await, "HTTP/1.1 200 OK");
    }
    let mut fifth = connect(&app).await;
    assert_eq!(request(&mut fifth, "/events").await, "HTTP/1.1 200 OK");
    assert_eq!(until_closed(&mut fourth).await, "");
    for client in [2, 0] {
        assert_eq!(request(&mut clients[client], "/events").await, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn connections_that_send_nothing_keep_no_client_out() {
    let app = start_with_seats(2).await;
    let (mut first, mut second) = (connect(&app).await, connect(&app).await);
    let mut third = connect(&app).await;
    assert_eq!(request(&mut third, "/events").await, "HTTP/1.1 200 OK");
    assert_eq!(until_closed(&mut first).await, "");
    // A request in progress, even without its body, keeps its seat. The second connection loses its seat instead.
    let head = "POST /streams/Order/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    third.write_all(head.as_bytes()).await.expect("the request is sent");
    let mut interim = [0; 25];
    third.read_exact(&mut interim).await.expect("the service requests the body");
    let mut fourth = connect(&app).await;
    assert_eq!(request(&mut fourth, "/events").await, "HTTP/1.1 200 OK");
    assert_eq!(until_closed(&mut second).await, "");
    // The rest of the first request is received, although a further connection needed a seat meanwhile.
    let mut fifth = connect(&app).await;
    assert_eq!(request(&mut fifth, "/events").await, "HTTP/1.1 200 OK");
    third.write_all(&[b' '; 100]).await.expect("the body is sent");
    assert_eq!(read_response(&mut third).await.0, "HTTP/1.1 400 Bad Request");
}

#[tokio::test]
async fn requests_in_progress_are_not_closed_for_a_new_client() {
    let app = start_with_seats(2).await;
    let (mut first, mut second) = (app.subscribe("/events").await, app.subscribe("/events").await);
    for _ in 0..3 {
        let mut client = connect(&app).await;
        assert_eq!(request(&mut client, "/events").await, "HTTP/1.1 503 Service Unavailable");
        until_closed(&mut client).await;
    }
    let other = TestApp::start_on(app.database.clone(), TestOptions::default()).await;
    other.append("/streams/Order/1", &["E"]).await;
    for subscriber in [&mut first, &mut second] {
        assert_eq!(subscriber.event().await.position(), 1);
    }
}

/// Reads one response with a declared length. Returns the status line and the body.
async fn read_response(connection: &mut TcpStream) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.expect("the head"));
    }
    let head = String::from_utf8(head).expect("text");
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    connection.read_exact(&mut body).await.expect("the body");
    (head.lines().next().expect("a status line").to_owned(), String::from_utf8(body).expect("text"))
}

#[tokio::test]
async fn a_connection_serves_several_requests_in_turn() {
    let app = TestApp::start().await;
    let mut connection = connect(&app).await;
    for path in ["/livez", "/problems/internal", "/livez"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.write_all(request.as_bytes()).await.expect("the request is sent");
        let (status, body) = read_response(&mut connection).await;
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}");
        assert!(body.contains(if path == "/livez" { "\"status\":\"ok\"" } else { "internal" }), "{path}: {body}");
    }
}
