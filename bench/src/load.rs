//! Load over HTTP. Each client has a connection of its own, and sends one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The payload of every event, about 250 bytes. `direct_loads.sql` has the same payload.
pub const EVENT_DATA: &str = r#"{"order":"ord-000000000000","customer":"cus-000000000000","currency":"EUR","total":1234.56,"lines":[{"sku":"A-100001","quantity":2,"price":499.99},{"sku":"B-200002","quantity":1,"price":234.58}],"note":"leave it with the neighbours at number 12"}"#;

/// The number of events of each stream that consumers share, and the number of their partitions.
pub const EVENTS_OF_STREAM: u64 = 100;
pub const PARTITIONS: u16 = 16;

/// The requests that the clients repeat.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Appends a number of events to a new stream, with `If-Match: "0"`.
    NewStreams { events: usize },
    /// Appends a single event without a precondition, to each of a number of streams in turn.
    FixedStreams { streams: u64 },
    /// Loads each of a number of aggregates in turn. `direct::prepare_loads` has created the aggregates.
    Loads { aggregates: u64 },
    /// Reads a page of 100 events, at changing positions of a log with this number of events.
    Pages { events: u64 },
}

impl Work {
    /// Returns the body of each request.
    fn body(self) -> String {
        match self {
            Self::NewStreams { events } => append_body(events, EVENT_DATA),
            Self::FixedStreams { .. } => append_body(1, EVENT_DATA),
            Self::Loads { .. } | Self::Pages { .. } => String::new(),
        }
    }

    /// Returns the request with number `n`, and the status that its response must have.
    fn request(self, n: u64, body: &str) -> (String, u16) {
        match self {
            Self::NewStreams { .. } => (append(&format!("Bench/ord-{n}"), "If-Match: \"0\"\r\n", body), 201),
            Self::FixedStreams { streams } => (append(&format!("Bench/ord-{}", n % streams), "", body), 201),
            Self::Loads { aggregates } => {
                let aggregate = n % aggregates + 1;
                (format!("GET /aggregates/Loaded/agg-{aggregate} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200)
            }
            Self::Pages { events } => {
                let after = page_start(n, events);
                (format!("GET /events?after={after}&limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200)
            }
        }
    }
}

/// Returns the position after which page number `n` begins, in a log with a number of events.
pub fn page_start(n: u64, events: u64) -> u64 {
    // With this step, consecutive pages are far from each other, and all pages cover the whole log.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    n.wrapping_mul(STEP) % events.saturating_sub(100).max(1)
}

/// Returns the body of an append of a number of equal events.
pub fn append_body(events: usize, event_data: &str) -> String {
    let event = format!(r#"{{"event_type":"OrderPlaced","event_data":{event_data}}}"#);
    format!(r#"{{"events":[{}]}}"#, vec![event; events].join(","))
}

/// Returns a request that appends to a stream. `headers` are further header lines with their line breaks, or empty.
pub fn append(stream: &str, headers: &str, body: &str) -> String {
    format!("POST /streams/{stream} HTTP/1.1\r\nHost: localhost\r\n{headers}{}", json_body(body))
}

/// Returns the last headers of a request with a JSON body, and the body.
pub fn json_body(body: &str) -> String {
    format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Connects, and requests a path. The response follows until its end, or until it is dropped.
pub async fn open(address: &str, path: &str, accept: &str) -> anyhow::Result<TcpStream> {
    request_over(TcpStream::connect(address).await?, path, accept).await
}

/// Requests a path over a new connection.
pub async fn request_over(mut connection: TcpStream, path: &str, accept: &str) -> anyhow::Result<TcpStream> {
    // With HTTP/1.0, the body of the response is not divided into chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    Ok(connection)
}

/// Numbers the requests of all runs against one server, so that each new stream has a name of its own.
#[derive(Default, Clone)]
pub struct RequestCounter(Arc<AtomicU64>);

impl RequestCounter {
    /// Returns the number of the next request, beginning with 0.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The result of one run.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    /// Responses per second, of all clients together.
    pub per_second: f64,
    /// The median of the response times.
    pub p50: Duration,
    /// The 99th percentile of the response times.
    pub p99: Duration,
}

/// Runs work on a thread of its own. On several threads the tasks of many clients would move between threads, and the
/// clients would take twice as much processor time from the service.
pub async fn on_own_thread<T: Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    let running = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work)
    });
    running.await?
}

/// Repeats requests for `duration`. All clients run on one thread.
pub async fn run(
    address: &str,
    clients: usize,
    work: Work,
    duration: Duration,
    counter: &RequestCounter,
) -> anyhow::Result<Measurement> {
    let (address, counter) = (address.to_owned(), counter.clone());
    on_own_thread(async move { run_clients(&address, clients, work, duration, &counter).await }).await
}

async fn run_clients(
    address: &str,
    clients: usize,
    work: Work,
    duration: Duration,
    counter: &RequestCounter,
) -> anyhow::Result<Measurement> {
    let mut connected = Vec::with_capacity(clients);
    for _ in 0..clients {
        connected.push(Client::connect(address).await?);
    }
    let started = Instant::now();
    let tasks: Vec<_> = connected
        .into_iter()
        .map(|client| tokio::spawn(repeat(client, work, started + duration, counter.clone())))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    if latencies.is_empty() {
        bail!("no client received a response");
    }
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    let per_second = latencies.len() as f64 / elapsed.as_secs_f64();
    Ok(Measurement { per_second, p50: quantile(0.5), p99: quantile(0.99) })
}

/// Sends one request after another until a point in time. Returns the response times.
async fn repeat(
    mut client: Client,
    work: Work,
    until: Instant,
    counter: RequestCounter,
) -> anyhow::Result<Vec<Duration>> {
    // The body is created once, because processor time that the clients use is not available to the service.
    let body = work.body();
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let (request, status) = work.request(counter.next(), &body);
        let started = Instant::now();
        client.expect(&request, status).await?;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

/// An HTTP client with one connection and one request at a time. A general HTTP client would use more processor time,
/// which would not be available to the service.
pub struct Client {
    connection: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        Ok(Self { connection, buffer: vec![0; 16 * 1024] })
    }

    /// Sends a request. Fails unless the response has the expected status.
    pub async fn expect(&mut self, request: &str, expected: u16) -> anyhow::Result<()> {
        let (status, length) = self.send(request).await?;
        if status != expected {
            let response = String::from_utf8_lossy(&self.buffer[..length]);
            bail!("a response has status {status}, expected {expected}: {response}");
        }
        Ok(())
    }

    /// Sends a request. Returns the status of the response.
    pub async fn status(&mut self, request: &str) -> anyhow::Result<u16> {
        Ok(self.send(request).await?.0)
    }

    /// Sends a request. Returns the status of the response, and the whole response with its head.
    pub async fn response(&mut self, request: &str) -> anyhow::Result<(u16, &[u8])> {
        let (status, length) = self.send(request).await?;
        Ok((status, &self.buffer[..length]))
    }

    /// Sends a request, and reads the response into the buffer. Returns its status and its length in bytes.
    async fn send(&mut self, request: &str) -> anyhow::Result<(u16, usize)> {
        self.connection.write_all(request.as_bytes()).await?;
        let length = self.read_response().await?;
        Ok((std::str::from_utf8(&self.buffer[9..12])?.parse()?, length))
    }

    /// Reads a response into the buffer. Returns its length in bytes.
    async fn read_response(&mut self) -> anyhow::Result<usize> {
        let (mut filled, mut end) = (0, None);
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.connection.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the server has closed the connection");
            }
            filled += read;
            let response = &self.buffer[..filled];
            if end.is_none() {
                let Some(head_end) = response.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = std::str::from_utf8(&response[..head_end])?;
                end = Some(match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
                    Some(length) => ResponseEnd::At(head_end + 4 + length.trim().parse::<usize>()?),
                    None => ResponseEnd::EmptyChunk,
                });
            }
            let complete = match end {
                Some(ResponseEnd::At(end)) => filled >= end,
                // The service writes JSON without line breaks, so the body does not contain these bytes.
                Some(ResponseEnd::EmptyChunk) => response.ends_with(b"\r\n0\r\n\r\n"),
                None => false,
            };
            if complete {
                return Ok(filled);
            }
        }
    }
}

/// The mark at which a response ends.
enum ResponseEnd {
    /// The length in bytes, from `Content-Length`.
    At(usize),
    /// The last chunk of a body that is sent in chunks.
    EmptyChunk,
}
