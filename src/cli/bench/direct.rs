//! Annals beside direct SQL: appends, batches and loads, each done both ways in turn.

use std::time::Duration;

use super::BenchArgs;
use super::by_hand::{ByHand, Script};
use super::load::{self, Client, EVENT_DATA, Sent, Work};
use super::report::{Report, Row};
use crate::store::scratch::Scratch;

/// The tables of a service that writes its events by hand: the mission's columns, keys and indexes, one table.
const DIRECT_TABLES: &str = include_str!("direct_tables.sql");
/// The same aggregates as `prepare_loads` makes.
const DIRECT_LOADS: &str = include_str!("direct_loads.sql");
/// Aggregates with a snapshot at version 100 and 50 events after it.
pub const AGGREGATES: usize = 500;

/// What one row of the table does.
struct Comparison {
    what: String,
    clients: usize,
    work: Work,
    script: Script,
}

fn comparisons(args: &BenchArgs) -> Vec<Comparison> {
    const BATCH: usize = 100;
    let mut rows: Vec<_> = args
        .clients
        .iter()
        .map(|clients| Comparison {
            what: "single events, new streams".to_owned(),
            clients: *clients,
            work: Work::NewStreams { events: 1 },
            script: Script::SingleRows,
        })
        .collect();
    rows.push(Comparison {
        what: format!("{BATCH} events a request"),
        clients: 4,
        work: Work::NewStreams { events: BATCH },
        script: Script::ManyRows(BATCH),
    });
    rows.push(Comparison {
        what: "loads of a snapshot and 50 events".to_owned(),
        clients: 64,
        work: Work::Loads { aggregates: AGGREGATES as u64 },
        script: Script::Loads { aggregates: AGGREGATES },
    });
    rows
}

/// Each row on both sides, once a round.
pub async fn compare(args: &BenchArgs, direct: &Scratch, address: &str, report: &mut Report) -> anyhow::Result<()> {
    let by_hand = ByHand::find(args, direct);
    direct.run(DIRECT_TABLES).await?;
    direct.run(DIRECT_LOADS).await?;
    prepare_loads(address).await?;
    let duration = Duration::from_secs(args.seconds);
    let sent = Sent::default();
    let mut rows: Vec<_> = comparisons(args).into_iter().map(|row| (row, Vec::new(), Vec::new())).collect();
    for _ in 0..args.rounds {
        for (row, annals, direct) in &mut rows {
            annals.push(load::run(address, row.clients, row.work, duration, &sent).await?);
            direct.push(by_hand.run(&row.script, row.clients, args.seconds).await?);
        }
    }
    for (row, annals, direct) in rows {
        report.rows.push(Row::new(row.what, row.clients, &annals, by_hand.name(), &direct));
    }
    Ok(())
}

/// [`AGGREGATES`] streams `Loaded/agg-1` and so on. A stream that is there already, of another run, is good as well.
pub async fn prepare_loads(address: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(address).await?;
    let events = load::append_body(150, EVENT_DATA);
    let snapshot = load::json_body(&format!(r#"{{"version":100,"state":{EVENT_DATA}}}"#));
    for aggregate in 1..=AGGREGATES {
        let stream = format!("Loaded/agg-{aggregate}");
        if client.status(&load::append(&stream, "If-Match: \"0\"\r\n", &events)).await? == 412 {
            continue;
        }
        let put = format!("PUT /snapshots/{stream} HTTP/1.1\r\nHost: bench\r\n{snapshot}");
        client.expect(&put, 201).await?;
    }
    Ok(())
}
