//! The two passes of an import.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::cli::counted::counted;
use crate::cli::database::{Database, with_database};
use crate::cli::import::batch::{Batch, Imported, another_event};
use crate::cli::import::file::Lines;
use crate::cli::import::source::open;
use crate::clock::Clock;
use crate::config::database::DatabaseArgs;
use crate::domain::append::REQUEST_EVENTS_MAX;
use crate::domain::derived_id::DerivedIds;
use crate::store::admin::migrate;
use crate::store::append::import::{ImportBatch, Importer};
use crate::wire::time::format_time;

/// The largest time by which an event may be ahead of the clock. Clocks differ; a larger difference is a mistake.
const AHEAD_MAX: chrono::Duration = chrono::Duration::days(1);

/// The arguments of `annals import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File with one event a line, plain or compressed with gzip; a pipe; or - for standard input
    file: PathBuf,

    /// keep: events keep the times of their lines, which must not go backwards; raise: a time that goes backwards
    /// becomes the time of the line before; now: events occur now. Original times go into metadata.occurred_at
    #[arg(long, value_enum, default_value_t = Time::Keep)]
    time: Time,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Time {
    Keep,
    Raise,
    Now,
}

/// Runs `annals import`.
pub async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let mut file = open(&args.file)?;
    let work = async |database: &Database| import(&mut file, args.time, database).await;
    let (Imported { written, known }, raised) = with_database(&args.database, work).await?;
    let raised = if args.time == Time::Raise { format!(", {} raised", counted(raised, "time")) } else { String::new() };
    println!("{}, {known} known already{raised}", counted(written, "new event"));
    Ok(ExitCode::SUCCESS)
}

/// Imports the file. Returns the totals, and the number of times that were raised.
async fn import(file: &mut File, time: Time, database: &Database) -> anyhow::Result<(Imported, u64)> {
    migrate::migrate(&database.config).await?;
    let mut importer = Importer::connect(&database.config).await?;
    let ids = importer.derived_ids().await?;
    let checked = check(file, time, ids, &mut importer).await.context("nothing was written")?;
    importer.create_partitions(&checked.months).await?;
    let imported = write(file, time, ids, &mut importer, checked.bytes).await?;
    importer.finish().await?;
    Ok((imported, checked.raised))
}

/// The result of the first pass.
struct Checked {
    bytes: u64,
    /// The number of times that went backwards, and were raised.
    raised: u64,
    /// The months of events that may be new, each with a time in it.
    months: BTreeMap<String, DateTime<Utc>>,
}

/// Checks, in the first pass, that every line is a valid event and that times do not go backwards. Writes nothing.
async fn check(file: &mut File, time: Time, ids: DerivedIds, importer: &mut Importer) -> anyhow::Result<Checked> {
    let bytes = file.metadata()?.len();
    let progress = progress("checking", bytes);
    let log_ends = importer.last_occurred_at().await?;
    let mut last: Option<DateTime<Utc>> = None;
    let mut raised = 0;
    let mut months = BTreeMap::new();
    let latest = Clock::system().now() + AHEAD_MAX;
    let mut before_the_end: Vec<(u64, Uuid, DateTime<Utc>)> = Vec::new();
    let mut lines = Lines::read(file, ids)?;
    while let Some(event) = lines.next_event(&progress)? {
        if time == Time::Now {
            continue;
        }
        let number = lines.number;
        if event.occurred_at.is_some_and(|occurred_at| occurred_at > latest) {
            bail!(
                "the event of line {number} occurred in the future. Times in the log never go backwards, so every \
                 later event would get that time. Correct the line, or import with --time=now"
            );
        }
        let Some(mut occurred_at) = event.occurred_at else {
            bail!("line {number} has no occurred_at: add it, or import with --time=now");
        };
        if let Some(last) = last
            && occurred_at < last
        {
            if time == Time::Keep {
                bail!(
                    "line {number} goes backwards in time, from {} to {}. Sort the lines by occurred_at, or import \
                     with --time=raise, which raises such a time to that of the line before, or with --time=now. Both \
                     store the original time in metadata.occurred_at",
                    format_time(last),
                    format_time(occurred_at),
                );
            }
            occurred_at = last;
            raised += 1;
        }
        last = Some(occurred_at);
        // Only events that the log already contains may be older than its end.
        if log_ends.is_some_and(|end| occurred_at < end) {
            before_the_end.push((number, event.event.event_id.uuid(), occurred_at));
        } else {
            months.entry(occurred_at.format("%Y-%m").to_string()).or_insert(occurred_at);
        }
        if before_the_end.len() >= REQUEST_EVENTS_MAX {
            refuse_unknown(importer, log_ends, &before_the_end).await?;
            before_the_end.clear();
        }
    }
    refuse_unknown(importer, log_ends, &before_the_end).await?;
    progress.finish_and_clear();
    Ok(Checked { bytes, raised, months })
}

/// Fails if the log does not contain all of these events, which are older than its end, with these times.
async fn refuse_unknown(
    importer: &mut Importer,
    log_ends: Option<DateTime<Utc>>,
    events: &[(u64, Uuid, DateTime<Utc>)],
) -> anyhow::Result<()> {
    let ids: Vec<Uuid> = events.iter().map(|(_, id, _)| *id).collect();
    let known = importer.known_times(&ids).await?;
    for ((number, _, occurred_at), known) in events.iter().zip(&known) {
        if known.is_some_and(|known| known != *occurred_at) {
            bail!("line {number}: {}", another_event());
        }
    }
    let unknown = events.iter().zip(known).find(|(_, known)| known.is_none());
    if let (Some(((number, _, occurred_at), _)), Some(end)) = (unknown, log_ends) {
        bail!(
            "line {number} occurred at {}, before the last event of the log at {}, and times in the log never go \
             backwards. Import into an empty store, or with --time=now, which stores the original time in \
             metadata.occurred_at",
            format_time(*occurred_at),
            format_time(end),
        );
    }
    Ok(())
}

/// Writes the events in the second pass: one batch in each commit, while the next batch is read. After a failure, the
/// earlier batches are written, and a repeated import continues after them.
async fn write(
    file: &File,
    time: Time,
    ids: DerivedIds,
    importer: &mut Importer,
    bytes: u64,
) -> anyhow::Result<Imported> {
    let progress = progress("importing", bytes);
    let (ready, mut batches) = mpsc::channel(1);
    let reading = tokio::task::spawn_blocking({
        let (file, progress) = (file.try_clone()?, progress.clone());
        move || read_ahead(file, time, ids, &progress, &ready)
    });
    let mut imported = Imported::default();
    while let Some((lines, batch)) = batches.recv().await {
        lines.write(batch, importer, &mut imported).await?;
    }
    reading.await??;
    progress.finish_and_clear();
    Ok(imported)
}

/// Reads batches from the file, until the receiver is closed.
fn read_ahead(
    mut file: File,
    time: Time,
    ids: DerivedIds,
    progress: &ProgressBar,
    ready: &mpsc::Sender<(Batch, ImportBatch)>,
) -> anyhow::Result<()> {
    let mut lines = Lines::read(&mut file, ids)?;
    let mut batch = Batch::default();
    let mut last = None;
    while let Some(mut event) = lines.next_event(progress)? {
        match time {
            Time::Keep => {}
            Time::Raise => last = event.occur_at_or_after(last).map_err(|error| fault(lines.number, &error))?,
            Time::Now => event.occur_now().map_err(|error| fault(lines.number, &error))?,
        }
        if !batch.fits(&event) && ready.blocking_send(std::mem::take(&mut batch).prepare()).is_err() {
            return Ok(());
        }
        batch.push(lines.number, event);
    }
    if !batch.is_empty() {
        // If the receiver is closed, the writing side has failed and returns the error.
        drop(ready.blocking_send(batch.prepare()));
    }
    Ok(())
}

/// Returns the error of a line.
fn fault(number: u64, error: &str) -> anyhow::Error {
    anyhow::anyhow!("line {number}: {error}")
}

/// Returns a progress bar, which appears only on a terminal.
fn progress(what: &'static str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {eta}")
        .expect("the template is well-formed");
    ProgressBar::new(bytes).with_style(style).with_prefix(what)
}
