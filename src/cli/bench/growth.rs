//! What a long history costs: the same requests to two services, one of which has more stored, or more months.

use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Months, Utc};

use super::BenchArgs;
use super::direct::{AGGREGATES, prepare_loads};
use super::import::{import_file, write_events};
use super::load::{self, Measured, Sent, Work};
use super::report::{Figure, Report, Row, Spread};
use super::server::Site;
use crate::clock::Clock;
use crate::store::database::ConnectOptions;

/// Of the loads, and of the appends.
const CLIENTS: usize = 64;
/// Of the pages.
const READERS: usize = 16;

const LOADS: (&str, usize, Work) =
    ("loads of a snapshot and 50 events", CLIENTS, Work::Loads { aggregates: AGGREGATES as u64 });

/// Loads of aggregates that are alive, and pages from all over the log, with 12 and 36 months beside one.
pub async fn over_months(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    const EVENTS_A_SECOND: u64 = 10_000;
    let events = EVENTS_A_SECOND * args.seconds;
    let one = filled_site(other, "annals_bench_1", events, 1).await?;
    for (name, months) in [("annals_bench_12", 12), ("annals_bench_36", 36)] {
        let many = filled_site(other, name, events, months).await?;
        let pages = ("pages of 100 events of the log", READERS, Work::Pages { events });
        let condition = format!("{events} events in {months} months");
        compare(args, [LOADS, pages], (&many, &condition), (&one, "in 1 month"), report).await?;
        many.remove().await?;
    }
    one.remove().await
}

/// Appends and loads where `events` are stored, beside an empty store.
pub async fn filled(args: &BenchArgs, other: &ConnectOptions, events: u64, report: &mut Report) -> anyhow::Result<()> {
    const MONTHS: u32 = 12;
    let full = filled_site(other, "annals_bench_full", events, MONTHS).await?;
    let size = full.scratch.ask("SELECT (pg_database_size(current_database()) / 1048576)::text").await?;
    let empty = filled_site(other, "annals_bench_empty", 0, 1).await?;
    let appends = ("single events, new streams", CLIENTS, Work::NewStreams { events: 1 });
    let condition = format!("{events} events stored, in {MONTHS} months");
    compare(args, [appends, LOADS], (&full, &condition), (&empty, "an empty store"), report).await?;
    let what = format!("size of the database with {events} events");
    report.figures.push(Figure { what, unit: "MB", value: Spread::of(&[size.parse()?]) });
    full.remove().await?;
    empty.remove().await
}

/// A service with events of the last months, as many each, and aggregates to load.
async fn filled_site(other: &ConnectOptions, name: &str, events: u64, months: u32) -> anyhow::Result<Site> {
    /// What is written to a file before it is imported.
    const PIECE: u64 = 1_000_000;
    let site = Site::start(other, name).await?;
    let now = Clock::system().now();
    let first = beginning(now, months - 1).context("the first month is no time")?;
    let span = (now - first).num_microseconds().context("the span is too long")?;
    let time = |n: u64| {
        let share = i128::from(span) * i128::from(n) / i128::from(events);
        first + chrono::Duration::microseconds(share as i64)
    };
    for from in (1..=events).step_by(PIECE as usize) {
        let file = tempfile::NamedTempFile::new()?;
        let to = events.min(from + PIECE - 1);
        write_events(file.as_file(), from..=to, time)?;
        import_file(&site.scratch, file.path()).await?;
        eprintln!("{name}: {to} of {events} events");
    }
    prepare_loads(&site.server.address).await?;
    // As autovacuum would have it, if it had had the time.
    site.scratch.run("VACUUM (ANALYZE)").await?;
    Ok(site)
}

/// The first moment of the month so many months ago.
fn beginning(now: DateTime<Utc>, months: u32) -> Option<DateTime<Utc>> {
    use chrono::{Datelike, NaiveTime};
    let day = now.date_naive().with_day(1)?.checked_sub_months(Months::new(months))?;
    Some(day.and_time(NaiveTime::MIN).and_utc())
}

/// The same work at both sites, once a round.
async fn compare<const N: usize>(
    args: &BenchArgs,
    works: [(&str, usize, Work); N],
    (site, condition): (&Site, &str),
    (reference, without): (&Site, &str),
    report: &mut Report,
) -> anyhow::Result<()> {
    let duration = Duration::from_secs(args.seconds);
    let (sent, sent_without) = (Sent::default(), Sent::default());
    let mut measured: Vec<(Vec<Measured>, Vec<f64>)> = vec![Default::default(); N];
    for _ in 0..args.rounds {
        for ((_, clients, work), (with, other)) in works.iter().zip(&mut measured) {
            with.push(load::run(&site.server.address, *clients, *work, duration, &sent).await?);
            let rate = load::run(&reference.server.address, *clients, *work, duration, &sent_without).await?.per_second;
            other.push(rate);
        }
    }
    for ((what, clients, _), (with, other)) in works.iter().zip(&measured) {
        report.rows.push(Row::new(format!("{what}; {condition}"), *clients, with, without, other));
    }
    Ok(())
}
