//! `annals import` beside COPY: the same rows into the same tables, both with empty ones before each round.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, Utc};

use super::BenchArgs;
use super::load::EVENT_DATA;
use super::report::{Report, Row};
use super::server::{On, Site};
use crate::app::event_id_at;
use crate::clock::Clock;
use crate::store::database::ConnectOptions;
use crate::store::scratch::Scratch;

/// What COPY fills; a snapshot or a position is not imported.
const TABLES: [&str; 3] = ["streams", "events", "event_ids"];

pub async fn beside_copy(args: &BenchArgs, other: &ConnectOptions, report: &mut Report) -> anyhow::Result<()> {
    const EVENTS_A_SECOND: u64 = 30_000;
    let events = EVENTS_A_SECOND * args.seconds;
    let file = tempfile::NamedTempFile::new()?;
    let now = Clock::system().now();
    write_events(file.as_file(), 1..=events, |_| now)?;
    let (mut imported, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        // A server is started so that the current month is there for both.
        let (import, copy) =
            (Site::start(other, "annals_bench").await?, Site::start(other, "annals_bench_copy").await?);
        let started = Instant::now();
        import_file(&import.scratch, file.path()).await?;
        imported.push(events as f64 / started.elapsed().as_secs_f64());
        copied.push(events as f64 / copy_tables(&import.scratch, &copy.scratch).await?);
        import.remove().await?;
        copy.remove().await?;
    }
    let what = format!("annals import of {events} events");
    report.rows.push(Row::of_rates(what, 1, &imported, "COPY into the same three tables", &copied));
    Ok(())
}

/// Events as `annals import` reads them, of streams of fifty, a thousand of which grow at a time.
pub fn write_events(
    file: &File,
    events: std::ops::RangeInclusive<u64>,
    time: impl Fn(u64) -> DateTime<Utc>,
) -> anyhow::Result<()> {
    const GROWING: u64 = 1_000;
    const STREAM_EVENTS: u64 = 50;
    let mut lines = BufWriter::new(file);
    for n in events {
        let stream = n % GROWING + n / (GROWING * STREAM_EVENTS) * GROWING;
        let (id, occurred_at) = (event_id_at(time(n)), time(n).to_rfc3339_opts(SecondsFormat::Micros, true));
        writeln!(
            lines,
            r#"{{"event_id":"{id}","aggregate_type":"Stored","aggregate_id":"ord-{stream}","event_type":"OrderPlaced","event_data":{EVENT_DATA},"occurred_at":"{occurred_at}"}}"#
        )?;
    }
    Ok(lines.flush()?)
}

/// Runs `annals import` to its end.
pub async fn import_file(into: &Scratch, file: &Path) -> anyhow::Result<()> {
    let command = On::Database(&into.options()).command("import")?;
    let output = tokio::process::Command::from(command).arg(file).output().await?;
    if !output.status.success() {
        bail!("the import failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Copies the tables from one database to the other, in one transaction; the seconds that the writing took.
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
