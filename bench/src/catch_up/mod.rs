//! Readers that are far behind: reads of the whole log and of parts of it, compared with COPY of the same rows in the
//! same order, and with each other.

mod filtering;
mod memory;
mod reading;

use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use annals::clock::Clock;
use annals::store::connection::config::ConnectOptions;
use anyhow::{Context, ensure};
use chrono::{DateTime, Days, Utc};
use tokio::task::JoinSet;

use crate::args::BenchArgs;
use crate::catch_up::reading::{Format, Reading, read_events};
use crate::import::{EVENT_TYPES, RARE_EVENT_TYPE, STORED_TYPE, event_type, import_events};
use crate::instance::{BenchInstance, SERVICE_DATABASE, ServerDatabase, run_command};
use crate::load::{Client, EVENT_DATA, append, append_body};
use crate::report::{Figure, Report, Row, Spread};
use crate::scratch::Scratch;
use crate::subscribers;

/// The number of workers that rebuild one projection side by side.
const WORKERS: usize = 4;
/// The number of subscribers that catch up at once.
const SUBSCRIBERS: usize = 10;
/// The number of events in the long stream.
const LONG_STREAM: u64 = 10_000;
/// The columns that a reader gets.
const COLUMNS: &str = "event_id, aggregate_type, aggregate_id, version, global_position, event_type, event_data, metadata, \
                       occurred_at, correlation_id, causation_id";

/// One side of a comparison.
enum Side {
    /// A read over HTTP.
    Read { path: String, format: Format },
    /// Several reads of the log at the same time. Their events are counted together.
    Reads { paths: Vec<String>, format: Format },
    /// COPY of the events that meet a condition, in the order of a column.
    Copy { condition: String, order: &'static str },
    /// `annals export` to a file that discards it.
    Export,
}

/// A row of the report: two sides that must return the same events.
struct Comparison {
    name: String,
    clients: usize,
    /// Each client of the measured side gets all events.
    is_repeated: bool,
    measured: Side,
    baseline_name: String,
    baseline: Side,
}

/// Measures all rows on one log.
pub async fn measure(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    let instance = BenchInstance::start(args, other, SERVICE_DATABASE).await?;
    fill(args, &instance.scratch).await?;
    compare(args, &instance, &comparisons(args), report).await?;
    if args.measures("long stream") {
        measure_long_stream(args, &instance, report).await?;
    }
    if args.measures("live delivery") {
        measure_live_delivery(args, &instance.server.address, report).await?;
    }
    if args.measures("memory") {
        memory::measure(args, &instance.scratch, report).await?;
    }
    if args.measures("match nothing") {
        filtering::measure(args, &instance.scratch, report).await?;
    }
    instance.remove().await?;
    if args.measures("archived months") {
        compare_with_archive(args, other, report).await?;
    }
    Ok(())
}

/// Imports the events of the log.
async fn fill(args: &BenchArgs, scratch: &Scratch) -> anyhow::Result<()> {
    let now = Clock::system().now();
    import_events(args, scratch, STORED_TYPE, args.events, |_| now).await?;
    // Otherwise autovacuum would run while reads are measured.
    scratch.run("VACUUM (ANALYZE)").await
}

fn comparisons(args: &BenchArgs) -> Vec<Comparison> {
    let log = |query: &str| format!("/events?after=0{query}");
    let lines = |query: &str| Side::Read { path: log(query), format: Format::Lines };
    let all = || Side::Copy { condition: "true".to_owned(), order: "global_position" };
    let types = |list: &[String]| {
        let parameters: String = list.iter().map(|name| format!("&event_type={name}")).collect();
        let quoted: Vec<String> = list.iter().map(|name| format!("'{name}'")).collect();
        let condition = format!("event_type IN ({})", quoted.join(", "));
        (lines(&parameters), Side::Copy { condition, order: "global_position" })
    };
    let named: Vec<String> = (1..=EVENT_TYPES).map(event_type).collect();
    let copy = "COPY (… ORDER BY global_position) TO STDOUT";
    let row = |name: &str, measured, baseline_name: &str, baseline| Comparison {
        name: name.to_owned(),
        clients: 1,
        is_repeated: false,
        measured,
        baseline_name: baseline_name.to_owned(),
        baseline,
    };
    let mut rows = vec![
        row("NDJSON, whole log", lines(""), copy, all()),
        row(
            "event stream, whole log",
            Side::Read { path: log(""), format: Format::EventStream },
            "NDJSON, whole log",
            lines(""),
        ),
        row("annals export", Side::Export, copy, all()),
    ];
    let rare = [RARE_EVENT_TYPE.to_owned()];
    let every: Vec<String> = named.iter().cloned().chain(rare.clone()).collect();
    for (share, list) in [
        ("1 %", &rare[..]),
        ("one event type of eleven, 9 %", &named[..1]),
        ("27 %", &named[..3]),
        ("54 %", &named[..6]),
        ("90 %", &named[..10]),
        ("100 %", &every[..]),
    ] {
        let (measured, baseline) = types(list);
        rows.push(row(&format!("NDJSON, filtered: {share}"), measured, "the same COPY with WHERE", baseline));
    }
    let partitions = (0..WORKERS).map(|n| log(&format!("&partition={n}/{WORKERS}"))).collect();
    // Readers with a filter cannot be faster than these: each of these reads only the events that it returns.
    let ends: Vec<u64> = (0..=WORKERS as u64).map(|n| n * args.events / WORKERS as u64).collect();
    let quarters =
        ends.windows(2).map(|part| format!("/events?after={}&limit={}", part[0], part[1] - part[0])).collect();
    for (name, paths) in [
        ("NDJSON, partition=i/4, together", partitions),
        ("NDJSON, a quarter of the positions each, together", quarters),
    ] {
        let measured = Side::Reads { paths, format: Format::Lines };
        rows.push(Comparison { clients: WORKERS, ..row(name, measured, "one reader, NDJSON", lines("")) });
    }
    let subscribers = vec![log(""); SUBSCRIBERS];
    rows.push(Comparison {
        clients: SUBSCRIBERS,
        is_repeated: true,
        ..row(
            "event streams that catch up at once, together",
            Side::Reads { paths: subscribers, format: Format::EventStream },
            "one event stream",
            Side::Read { path: log(""), format: Format::EventStream },
        )
    });
    rows.retain(|row| args.measures(&row.name));
    rows
}

/// Measures both sides of each row alternately, once in each round.
async fn compare(
    args: &BenchArgs,
    instance: &BenchInstance,
    comparisons: &[Comparison],
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut rates: Vec<(Vec<f64>, Vec<f64>)> = comparisons.iter().map(|_| Default::default()).collect();
    for _ in 0..args.rounds {
        for (row, (measured, baseline)) in comparisons.iter().zip(&mut rates) {
            let (events, rate_of_measured) = read_side(args, instance, &row.measured).await?;
            let (baseline_events, rate_of_baseline) = read_side(args, instance, &row.baseline).await?;
            let copies = if row.is_repeated { row.clients as u64 } else { 1 };
            ensure!(events == baseline_events * copies, "{}: {events} and {baseline_events} events", row.name);
            measured.push(rate_of_measured);
            baseline.push(rate_of_baseline);
        }
    }
    for (row, (measured, baseline)) in comparisons.iter().zip(rates) {
        report.rows.push(Row::from_rates(row.name.clone(), row.clients, &measured, &row.baseline_name, &baseline));
    }
    Ok(())
}

/// Returns the number of events of one side, and their rate per second.
async fn read_side(args: &BenchArgs, instance: &BenchInstance, side: &Side) -> anyhow::Result<(u64, f64)> {
    let address = &instance.server.address;
    let started = Instant::now();
    let events = match side {
        Side::Read { path, format } => read_events(address, path, *format).await?.events,
        Side::Reads { paths, format } => read_at_once(address, paths, *format).await?,
        Side::Copy { condition, order } => copy_events(&instance.scratch, condition, order).await?,
        Side::Export => export(args, &instance.scratch, args.events).await?,
    };
    ensure!(events > 0, "a side has returned no events");
    Ok((events, events as f64 / started.elapsed().as_secs_f64()))
}

/// Reads several paths at once. Returns the number of all events.
async fn read_at_once(address: &str, paths: &[String], format: Format) -> anyhow::Result<u64> {
    let mut readers = JoinSet::new();
    for path in paths {
        let (address, path) = (address.to_owned(), path.clone());
        readers.spawn(async move { read_events(&address, &path, format).await });
    }
    let mut events = 0;
    while let Some(reading) = readers.join_next().await {
        events += reading??.events;
    }
    Ok(events)
}

async fn copy_events(scratch: &Scratch, condition: &str, order: &str) -> anyhow::Result<u64> {
    let query = format!("SELECT {COLUMNS} FROM events WHERE {condition} ORDER BY {order}");
    scratch.session().await?.count_copied(&query).await
}

/// Runs `annals export`, and discards its output. Returns the number of events.
async fn export(args: &BenchArgs, scratch: &Scratch, events: u64) -> anyhow::Result<u64> {
    let mut command = ServerDatabase::Url(&scratch.options()).command(args, "export")?;
    command.stdout(Stdio::null());
    run_command(command).await?;
    Ok(events)
}

/// Measures reads of one stream of 10,000 events: lines, all its pages, and the aggregate with all its events.
async fn measure_long_stream(args: &BenchArgs, instance: &BenchInstance, report: &mut Report) -> anyhow::Result<()> {
    const STREAM: &str = "Long/stream-1";
    let address = &instance.server.address;
    append_long_stream(address, STREAM).await?;
    let condition = "aggregate_type = 'Long' AND aggregate_id = 'stream-1'".to_owned();
    let (mut lines, mut pages, mut loads, mut copies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        lines.push(read_events(address, &format!("/streams/{STREAM}?limit={LONG_STREAM}"), Format::Lines).await?);
        pages.push(reading::read_pages(address, &format!("/streams/{STREAM}?limit=1000")).await?);
        loads.push(reading::read_pages(address, &format!("/aggregates/{STREAM}")).await?);
        let started = Instant::now();
        let events = copy_events(&instance.scratch, &condition, "version").await?;
        copies.push(events as f64 / started.elapsed().as_secs_f64());
    }
    for (name, readings) in [
        ("a stream of 10,000 events as NDJSON", lines),
        ("a stream of 10,000 events in pages of 1,000", pages),
        ("an aggregate of 10,000 events without a snapshot", loads),
    ] {
        ensure!(readings.iter().all(|reading| reading.events == LONG_STREAM), "{name}: {readings:?}");
        let rates: Vec<f64> = readings.iter().map(Reading::rate).collect();
        report.rows.push(Row::from_rates(name.to_owned(), 1, &rates, "COPY (… ORDER BY version) TO STDOUT", &copies));
        let first: Vec<f64> = readings.iter().map(|reading| reading.first_byte.as_secs_f64() * 1e3).collect();
        let last: Vec<f64> = readings.iter().map(|reading| reading.took.as_secs_f64() * 1e3).collect();
        for (what, values) in [("first", first), ("last", last)] {
            let name = format!("{name}: {what} byte after");
            report.figures.push(Figure { name, unit: "ms", value: Spread::from_values(&values) });
        }
    }
    Ok(())
}

/// Appends the events of the long stream, 100 at a time.
async fn append_long_stream(address: &str, stream: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(address).await?;
    let body = append_body(100, EVENT_DATA);
    for _ in 0..LONG_STREAM / 100 {
        client.expect(&append(stream, "", &body), 201).await?;
    }
    Ok(())
}

/// Measures the delivery to live subscribers, alone and beside subscribers that catch up again and again.
async fn measure_live_delivery(args: &BenchArgs, address: &str, report: &mut Report) -> anyhow::Result<()> {
    report.deliveries.push(subscribers::measure(args, address, "without subscribers that catch up").await?);
    let mut catching_up = JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let address = address.to_owned();
        catching_up.spawn(async move {
            loop {
                if let Err(error) = read_events(&address, "/events?after=0", Format::EventStream).await {
                    return error;
                }
            }
        });
    }
    let delivery = subscribers::measure(args, address, "beside ten subscribers that catch up").await?;
    if let Some(error) = catching_up.try_join_next() {
        return Err(error?.context("a subscriber that catches up has failed"));
    }
    report.deliveries.push(delivery);
    Ok(())
}

/// Measures reads of archived months. The baseline is another database with the same events, which are not archived.
async fn compare_with_archive(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    const MONTHS_AGO: u64 = 24;
    let now = Clock::system().now();
    let first = now - Days::new(MONTHS_AGO * 30);
    // The events are in six months, which all ended more than a year ago.
    let time =
        |n: u64| -> DateTime<Utc> { first + chrono::Duration::seconds((n * 6 * 30 * 86_400 / args.events) as i64) };
    let folder = tempfile::tempdir()?;
    let mut instances = Vec::new();
    for name in ["annals_bench_database", "annals_bench_archive"] {
        let scratch = Scratch::create(other.clone(), name).await?;
        run_command(ServerDatabase::Url(&scratch.options()).command(args, "migrate")?).await?;
        import_events(args, &scratch, STORED_TYPE, args.events, time).await?;
        if name == "annals_bench_archive" {
            archive(args, &scratch, folder.path()).await?;
        }
        scratch.run("VACUUM (ANALYZE)").await?;
        let folder = folder.path().to_str().context("the path of the archive is not UTF-8")?;
        let settings = [("ARCHIVE_URL", folder)];
        instances.push(BenchInstance::start_on(args, scratch, &settings).await?);
    }
    let path = format!("/events?after=0&limit={}", args.events);
    let (mut archived, mut stored) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        stored.push(read_events(&instances[0].server.address, &path, Format::Lines).await?.rate());
        archived.push(read_events(&instances[1].server.address, &path, Format::Lines).await?.rate());
    }
    let name = "archived months as NDJSON".to_owned();
    report.rows.push(Row::from_rates(name, 1, &archived, "the same months in the database", &stored));
    for instance in instances {
        instance.remove().await?;
    }
    Ok(())
}

/// Runs `annals archive`.
async fn archive(args: &BenchArgs, scratch: &Scratch, folder: &Path) -> anyhow::Result<()> {
    let mut command = ServerDatabase::Url(&scratch.options()).command(args, "archive")?;
    command.arg("--yes").env("ARCHIVE_URL", folder);
    run_command(command).await
}
