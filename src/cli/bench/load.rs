//! Load over HTTP: so many clients, each with a connection of its own and one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// 250 bytes of event_data.
pub const EVENT_DATA: &str = r#"{"order":"ord-000000000000","customer":"cus-000000000000","currency":"EUR","total":1234.56,"lines":[{"sku":"A-100001","quantity":2,"price":499.99},{"sku":"B-200002","quantity":1,"price":234.58}],"note":"leave it with the neighbours if nobody is"}"#;

/// Which streams the appends go to.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Each to a new stream, with `If-Match: "0"`.
    NewStreams,
    /// In turn to so many streams, without a precondition.
    Streams(u64),
}

/// What one run of load did.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Appends single events for `duration`. `sent` numbers the appends over all runs, so that streams are new.
pub async fn append(
    address: &str,
    clients: usize,
    target: Target,
    duration: Duration,
    sent: &Arc<AtomicU64>,
) -> anyhow::Result<Measured> {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        let connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        connections.push(connection);
    }
    let started = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|connection| tokio::spawn(client(connection, target, started + duration, sent.clone())))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    if latencies.is_empty() {
        bail!("no append was answered");
    }
    let per_second = latencies.len() as f64 / elapsed.as_secs_f64();
    Ok(Measured { per_second, p50: quantile(0.5), p99: quantile(0.99) })
}

async fn client(
    mut connection: TcpStream,
    target: Target,
    until: Instant,
    sent: Arc<AtomicU64>,
) -> anyhow::Result<Vec<Duration>> {
    let body = format!(r#"{{"events":[{{"event_type":"OrderPlaced","event_data":{EVENT_DATA}}}]}}"#);
    let mut latencies = Vec::new();
    let mut answer = vec![0; 16 * 1024];
    while Instant::now() < until {
        let n = sent.fetch_add(1, Ordering::Relaxed);
        let (stream, precondition) = match target {
            Target::NewStreams => (n, "If-Match: \"0\"\r\n"),
            Target::Streams(streams) => (n % streams, ""),
        };
        let request = format!(
            "POST /streams/Bench/ord-{stream} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{precondition}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let started = Instant::now();
        connection.write_all(request.as_bytes()).await?;
        let status = read_answer(&mut connection, &mut answer).await?;
        if status != "201" {
            bail!("an append was answered with status {status}");
        }
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

/// Reads one answer with a Content-Length; its status.
pub async fn read_answer<'a>(connection: &mut TcpStream, buffer: &'a mut [u8]) -> anyhow::Result<&'a str> {
    let mut filled = 0;
    loop {
        let read = connection.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("the server closed the connection");
        }
        filled += read;
        let Some(head_end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&buffer[..head_end])?;
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no content-length")?;
        if filled >= head_end + 4 + length.trim().parse::<usize>()? {
            break;
        }
    }
    Ok(std::str::from_utf8(&buffer[9..12])?)
}
