//! The cost of a long history. Two instances get the same requests, and one of them has more events or more partitions.

use std::time::Duration;

use annals::clock::Clock;
use annals::store::connection::config::ConnectOptions;
use anyhow::Context;
use chrono::{DateTime, Datelike, Months, NaiveTime, Utc};

use crate::args::BenchArgs;
use crate::direct::{AGGREGATES, prepare_loads};
use crate::import::{STORED_TYPE, import_events};
use crate::instance::BenchInstance;
use crate::load;
use crate::load::{Measurement, RequestCounter, Work};
use crate::report::{Figure, Report, Row, Spread};

/// Requests that are sent to both instances.
struct Workload {
    name: &'static str,
    clients: usize,
    work: Work,
}

const APPENDS: Workload =
    Workload { name: "single events, new streams", clients: 64, work: Work::NewStreams { events: 1 } };
const LOADS: Workload = Workload {
    name: "loads of a snapshot and 50 events",
    clients: 64,
    work: Work::Loads { aggregates: AGGREGATES as u64 },
};

/// An instance, and the description of its data for the report.
struct Side<'a> {
    instance: &'a BenchInstance,
    data: &'a str,
}

/// Measures loads of aggregates with recent events and reads of pages from the whole log, with the events in 12 and in
/// 36 partitions. The baseline has the same number of events in 1 partition.
pub async fn compare_partitions(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    /// The number of events for each second of a measurement.
    const EVENTS_PER_SECOND: u64 = 10_000;
    let events = EVENTS_PER_SECOND * args.seconds;
    let pages = Workload { name: "pages of 100 events of the log", clients: 16, work: Work::Pages { events } };
    let workloads = [LOADS, pages];
    let single = start_filled(args, other, "annals_bench_1", events, 1).await?;
    for (name, partitions) in [("annals_bench_12", 12), ("annals_bench_36", 36)] {
        let many = start_filled(args, other, name, events, partitions).await?;
        let measured = Side { instance: &many, data: &format!("{events} events in {partitions} partitions") };
        let baseline = Side { instance: &single, data: "in 1 partition" };
        compare(args, &workloads, &measured, &baseline, report).await?;
        many.remove().await?;
    }
    single.remove().await
}

/// Measures appends and loads with a number of stored events. The baseline is an empty store. Also reports the size of
/// the database.
pub async fn compare_with_empty(
    args: &BenchArgs,
    other: &ConnectOptions,
    events: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    const PARTITIONS: u32 = 12;
    let full = start_filled(args, other, "annals_bench_full", events, PARTITIONS).await?;
    let mebibytes = full.scratch.query_text("SELECT (pg_database_size(current_database()) / 1048576)::text").await?;
    let empty = start_filled(args, other, "annals_bench_empty", 0, 1).await?;
    let measured = Side { instance: &full, data: &format!("{events} events stored in {PARTITIONS} partitions") };
    let baseline = Side { instance: &empty, data: "an empty store" };
    compare(args, &[APPENDS, LOADS], &measured, &baseline, report).await?;
    let name = format!("size of the database with {events} events");
    report.figures.push(Figure { name, unit: "MiB", value: Spread::from_values(&[mebibytes.parse()?]) });
    full.remove().await?;
    empty.remove().await
}

/// Starts an instance with the aggregates to load and a number of events. The times of the events are spread evenly
/// over the current month and the months before it, with one partition for each month.
async fn start_filled(
    args: &BenchArgs,
    other: &ConnectOptions,
    name: &str,
    events: u64,
    partitions: u32,
) -> anyhow::Result<BenchInstance> {
    let instance = BenchInstance::start(args, other, name).await?;
    let now = Clock::system().now();
    let first = start_of_month(now, partitions - 1).context("the first month is out of range")?;
    let span = (now - first).num_microseconds().context("the time since the first month is out of range")?;
    let time = |n: u64| {
        let elapsed = i128::from(span) * i128::from(n) / i128::from(events);
        first + chrono::Duration::microseconds(elapsed as i64)
    };
    import_events(args, &instance.scratch, STORED_TYPE, events, time).await?;
    prepare_loads(&instance.server.address).await?;
    // Without this statement, autovacuum would run while requests are measured.
    instance.scratch.run("VACUUM (ANALYZE)").await?;
    Ok(instance)
}

/// Returns the start of the month that is `months` before the month of `now`, in UTC.
fn start_of_month(now: DateTime<Utc>, months: u32) -> Option<DateTime<Utc>> {
    let day = now.date_naive().with_day(1)?.checked_sub_months(Months::new(months))?;
    Some(day.and_time(NaiveTime::MIN).and_utc())
}

/// Measures each workload on both instances, once in each round.
async fn compare(
    args: &BenchArgs,
    workloads: &[Workload],
    measured: &Side<'_>,
    baseline: &Side<'_>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let duration = Duration::from_secs(args.seconds);
    let (counter, baseline_counter) = (RequestCounter::default(), RequestCounter::default());
    let mut results: Vec<(&Workload, Vec<Measurement>, Vec<f64>)> =
        workloads.iter().map(|workload| (workload, Vec::new(), Vec::new())).collect();
    for _ in 0..args.rounds {
        for (Workload { clients, work, .. }, annals, baseline_rates) in &mut results {
            let address = &measured.instance.server.address;
            annals.push(load::run(address, *clients, *work, duration, &counter).await?);
            let address = &baseline.instance.server.address;
            baseline_rates.push(load::run(address, *clients, *work, duration, &baseline_counter).await?.per_second);
        }
    }
    for (workload, annals, baseline_rates) in results {
        let name = format!("{}; {}", workload.name, measured.data);
        report.rows.push(Row::new(name, workload.clients, &annals, baseline.data, &baseline_rates));
    }
    Ok(())
}
