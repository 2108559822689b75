//! Shutdown: what is in flight is answered or not written, and what comes too late is told so.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{TestApp, events, within_a_minute};

#[tokio::test]
async fn an_append_in_flight_is_answered() {
    let app = TestApp::start().await;
    let post = |n: usize| app.post(&format!("/streams/Order/{n}"), &events(&["E"])).send();
    let appends = futures_util::future::join_all((1..5).map(post));
    let (queued, ()) = app.meet(appends, 4, async { app.app.shutdown.begin() }).await;
    for reply in queued {
        reply.expect_status(201);
    }
    let database = app.database.clone();
    assert!(app.stop().await, "an orderly end");
    assert_eq!(database.session().await.number("SELECT count(*) FROM events").await, 5);
}

#[tokio::test]
async fn an_append_that_comes_too_late_is_refused_and_not_written() {
    let app = TestApp::start().await;
    let body = events(&["E"]).to_string();
    let mut connection =
        TcpStream::connect(app.base.strip_prefix("http://").expect("a URL")).await.expect("a connection");
    let head = format!(
        "POST /streams/Order/1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.expect("it is sent");
    // The server asks for the body: the request is in its hands.
    let mut asked = [0; 25];
    connection.read_exact(&mut asked).await.expect("100 Continue");
    assert!(asked.starts_with(b"HTTP/1.1 100"), "{:?}", String::from_utf8_lossy(&asked));
    app.app.shutdown.begin();
    let ended = async {
        while app.app.writer.is_alive() {
            tokio::task::yield_now().await;
        }
    };
    within_a_minute("the writer ends", ended).await;
    connection.write_all(body.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"code\":\"shutting_down\""), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    let database = app.database.clone();
    assert!(app.stop().await);
    assert_eq!(database.session().await.number("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn the_hard_stage_ends_what_does_not_end_by_itself() {
    let app = TestApp::start().await;
    let mut connection =
        TcpStream::connect(app.base.strip_prefix("http://").expect("a URL")).await.expect("a connection");
    let head = "POST /streams/Order/1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    connection.write_all(head.as_bytes()).await.expect("it is sent");
    let mut asked = [0; 25];
    connection.read_exact(&mut asked).await.expect("100 Continue");
    // The body never comes.
    app.app.shutdown.begin();
    app.app.shutdown.force();
    assert!(!app.stop().await, "not an orderly end");
}
