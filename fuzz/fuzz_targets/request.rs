//! Whole requests to a running service: every one has an answer, none is a defect (500), and errors are problems.
//!
//! The first line is a method and a target, the lines up to an empty one are headers, the rest is the body. The length of
//! the body is added, and the end of the connection after the answer.
#![no_main]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use annals::app::{App, ClientLimits, Settings};
use annals::clock::Clock;
use annals::http;
use annals::shutdown::Shutdown;
use annals::store::database::{ConnectOptions, DatabaseConfig};
use annals::store::migrate;
use annals::store::writer::QueueLimits;
use annals::subscriptions::FeedLimits;
use annals_fuzz::RUNTIME;
use libfuzzer_sys::fuzz_target;

static SERVICE: LazyLock<SocketAddr> = LazyLock::new(|| {
    // Started outside of the runtime that it is started with.
    let options = annals_fuzz::postgres().options();
    RUNTIME.block_on(start(options))
});

async fn start(options: ConnectOptions) -> SocketAddr {
    let database = DatabaseConfig {
        options,
        max_connections: 10,
        idle_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        archive: None,
    };
    let settings = Settings {
        max_body_bytes: 1024 * 1024,
        snapshot_every: 5,
        queue: QueueLimits::default(),
        feed: FeedLimits::default(),
        clients: ClientLimits::default(),
        needs_keys: false,
        archive_after: None,
        program: "annals".into(),
    };
    migrate::migrate(&database).await.expect("the schema is made");
    let shutdown = Shutdown::new();
    let app = App::start(settings, &database, None, Clock::system(), shutdown.clone()).await.expect("it starts");
    let serving = http::serve(app, ([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let address = serving.address;
    tokio::spawn(async move { shutdown.finish(serving.run()).await });
    address
}

/// How far the answer is read: its head is in there.
const HEAD_BYTES: usize = 16 * 1024;

fuzz_target!(|data: &[u8]| {
    let split = data.windows(2).position(|two| two == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..split], data.get(split + 2..).unwrap_or_default());
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut request = lines.next().unwrap_or_default().to_vec();
    request.extend_from_slice(b" HTTP/1.1\r\nHost: annals\r\nConnection: close\r\n");
    for line in lines {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    write!(request, "Content-Length: {}\r\n\r\n", body.len()).expect("writing to memory does not fail");
    request.extend_from_slice(body);

    let mut connection = TcpStream::connect(*SERVICE).expect("it is listened to");
    connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    // What is no request is answered before all of it is sent.
    let _ = connection.write_all(&request);
    let mut answer = Vec::new();
    let mut buffer = vec![0; HEAD_BYTES];
    while answer.len() < HEAD_BYTES && !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("no answer: {error}"),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    // A head that is none may end the connection without a word (RFC 9112, section 2.2).
    let Some(status) = text.strip_prefix("HTTP/1.1 ").and_then(|text| text.get(..3)) else { return };
    assert_ne!(status, "500", "{text}");
    let head = text.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    // The HTTP library itself answers what is no HTTP, without a body.
    if status.starts_with('4') && head.contains("x-request-id") && !data.starts_with(b"HEAD") {
        assert!(head.contains("application/problem+json"), "{text}");
    }
});
