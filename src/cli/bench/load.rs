//! Load over HTTP: so many clients, each with a connection of its own and one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// 250 bytes of event_data.
pub const EVENT_DATA: &str = r#"{"order":"ord-000000000000","customer":"cus-000000000000","currency":"EUR","total":1234.56,"lines":[{"sku":"A-100001","quantity":2,"price":499.99},{"sku":"B-200002","quantity":1,"price":234.58}],"note":"leave it with the neighbours if nobody is"}"#;

/// What the clients do.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Append so many events, each time to a new stream, with `If-Match: "0"`.
    NewStreams { events: usize },
    /// Append single events in turn to so many streams, without a precondition.
    Streams(u64),
    /// Load so many aggregates in turn.
    Loads { aggregates: u64 },
    /// Read pages of 100 events, each after a position of a log with so many.
    Pages { events: u64 },
}

impl Work {
    /// What every request brings along.
    fn body(self) -> String {
        match self {
            Self::NewStreams { events } => append_body(events, EVENT_DATA),
            Self::Streams(_) => append_body(1, EVENT_DATA),
            Self::Loads { .. } | Self::Pages { .. } => String::new(),
        }
    }

    /// The n-th request, and the status of its answer.
    fn request(self, n: u64, body: &str) -> (String, u16) {
        match self {
            Self::NewStreams { .. } => (append(&format!("Bench/ord-{n}"), "If-Match: \"0\"\r\n", body), 201),
            Self::Streams(streams) => (append(&format!("Bench/ord-{}", n % streams), "", body), 201),
            Self::Loads { aggregates } => {
                let aggregate = n % aggregates + 1;
                (format!("GET /aggregates/Loaded/agg-{aggregate} HTTP/1.1\r\nHost: bench\r\n\r\n"), 200)
            }
            Self::Pages { events } => {
                // Far from the page before it, and all over the log.
                const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
                let after = n.wrapping_mul(STEP) % events.saturating_sub(100).max(1);
                (format!("GET /events?after={after}&limit=100 HTTP/1.1\r\nHost: bench\r\n\r\n"), 200)
            }
        }
    }
}

/// The body of an append of equal events.
pub fn append_body(events: usize, event_data: &str) -> String {
    let event = format!(r#"{{"event_type":"OrderPlaced","event_data":{event_data}}}"#);
    format!(r#"{{"events":[{}]}}"#, vec![event; events].join(","))
}

/// A request that appends to a stream.
pub fn append(stream: &str, precondition: &str, body: &str) -> String {
    format!("POST /streams/{stream} HTTP/1.1\r\nHost: bench\r\n{precondition}{}", json_body(body))
}

/// The end of a request's head, and its body.
pub fn json_body(body: &str) -> String {
    format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Numbers the requests over all runs against one server, so that streams are new.
#[derive(Default, Clone)]
pub struct Sent(Arc<AtomicU64>);

impl Sent {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What one run of load did.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Works for `duration`, on a thread of its own: clients that wander between threads would take twice as much of the
/// processors from what they measure.
pub async fn run(
    address: &str,
    clients: usize,
    work: Work,
    duration: Duration,
    sent: &Sent,
) -> anyhow::Result<Measured> {
    let (address, sent) = (address.to_owned(), sent.clone());
    let working = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work_for(&address, clients, work, duration, &sent))
    });
    working.await?
}

async fn work_for(
    address: &str,
    clients: usize,
    work: Work,
    duration: Duration,
    sent: &Sent,
) -> anyhow::Result<Measured> {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Client::connect(address).await?);
    }
    let started = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|client| tokio::spawn(repeat(client, work, started + duration, sent.clone())))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    if latencies.is_empty() {
        bail!("no request was answered");
    }
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    let per_second = latencies.len() as f64 / elapsed.as_secs_f64();
    Ok(Measured { per_second, p50: quantile(0.5), p99: quantile(0.99) })
}

async fn repeat(mut client: Client, work: Work, until: Instant, sent: Sent) -> anyhow::Result<Vec<Duration>> {
    // Made once: whatever the clients do for each request takes from what they measure.
    let body = work.body();
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let (request, status) = work.request(sent.next(), &body);
        let started = Instant::now();
        client.expect(&request, status).await?;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

/// One connection, one request at a time. It is written by hand, because whatever the clients take of the processors is
/// missing to what they measure.
pub struct Client {
    connection: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        Ok(Self { connection, buffer: vec![0; 16 * 1024] })
    }

    /// Sends a request, and fails unless its answer has this status.
    pub async fn expect(&mut self, request: &str, status: u16) -> anyhow::Result<()> {
        let answered = self.status(request).await?;
        if answered != status {
            let answer = String::from_utf8_lossy(&self.buffer);
            bail!("a request was answered with another status than {status}: {}", answer.trim_end_matches('\0'));
        }
        Ok(())
    }

    /// Sends a request; the status of its answer.
    pub async fn status(&mut self, request: &str) -> anyhow::Result<u16> {
        self.connection.write_all(request.as_bytes()).await?;
        self.read_answer().await?;
        Ok(std::str::from_utf8(&self.buffer[9..12])?.parse()?)
    }

    /// Reads one answer into the buffer; its length.
    async fn read_answer(&mut self) -> anyhow::Result<usize> {
        let (mut filled, mut end) = (0, None);
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.connection.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            filled += read;
            let answer = &self.buffer[..filled];
            if end.is_none() {
                let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = std::str::from_utf8(&answer[..head_end])?;
                end = Some(match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
                    Some(length) => End::At(head_end + 4 + length.trim().parse::<usize>()?),
                    None => End::Chunk,
                });
            }
            let complete = match end {
                Some(End::At(end)) => filled >= end,
                // JSON has no line breaks like these within it.
                Some(End::Chunk) => answer.ends_with(b"\r\n0\r\n\r\n"),
                None => false,
            };
            if complete {
                return Ok(filled);
            }
        }
    }
}

/// Where an answer ends.
enum End {
    At(usize),
    /// With the chunk that is empty.
    Chunk,
}
