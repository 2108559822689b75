//! Consumer groups: workers that catch up, that take one event at a time, and that wait for new events.
//!
//! The group has 16 partitions. Each worker has a connection of its own, claims events, and acknowledges a claim and claims
//! the next one in a single request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::domain::partition::bucket;
use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::args::BenchArgs;
use crate::direct_sql::{DirectSql, Script};
use crate::instance::BenchInstance;
use crate::load::{self, Client, EVENT_DATA, EVENTS_OF_STREAM, Measurement, PARTITIONS, RequestCounter, json_body};
use crate::report::{Delivery, Report, Row};
use crate::rivals::{Rates, Rivals};
use crate::scratch::Scratch;

/// The number of workers that catch up, and that wait.
const WORKERS: usize = 8;
/// The number of workers that take one event at a time.
const SINGLE_WORKERS: usize = 16;
/// The stream whose events fail in one of the rows.
const POISON_STREAM: &str = "ord-0";

/// Measures all rows.
pub async fn measure(
    args: &BenchArgs,
    instance: &BenchInstance,
    direct: &Scratch,
    report: &mut Report,
) -> anyhow::Result<()> {
    let address = &instance.server.address;
    fill(address, args.events).await?;
    let mut groups = Groups { address: address.clone(), number: 0 };
    let (mut claims, mut pages) = (Vec::new(), Vec::new());
    let (mut beside_snapshot, mut without_snapshot) = (Vec::new(), Vec::new());
    let (mut beside_poison, mut without_poison) = (Vec::new(), Vec::new());
    let mut rivals = match &args.rivals {
        Some(folder) => Some(Rivals::start(args, folder, &direct.options()).await?),
        None => None,
    };
    let mut rates = Rates::default();
    for _ in 0..args.rounds {
        pages.push(read_pages(address).await?);
        let plain = groups.catch_up(100, WORKERS, None, false).await?;
        claims.push(plain);
        without_snapshot.push(plain.per_second);
        without_poison.push(plain.per_second);
        let mut session = instance.scratch.session().await?;
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM partitions").await?;
        beside_snapshot.push(groups.catch_up(100, WORKERS, None, false).await?);
        drop(session);
        beside_poison.push(groups.catch_up(100, WORKERS, None, true).await?);
        if let Some(rivals) = &mut rivals {
            rivals.measure(WORKERS, &mut rates).await?;
        }
    }
    let name = |what: &str| format!("events of a consumer group, claims of 100{what}");
    report.rows.push(Row::new(name(""), WORKERS, &claims, "one reader with pages of 100", &pages));
    let row =
        Row::new(name(", beside a REPEATABLE READ snapshot"), WORKERS, &beside_snapshot, "without", &without_snapshot);
    report.rows.push(row);
    let row = Row::new(name(", beside a stream that fails"), WORKERS, &beside_poison, "without", &without_poison);
    report.rows.push(row);

    if let Some(rivals) = rivals {
        for (rival, rates) in [
            ("NATS JetStream, 16 consumers", &rates.nats),
            ("pgmq, read_grouped_head", &rates.pgmq),
            ("message-db, 16 members", &rates.message_db),
        ] {
            report.rows.push(Row::new(name(""), WORKERS, &claims, rival, rates));
        }
        rivals.remove().await?;
    }

    let sql = DirectSql::find(args, direct);
    let (mut single, mut inserts) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        inserts.push(sql.run(&Script::InsertOne, SINGLE_WORKERS, args.seconds).await?);
        let time = Some(Duration::from_secs(args.seconds));
        single.push(groups.catch_up(1, SINGLE_WORKERS, time, false).await?);
    }
    let what = "events of a consumer group, claims of 1".to_owned();
    report.rows.push(Row::new(what, SINGLE_WORKERS, &single, "single-row INSERT, direct SQL", &inserts));

    for _ in 0..args.rounds {
        report.deliveries.push(groups.deliver(args, "to workers of a group").await?);
        let mut session = instance.scratch.session().await?;
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM partitions").await?;
        report.deliveries.push(groups.deliver(args, "to workers of a group, beside a long transaction").await?);
    }
    Ok(())
}

/// Appends a number of events, to streams of 100 events each.
async fn fill(address: &str, events: u64) -> anyhow::Result<()> {
    let body = load::append_body(EVENTS_OF_STREAM as usize, EVENT_DATA);
    let counter = RequestCounter::default();
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (address, body, counter) = (address.to_owned(), body.clone(), counter.clone());
        tasks.spawn(async move {
            let mut client = Client::connect(&address).await?;
            while let n = counter.next()
                && n < events / EVENTS_OF_STREAM
            {
                client.expect(&load::append(&format!("Bench/ord-{n}"), "", &body), 201).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Reads the whole log by pages of 100 events. Returns the number of events per second.
async fn read_pages(address: &str) -> anyhow::Result<f64> {
    let mut client = Client::connect(address).await?;
    let started = Instant::now();
    let (mut after, mut events) = (0, 0);
    loop {
        let request = format!("GET /events?after={after}&limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (_, response) = client.response(&request).await?;
        let next = member(response, b"\"next_after\":").context("a page has next_after")?;
        let found = count(response, b"{\"event_id\":");
        if found == 0 {
            return Ok(events as f64 / started.elapsed().as_secs_f64());
        }
        (after, events) = (next, events + found);
    }
}

/// The groups of a run. Each measurement has one of its own.
struct Groups {
    address: String,
    number: u32,
}

impl Groups {
    /// Creates a group. Returns its name.
    async fn create(&mut self, begins_at: &str, aggregate_type: &str) -> anyhow::Result<String> {
        self.number += 1;
        let name = format!("g{}", self.number);
        let retries = vec!["1"; 50].join(",");
        let body = format!(
            r#"{{"filter":{{"aggregate_type":["{aggregate_type}"]}},"partitions":{PARTITIONS},"last_processed_position":{begins_at},"retry_after":[{retries}]}}"#
        );
        let request = format!("PUT /groups/{name} HTTP/1.1\r\nHost: localhost\r\n{}", json_body(&body));
        Client::connect(&self.address).await?.expect(&request, 201).await?;
        Ok(name)
    }

    /// Workers process the log from its beginning, until nothing is left or the time is up. Returns the number of events
    /// per second, and the times of the requests.
    async fn catch_up(
        &mut self,
        limit: usize,
        workers: usize,
        time: Option<Duration>,
        fails: bool,
    ) -> anyhow::Result<Measurement> {
        let name = self.create("0", "Bench").await?;
        let started = Instant::now();
        let until = time.map(|time| started + time);
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let worker = Worker { address: self.address.clone(), group: name.clone(), limit, wait: 0, fails };
            tasks.spawn(worker.process(until));
        }
        let (mut events, mut latencies) = (0, Vec::new());
        while let Some(done) = tasks.join_next().await {
            let (processed, of_worker) = done??;
            events += processed;
            latencies.extend(of_worker);
        }
        let per_second = events as f64 / started.elapsed().as_secs_f64();
        latencies.sort_unstable();
        ensure!(!latencies.is_empty(), "no worker has received a claim");
        let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
        Ok(Measurement { per_second, p50: quantile(0.5), p99: quantile(0.99) })
    }

    /// Clients append at the configured rate, while workers wait. Returns the times from sending an append until a worker
    /// has received the event.
    async fn deliver(&mut self, args: &BenchArgs, name: &'static str) -> anyhow::Result<Delivery> {
        const APPENDERS: u64 = 8;
        let group = self.create("\"head\"", "Waited").await?;
        let each = (args.rate * args.seconds).div_ceil(APPENDERS);
        let total = each * APPENDERS;
        let origin = Instant::now();
        let received = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let worker =
                Worker { address: self.address.clone(), group: group.clone(), limit: 100, wait: 1, fails: false };
            workers.spawn(worker.receive(total, origin, received.clone()));
        }
        let started = Instant::now();
        let interval = Duration::from_secs_f64(APPENDERS as f64 / args.rate as f64);
        let mut appenders = JoinSet::new();
        for n in 0..APPENDERS {
            let address = self.address.clone();
            appenders.spawn(async move {
                let mut client = Client::connect(&address).await?;
                let mut ticks = tokio::time::interval(interval);
                for _ in 0..each {
                    ticks.tick().await;
                    let sent = origin.elapsed().as_micros();
                    let body = load::append_body(1, &format!(r#"{{"sent_us":{sent},"order":{EVENT_DATA}}}"#));
                    client.expect(&load::append(&format!("Waited/{n}"), "", &body), 201).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = appenders.join_next().await {
            done??;
        }
        let elapsed = started.elapsed();
        let mut delays_us: Vec<u64> = Vec::new();
        while let Some(done) = workers.join_next().await {
            delays_us.extend(done??);
        }
        delays_us.sort_unstable();
        let quantile_ms = |q: f64| delays_us[((delays_us.len() - 1) as f64 * q) as usize] as f64 / 1e3;
        Ok(Delivery {
            name,
            subscribers: WORKERS,
            appends_per_second: total as f64 / elapsed.as_secs_f64(),
            p50_ms: quantile_ms(0.5),
            p99_ms: quantile_ms(0.99),
            longest_ms: quantile_ms(1.0),
            out_of_order: 0,
        })
    }
}

/// A worker of a group.
struct Worker {
    address: String,
    group: String,
    limit: usize,
    /// The seconds to wait for a claim.
    wait: u64,
    /// The events of one stream fail.
    fails: bool,
}

/// A claim in a response.
struct Claim {
    id: String,
    claimed_to: u64,
    events: u64,
    /// The position of the first event of the stream that fails.
    failed: Option<u64>,
}

impl Worker {
    /// Processes claims until nothing is left, or until a point in time. Returns the number of events, and the times of the
    /// requests.
    async fn process(self, until: Option<Instant>) -> anyhow::Result<(u64, Vec<Duration>)> {
        let mut client = Client::connect(&self.address).await?;
        let (mut events, mut latencies) = (0, Vec::new());
        let mut claim = None;
        loop {
            let started = Instant::now();
            let response = self.request(&mut client, claim.take()).await?;
            let Some(next) = self.claim_in(response)? else { return Ok((events, latencies)) };
            latencies.push(started.elapsed());
            events += next.events;
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok((events, latencies));
            }
            claim = Some(next);
        }
    }

    /// Receives events until the workers together have received `total`. Returns the time of each from its append until
    /// now, in microseconds.
    async fn receive(self, total: u64, origin: Instant, received: Arc<AtomicU64>) -> anyhow::Result<Vec<u64>> {
        let mut client = Client::connect(&self.address).await?;
        let mut delays = Vec::new();
        let mut claim = None;
        while received.load(Ordering::Relaxed) < total {
            let response = self.request(&mut client, claim.take()).await?;
            let now = origin.elapsed().as_micros() as u64;
            let mut rest = response;
            while let Some(at) = find(rest, b"\"sent_us\":") {
                rest = &rest[at + 10..];
                let digits = rest.iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
                let sent: String = digits.map(|byte| char::from(*byte)).collect();
                delays.push(now - sent.parse::<u64>()?);
                received.fetch_add(1, Ordering::Relaxed);
            }
            claim = self.claim_in(response)?;
        }
        Ok(delays)
    }

    /// Claims events, or acknowledges a claim and claims the next one.
    async fn request<'c>(&self, client: &'c mut Client, claim: Option<Claim>) -> anyhow::Result<&'c [u8]> {
        let Self { group, limit, wait, .. } = self;
        let request = match claim {
            None => format!(
                "POST /groups/{group}/claims?limit={limit}&wait={wait} HTTP/1.1\r\nHost: localhost\r\nContent-Length: \
                 0\r\n\r\n"
            ),
            Some(Claim { id, claimed_to, failed, .. }) => {
                let failed = failed.map(|position| format!(r#"{{"global_position":{position},"reason":"it fails"}}"#));
                let body =
                    format!(r#"{{"last_processed_position":{claimed_to},"failed":[{}]}}"#, failed.unwrap_or_default());
                format!(
                    "PUT /groups/{group}/claims/{id}?next=true&limit={limit}&wait={wait} HTTP/1.1\r\nHost: \
                     localhost\r\n{}",
                    json_body(&body)
                )
            }
        };
        let (status, response) = client.response(&request).await?;
        ensure!(matches!(status, 200 | 201 | 204), "{}", String::from_utf8_lossy(response));
        Ok(response)
    }

    fn claim_in(&self, response: &[u8]) -> anyhow::Result<Option<Claim>> {
        // The claim in the response to an acknowledgement is the last one with an id.
        let Some(claimed_to) = member(response, b"\"claimed_to\":") else { return Ok(None) };
        let at = rfind(response, b"\"claim_id\":\"").context("a claim has an id")? + 12;
        let id: String =
            response[at..].iter().take_while(|byte| **byte != b'"').map(|byte| char::from(*byte)).collect();
        let events = count(response, b"{\"event_id\":");
        // Only the claims of its partition are searched, because the search takes time from the service.
        let partition = u16::from(bucket("Bench", POISON_STREAM)) % PARTITIONS;
        let is_of_partition = id.split('.').nth(1) == Some(&partition.to_string());
        let failed = if self.fails && is_of_partition && find(response, POISON_STREAM.as_bytes()).is_some() {
            first_of_poison_stream(response)?
        } else {
            None
        };
        Ok(Some(Claim { id, claimed_to, events, failed }))
    }
}

/// Returns the position of the first event of the stream that fails.
fn first_of_poison_stream(response: &[u8]) -> anyhow::Result<Option<u64>> {
    let text = String::from_utf8_lossy(response);
    let (from, to) = (text.find('{').context("a body")?, text.rfind('}').context("a body")?);
    // A body in chunks has lines with their lengths.
    let body: String = text[from..=to].split("\r\n").step_by(2).collect();
    let body: Value = serde_json::from_str(&body)?;
    let claim = if body["claim"].is_object() { &body["claim"] } else { &body };
    let events = claim["events"].as_array().into_iter().flatten();
    Ok(events
        .filter(|event| event["aggregate_id"] == POISON_STREAM)
        .find_map(|event| event["global_position"].as_u64()))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn rfind(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).rposition(|window| window == wanted)
}

fn count(text: &[u8], wanted: &[u8]) -> u64 {
    text.windows(wanted.len()).filter(|window| *window == wanted).count() as u64
}

/// Returns the number of the last member with a name.
fn member(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = rfind(text, name)? + name.len();
    let digits: String =
        text[at..].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
    digits.parse().ok()
}
