//! From an append to those who follow: paced appends, many event streams, and how long each event takes to each of them.
//!
//! The time runs from the moment when the client sends the append to the moment when a subscriber has read the event: the
//! commit is part of it. Every subscriber must see every event once and in order; what it does not is counted, and shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::load::{self, Client, EVENT_DATA};
use super::report::Delivery;

/// Appends single events at a rate, over several connections, while `subscribers` follow the log.
pub async fn measure(address: &str, subscribers: usize, rate: u64, duration: Duration) -> anyhow::Result<Delivery> {
    const WRITERS: u64 = 8;
    let per_writer = (rate * duration.as_secs()).div_ceil(WRITERS);
    let total = per_writer * WRITERS;
    let begin = Instant::now();
    let ready = Arc::new(Barrier::new(subscribers + 1));
    let followers: Vec<_> =
        (0..subscribers).map(|_| tokio::spawn(follow(address.to_owned(), total, begin, ready.clone()))).collect();
    ready.wait().await;

    let started = Instant::now();
    let pause = Duration::from_secs_f64(WRITERS as f64 / rate as f64);
    let writers: Vec<_> =
        (0..WRITERS).map(|n| tokio::spawn(write(address.to_owned(), n, per_writer, pause, begin))).collect();
    for writer in writers {
        writer.await??;
    }
    let elapsed = started.elapsed();
    let (mut delays, mut out_of_order) = (Vec::new(), 0);
    for follower in followers {
        let seen = follower.await??;
        delays.extend(seen.delays);
        out_of_order += seen.out_of_order;
    }
    delays.sort_unstable();
    let quantile = |q: f64| delays[((delays.len() - 1) as f64 * q) as usize] as f64 / 1e3;
    Ok(Delivery {
        what: "",
        subscribers,
        appends_per_second: total as f64 / elapsed.as_secs_f64(),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        longest_ms: quantile(1.0),
        out_of_order,
    })
}

async fn write(address: String, writer: u64, appends: u64, pause: Duration, begin: Instant) -> anyhow::Result<()> {
    let mut client = Client::connect(&address).await?;
    let mut ticks = tokio::time::interval(pause);
    for _ in 0..appends {
        ticks.tick().await;
        let sent = begin.elapsed().as_micros();
        let body = load::append_body(1, &format!(r#"{{"sent_us":{sent},"order":{EVENT_DATA}}}"#));
        client.expect(&load::append(&format!("Followed/{writer}"), "", &body), 201).await?;
    }
    Ok(())
}

/// Subscribers that read whatever comes, until they are aborted.
pub async fn idle(address: &str, subscribers: usize) -> anyhow::Result<JoinSet<()>> {
    let mut following = JoinSet::new();
    for _ in 0..subscribers {
        let mut connection = subscribe(address, "Bench").await?;
        following.spawn(async move {
            // Broken or not: the measurement is of the server.
            drop(tokio::io::copy(&mut connection, &mut tokio::io::sink()).await);
        });
    }
    Ok(following)
}

/// Follows an aggregate type from the head on.
async fn subscribe(address: &str, aggregate_type: &str) -> anyhow::Result<TcpStream> {
    let mut connection = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer is the stream itself, not in chunks.
    let request = format!(
        "GET /events?after=head&aggregate_type={aggregate_type} HTTP/1.0\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await?;
    Ok(connection)
}

struct Seen {
    /// In microseconds.
    delays: Vec<u64>,
    out_of_order: u64,
}

/// Follows from the head on, until `total` events have come.
async fn follow(address: String, total: u64, begin: Instant, ready: Arc<Barrier>) -> anyhow::Result<Seen> {
    let connection = subscribe(&address, "Followed").await?;
    let mut lines = BufReader::with_capacity(256 * 1024, connection);
    let mut line = String::new();
    while !line.starts_with("event: caught-up") {
        line.clear();
        if lines.read_line(&mut line).await? == 0 {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).await?;
            bail!("the event stream ended before it began: {rest}");
        }
    }
    ready.wait().await;
    let mut seen = Seen { delays: Vec::with_capacity(total as usize), out_of_order: 0 };
    let mut last = None;
    while (seen.delays.len() as u64) < total {
        line.clear();
        if lines.read_line(&mut line).await? == 0 {
            bail!("the event stream ended after {} of {total} events", seen.delays.len());
        }
        let Some(event) = line.strip_prefix("data: {\"event_id\"") else { continue };
        let position = number_after(event, "\"global_position\":")?;
        if last.is_some_and(|last| position != last + 1) {
            seen.out_of_order += 1;
        }
        last = Some(position);
        let sent = number_after(event, "\"sent_us\": ")?;
        seen.delays.push((begin.elapsed().as_micros() as u64).saturating_sub(sent));
    }
    Ok(seen)
}

fn number_after(text: &str, name: &str) -> anyhow::Result<u64> {
    let (_, rest) = text.split_once(name).with_context(|| format!("an event without {name}"))?;
    let digits = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
    Ok(rest[..digits].parse()?)
}
