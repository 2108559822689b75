//! The delivery of events to subscribers. Clients append at a fixed rate, and many subscribers read the events.
//!
//! The measured time begins when a client sends the append, and ends when a subscriber has read the event. It includes
//! the commit. Each subscriber must read every event once and in order. Events that are missed or out of order are
//! counted and reported.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::args::BenchArgs;
use crate::load;
use crate::load::{Client, EVENT_DATA};
use crate::report::Delivery;

/// The aggregate type of the events whose delivery is measured.
const AGGREGATE_TYPE: &str = "Delivered";

/// Appends single events at the configured rate, over several connections, while the configured number of subscribers
/// reads the log. `name` is the name of the result in the report.
pub async fn measure(args: &BenchArgs, address: &str, name: &'static str) -> anyhow::Result<Delivery> {
    const APPENDERS: u64 = 8;
    let appends_each = (args.rate * args.seconds).div_ceil(APPENDERS);
    let total = appends_each * APPENDERS;
    let origin = Instant::now();
    let ready = Arc::new(Barrier::new(args.subscribers + 1));
    let subscribers: Vec<_> = (0..args.subscribers)
        .map(|_| tokio::spawn(receive(address.to_owned(), total, origin, ready.clone())))
        .collect();
    ready.wait().await;

    let started = Instant::now();
    let interval = Duration::from_secs_f64(APPENDERS as f64 / args.rate as f64);
    let appenders: Vec<_> =
        (0..APPENDERS).map(|n| tokio::spawn(append(address.to_owned(), n, appends_each, interval, origin))).collect();
    for appender in appenders {
        appender.await??;
    }
    let elapsed = started.elapsed();
    let (mut delays_us, mut out_of_order) = (Vec::new(), 0);
    for subscriber in subscribers {
        let received = subscriber.await??;
        delays_us.extend(received.delays_us);
        out_of_order += received.out_of_order;
    }
    delays_us.sort_unstable();
    let quantile_ms = |q: f64| delays_us[((delays_us.len() - 1) as f64 * q) as usize] as f64 / 1e3;
    Ok(Delivery {
        name,
        subscribers: args.subscribers,
        appends_per_second: total as f64 / elapsed.as_secs_f64(),
        p50_ms: quantile_ms(0.5),
        p99_ms: quantile_ms(0.99),
        longest_ms: quantile_ms(1.0),
        out_of_order,
    })
}

/// Appends events to a stream of its own, one in each interval. Each event contains the time since `origin` at which it
/// is sent.
async fn append(address: String, stream: u64, appends: u64, interval: Duration, origin: Instant) -> anyhow::Result<()> {
    let mut client = Client::connect(&address).await?;
    let mut ticks = tokio::time::interval(interval);
    for _ in 0..appends {
        ticks.tick().await;
        let sent = origin.elapsed().as_micros();
        let body = load::append_body(1, &format!(r#"{{"sent_us":{sent},"order":{EVENT_DATA}}}"#));
        client.expect(&load::append(&format!("{AGGREGATE_TYPE}/{stream}"), "", &body), 201).await?;
    }
    Ok(())
}

/// Opens event streams with the events that [`load::Work::NewStreams`] appends. The events are read and discarded until
/// the result is dropped.
pub async fn subscribe_and_discard(address: &str, subscribers: usize) -> anyhow::Result<JoinSet<()>> {
    let mut event_streams = JoinSet::new();
    for _ in 0..subscribers {
        let mut connection = subscribe(address, "Bench").await?;
        event_streams.spawn(async move {
            // A broken event stream is not an error, because only the memory of the server is measured.
            drop(tokio::io::copy(&mut connection, &mut tokio::io::sink()).await);
        });
    }
    Ok(event_streams)
}

/// Requests the event stream of an aggregate type, beginning at the head of the log.
async fn subscribe(address: &str, aggregate_type: &str) -> anyhow::Result<TcpStream> {
    let path = format!("/events?after=head&aggregate_type={aggregate_type}");
    load::open(address, &path, "text/event-stream").await
}

/// The events that a subscriber has read.
struct Received {
    /// For each event, the time from sending the append until the subscriber has read it, in microseconds.
    delays_us: Vec<u64>,
    out_of_order: u64,
}

/// Subscribes at the head of the log, waits until all subscribers are ready, and reads `total` events.
async fn receive(address: String, total: u64, origin: Instant, ready: Arc<Barrier>) -> anyhow::Result<Received> {
    let connection = subscribe(&address, AGGREGATE_TYPE).await?;
    let mut lines = BufReader::with_capacity(256 * 1024, connection);
    let (mut line, mut response) = (String::new(), String::new());
    while !line.starts_with("event: caught-up") {
        response.push_str(&line);
        line.clear();
        if lines.read_line(&mut line).await? == 0 {
            bail!("the event stream ended before the subscriber had caught up: {response}");
        }
    }
    ready.wait().await;
    let mut received = Received { delays_us: Vec::with_capacity(total as usize), out_of_order: 0 };
    let mut last = None;
    while (received.delays_us.len() as u64) < total {
        line.clear();
        if lines.read_line(&mut line).await? == 0 {
            bail!("the event stream ended after {} of {total} events", received.delays_us.len());
        }
        let Some(event) = line.strip_prefix("data: {\"event_id\"") else { continue };
        let position = number_after(event, "\"global_position\":")?;
        if last.is_some_and(|last| position != last + 1) {
            received.out_of_order += 1;
        }
        last = Some(position);
        let sent = number_after(event, "\"sent_us\": ")?;
        received.delays_us.push((origin.elapsed().as_micros() as u64).saturating_sub(sent));
    }
    Ok(received)
}

/// Returns the number that follows the name of a member.
fn number_after(text: &str, name: &str) -> anyhow::Result<u64> {
    let (_, rest) = text.split_once(name).with_context(|| format!("an event has no {name}"))?;
    let digits = rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len());
    Ok(rest[..digits].parse()?)
}
