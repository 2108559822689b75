//! Promise P1, P10: shutdown. An append in flight gets its response. A later append is refused and not written. The
//! hard stage aborts requests that do not end by themselves.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{TestApp, events, pause_between_polls, within_a_minute};

#[tokio::test]
async fn an_append_in_flight_gets_its_response() {
    let app = TestApp::start().await;
    let post = |n: usize| app.post(&format!("/streams/Order/{n}"), &events(&["E"])).send();
    let appends = futures_util::future::join_all((1..5).map(post));
    let (queued, ()) = app.queue_behind_append_lock(appends, 4, async { app.app.shutdown.begin() }).await;
    for reply in queued {
        reply.expect_status(201);
    }
    let database = app.database.clone();
    assert!(app.stop().await, "the shutdown is orderly");
    assert_eq!(database.session().await.number("SELECT count(*) FROM events").await, 5);
}

#[tokio::test]
async fn an_append_after_the_shutdown_began_is_refused_and_not_written() {
    let app = TestApp::start().await;
    let body = events(&["E"]).to_string();
    let mut connection =
        TcpStream::connect(app.base.strip_prefix("http://").expect("a URL")).await.expect("a connection");
    let head = format!(
        "POST /streams/Order/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.expect("the request is sent");
    // The server requests the body, so it has begun to process the request.
    let mut interim = [0; 25];
    connection.read_exact(&mut interim).await.expect("100 Continue");
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{:?}", String::from_utf8_lossy(&interim));
    app.app.shutdown.begin();
    let ended = async {
        while app.app.append_queue.is_open() {
            pause_between_polls().await;
        }
    };
    within_a_minute("the writer ends", ended).await;
    connection.write_all(body.as_bytes()).await.expect("the request is sent");
    let mut response = String::new();
    connection.read_to_string(&mut response).await.expect("a response");
    assert!(response.starts_with("HTTP/1.1 503") && response.contains("\"code\":\"shutting_down\""), "{response}");
    assert!(response.contains("retry-after: 1"), "{response}");
    let database = app.database.clone();
    assert!(app.stop().await);
    assert_eq!(database.session().await.number("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn the_hard_stage_aborts_requests_that_do_not_end() {
    let app = TestApp::start().await;
    let mut connection =
        TcpStream::connect(app.base.strip_prefix("http://").expect("a URL")).await.expect("a connection");
    let head = "POST /streams/Order/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    connection.write_all(head.as_bytes()).await.expect("the request is sent");
    let mut interim = [0; 25];
    connection.read_exact(&mut interim).await.expect("100 Continue");
    // The client sends no body.
    app.app.shutdown.begin();
    app.app.shutdown.force();
    assert!(!app.stop().await, "the shutdown is not orderly");
}
