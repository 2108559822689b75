//! Erasures: how long a request takes, how long the removal of the bytes takes, and what it costs appends.

use std::process::Stdio;
use std::time::{Duration, Instant};

use annals::clock::Clock;
use annals::store::connection::config::ConnectOptions;
use anyhow::{Context, ensure};

use crate::args::BenchArgs;
use crate::import::{STORED_TYPE, import_events};
use crate::instance::{BenchInstance, SERVICE_DATABASE, ServerDatabase};
use crate::load::{self, Client, EVENT_DATA, Measurement, RequestCounter, Work};
use crate::report::{Figure, Report, Row, Spread};

/// The clients that append while a month is written again.
const CLIENTS: usize = 16;
const WORK: Work = Work::FixedStreams { streams: 20_000 };
/// The numbers of events of the requests.
const ERASED: [usize; 2] = [50, 10_000];
/// The largest number of events of an append.
const APPENDED_MAX: usize = 1_000;

/// Measures erasures in a month with a number of events. The baseline is the rate of appends without a removal.
pub async fn measure(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    let instance = BenchInstance::start(args, other, SERVICE_DATABASE).await?;
    let now = Clock::system().now();
    import_events(args, &instance.scratch, STORED_TYPE, args.events, |_| now).await?;
    instance.scratch.run("VACUUM (ANALYZE)").await?;
    let (duration, counter) = (Duration::from_secs(args.seconds), RequestCounter::default());
    let (mut beside, mut baseline) = (Vec::<Measurement>::new(), Vec::new());
    let (mut requests, mut removals, mut exchanges) = ([Vec::new(), Vec::new()], Vec::new(), Vec::new());
    for round in 0..args.rounds {
        for (events, times) in ERASED.iter().zip(&mut requests) {
            times.push(erase(&instance, &format!("{round}-{events}"), *events).await?);
        }
        baseline.push(load::run(&instance.server.address, CLIENTS, WORK, duration, &counter).await?.per_second);
        let (removed, measured) = tokio::join!(
            remove(args, &instance),
            load::run(&instance.server.address, CLIENTS, WORK, duration, &counter)
        );
        let (removal, exchange) = removed?;
        ensure!(removal >= duration, "the removal took only {removal:?}: measure fewer --seconds, or more --events");
        removals.push(removal.as_secs_f64() * 1e3);
        exchanges.push(exchange);
        beside.push(measured?);
    }
    let events = args.events;
    let name = format!("single events, while a month of {events} events is written again");
    report.rows.push(Row::new(name, CLIENTS, &beside, "without that", &baseline));
    let mut add = |name: String, values: &[f64]| {
        report.figures.push(Figure { name, unit: "ms", value: Spread::from_values(values) });
    };
    for (erased, times) in ERASED.iter().zip(&requests) {
        add(format!("erasing {erased} events of a stream, with the pause of 100 ms before the announcement"), times);
    }
    add(format!("writing a month of {events} events and the snapshots again, beside appends"), &removals);
    add("exchange of the two tables, for which appends wait".to_owned(), &exchanges);
    instance.remove().await
}

/// Appends a stream and erases it. Returns the time of the request to erase, in milliseconds.
async fn erase(instance: &BenchInstance, aggregate_id: &str, events: usize) -> anyhow::Result<f64> {
    let mut client = Client::connect(&instance.server.address).await?;
    let mut left = events;
    while left > 0 {
        let count = left.min(APPENDED_MAX);
        let append = load::append(&format!("Person/{aggregate_id}"), "", &load::append_body(count, EVENT_DATA));
        client.expect(&append, 201).await?;
        left -= count;
    }
    let stream = format!(r#"{{"aggregate_type":"Person","aggregate_id":"{aggregate_id}"}}"#);
    let body = load::json_body(&format!(r#"{{"reason":"a measurement","streams":[{stream}]}}"#));
    let started = Instant::now();
    client.expect(&format!("POST /erasures HTTP/1.1\r\nHost: localhost\r\n{body}"), 201).await?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// Removes the erased bytes. Returns how long that took, and the milliseconds of the exchange of the tables.
async fn remove(args: &BenchArgs, instance: &BenchInstance) -> anyhow::Result<(Duration, f64)> {
    let mut command = ServerDatabase::Url(&instance.scratch.options()).command(args, "erasures")?;
    command.arg("run").env("ANNALS_LOG", "json").env("ANNALS_LOG_LEVEL", "info");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (took, log) = (started.elapsed(), String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(output.status.success(), "annals erasures run: {log}");
    let (_, waited) = log.split_once("\"waited_ms\":").context("no table was replaced")?;
    Ok((took, waited.split(['}', ',']).next().unwrap_or_default().parse()?))
}
