//! The service compared with direct SQL. Appends, batches and loads are measured alternately on both sides.

use std::time::Duration;

use crate::args::BenchArgs;
use crate::direct_sql::{DirectSql, Script};
use crate::load;
use crate::load::{Client, EVENT_DATA, RequestCounter, Work};
use crate::processor_time::{Processes, ProcessorTime, Reading};
use crate::report::{Report, Row};
use crate::scratch::Scratch;

/// Creates the table of an application that stores its events without Annals, with the keys and indexes that it needs.
pub const DIRECT_TABLES: &str = include_str!("direct_tables.sql");
/// Creates the aggregates that [`prepare_loads`] creates in the service.
const DIRECT_LOADS: &str = include_str!("direct_loads.sql");
/// The number of aggregates to load. Each has a snapshot at version 100, and 50 events after it.
pub const AGGREGATES: usize = 500;

/// One row of the report, which has the same work over HTTP and in SQL.
struct Comparison {
    name: String,
    clients: usize,
    work: Work,
    script: Script,
}

/// Returns the rows of the report.
fn comparisons(args: &BenchArgs) -> Vec<Comparison> {
    const BATCH: usize = 100;
    let mut comparisons: Vec<_> = args
        .clients
        .iter()
        .map(|clients| Comparison {
            name: "single events, new streams".to_owned(),
            clients: *clients,
            work: Work::NewStreams { events: 1 },
            script: Script::InsertOne,
        })
        .collect();
    comparisons.push(Comparison {
        name: format!("{BATCH} events in a request"),
        clients: 4,
        work: Work::NewStreams { events: BATCH },
        script: Script::InsertMany { rows: BATCH },
    });
    comparisons.push(Comparison {
        name: "loads of a snapshot and 50 events".to_owned(),
        clients: 64,
        work: Work::Loads { aggregates: AGGREGATES as u64 },
        script: Script::Loads { aggregates: AGGREGATES },
    });
    comparisons
}

/// Measures the service at `address`. The baseline is direct SQL in the database `direct`. Both sides of each row are
/// measured once in each round.
///
/// `service` is the id of the process of the service; `None`: it is unknown, and no processor times are measured.
pub async fn compare(
    args: &BenchArgs,
    direct: &Scratch,
    address: &str,
    service: Option<u32>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let processes = match service {
        Some(service) => Some(Processes::find(direct, service).await?),
        None => None,
    };
    let direct_sql = DirectSql::find(args, direct);
    direct.run(DIRECT_LOADS).await?;
    prepare_loads(address).await?;
    let duration = Duration::from_secs(args.seconds);
    let counter = RequestCounter::default();
    let mut rows: Vec<_> =
        comparisons(args).into_iter().map(|row| (row, Samples::default(), Samples::default())).collect();
    for _ in 0..args.rounds {
        for (row, annals, baseline) in &mut rows {
            let before = read(processes)?;
            let run = load::run(address, row.clients, row.work, duration, &counter).await?;
            annals.add(run, run.per_second * args.seconds as f64, before, read(processes)?);
            let processes = processes.map(Processes::without_service);
            let before = read(processes)?;
            let rate = direct_sql.run(&row.script, row.clients, args.seconds).await?;
            baseline.add(rate, rate * args.seconds as f64, before, read(processes)?);
        }
    }
    for (row, annals, baseline) in rows {
        let mut measured = Row::new(row.name, row.clients, &annals.rates, direct_sql.name(), &baseline.rates);
        measured.processor_time = ProcessorTime::median(&annals.times).zip(ProcessorTime::median(&baseline.times));
        report.rows.push(measured);
    }
    Ok(())
}

/// The measurements of one side, one in each round.
struct Samples<T> {
    rates: Vec<T>,
    times: Vec<ProcessorTime>,
}

impl<T> Default for Samples<T> {
    fn default() -> Self {
        Self { rates: Vec::new(), times: Vec::new() }
    }
}

impl<T> Samples<T> {
    fn add(&mut self, rate: T, requests: f64, before: Option<Reading>, after: Option<Reading>) {
        self.rates.push(rate);
        self.times.extend(before.zip(after).map(|(before, after)| after.each_since(&before, requests)));
    }
}

fn read(processes: Option<Processes>) -> anyhow::Result<Option<Reading>> {
    processes.map(|processes| processes.read()).transpose()
}

/// Creates [`AGGREGATES`] streams, `Loaded/agg-1` and so on, with 150 events and a snapshot each.
pub async fn prepare_loads(address: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(address).await?;
    let events = load::append_body(150, EVENT_DATA);
    let snapshot = load::json_body(&format!(r#"{{"version":100,"state":{EVENT_DATA}}}"#));
    for aggregate in 1..=AGGREGATES {
        let stream = format!("Loaded/agg-{aggregate}");
        // The status is 412 if an earlier run on the same server has created the stream and its snapshot.
        if client.status(&load::append(&stream, "If-Match: \"0\"\r\n", &events)).await? == 412 {
            continue;
        }
        let put = format!("PUT /snapshots/{stream} HTTP/1.1\r\nHost: localhost\r\n{snapshot}");
        client.expect(&put, 201).await?;
    }
    Ok(())
}
