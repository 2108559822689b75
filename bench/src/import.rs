//! `annals import` compared with COPY. Both write the same rows to the same tables, which are empty before each round.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Instant;

use annals::app::event_id_at;
use annals::clock::Clock;
use annals::store::connection::config::ConnectOptions;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::args::BenchArgs;
use crate::instance::{BenchInstance, SERVICE_DATABASE, ServerDatabase, run_command};
use crate::load::EVENT_DATA;
use crate::report::{Report, Row};
use crate::scratch::Scratch;

/// The tables that COPY fills. An import writes neither snapshots nor positions of projections.
const TABLES: [&str; 3] = ["streams", "events", "event_ids"];
/// The aggregate type of events that no client of the benchmark appends.
pub const STORED_TYPE: &str = "Stored";
/// The number of streams whose events alternate in an import. Those streams exist if at least as many events do.
pub const GROWING_STREAMS: u64 = 1_000;
/// The number of event types of which each has about the same number of events.
pub const EVENT_TYPES: u64 = 11;
/// The event type of one event in a hundred.
pub const RARE_EVENT_TYPE: &str = "OrderFlagged";

/// Returns the event type of the event with a number, which is not of the rare type.
pub fn event_type(n: u64) -> String {
    format!("OrderStep{}", n % EVENT_TYPES + 1)
}

/// Measures `annals import`, in events per second. The baseline is COPY of the rows that the import has written.
pub async fn compare_with_copy(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    /// The number of events for each second of a measurement. An import writes about this number in a second.
    const EVENTS_PER_SECOND: u64 = 30_000;
    let events = EVENTS_PER_SECOND * args.seconds;
    let file = tempfile::NamedTempFile::new()?;
    let now = Clock::system().now();
    write_events(file.as_file(), STORED_TYPE, 1..=events, |_| now)?;
    let (mut imported, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        // A service creates the schema and the partition of the current month, which COPY needs.
        let import = BenchInstance::start(args, other, SERVICE_DATABASE).await?;
        let copy = BenchInstance::start(args, other, "annals_bench_copy").await?;
        let started = Instant::now();
        import_file(args, &import.scratch, file.path()).await?;
        imported.push(events as f64 / started.elapsed().as_secs_f64());
        copied.push(events as f64 / copy_tables(&import.scratch, &copy.scratch).await?);
        import.remove().await?;
        copy.remove().await?;
    }
    let name = format!("annals import of {events} events");
    report.rows.push(Row::from_rates(name, 1, &imported, "COPY into the same three tables", &copied));
    Ok(())
}

/// Imports events with the numbers 1 to `events`. `time` returns the time of the event with the given number.
pub async fn import_events(
    args: &BenchArgs,
    database: &Scratch,
    aggregate_type: &str,
    events: u64,
    time: impl Fn(u64) -> DateTime<Utc>,
) -> anyhow::Result<()> {
    /// The number of events in one file, which limits the size of temporary files.
    const FILE_EVENTS: u64 = 1_000_000;
    for from in (1..=events).step_by(FILE_EVENTS as usize) {
        let file = tempfile::NamedTempFile::new()?;
        let to = events.min(from + FILE_EVENTS - 1);
        write_events(file.as_file(), aggregate_type, from..=to, &time)?;
        import_file(args, database, file.path()).await?;
        eprintln!("imported: {to} of {events} events");
    }
    Ok(())
}

/// Writes events to a file for `annals import`. `time` returns the time of the event with the given number. Each stream
/// gets 50 events, and the events of [`GROWING_STREAMS`] streams alternate: `ord-0`, `ord-1` and so on.
fn write_events(
    file: &File,
    aggregate_type: &str,
    events: RangeInclusive<u64>,
    time: impl Fn(u64) -> DateTime<Utc>,
) -> anyhow::Result<()> {
    const STREAM_EVENTS: u64 = 50;
    let mut lines = BufWriter::new(file);
    for n in events {
        let stream = n % GROWING_STREAMS + n / (GROWING_STREAMS * STREAM_EVENTS) * GROWING_STREAMS;
        let event_type = if n % 100 == 50 { RARE_EVENT_TYPE.to_owned() } else { event_type(n) };
        let (id, occurred_at) = (event_id_at(time(n)), time(n).to_rfc3339_opts(SecondsFormat::Micros, true));
        writeln!(
            lines,
            r#"{{"event_id":"{id}","aggregate_type":"{aggregate_type}","aggregate_id":"ord-{stream}","event_type":"{event_type}","event_data":{EVENT_DATA},"occurred_at":"{occurred_at}"}}"#
        )?;
    }
    Ok(lines.flush()?)
}

/// Runs `annals import` on a database, and waits until it has ended.
async fn import_file(args: &BenchArgs, database: &Scratch, file: &Path) -> anyhow::Result<()> {
    let mut command = ServerDatabase::Url(&database.options()).command(args, "import")?;
    command.arg(file);
    run_command(command).await
}

/// Copies the tables from one database to another in one transaction. Returns the seconds that the transaction took.
async fn copy_tables(from: &Scratch, to: &Scratch) -> anyhow::Result<f64> {
    let (mut source, mut target) = (from.session().await?, to.session().await?);
    let mut files = Vec::new();
    for table in TABLES {
        let mut file = tempfile::tempfile()?;
        source.copy_out(table, &mut file).await?;
        file.seek(SeekFrom::Start(0))?;
        files.push((table, file));
    }
    let started = Instant::now();
    target.run("BEGIN").await?;
    for (table, file) in &mut files {
        target.copy_in(table, file).await?;
    }
    target.run("COMMIT").await?;
    Ok(started.elapsed().as_secs_f64())
}
