//! `annals import`: events from a file, or from standard input, into the log.
//!
//! Two passes: the first looks at every line and writes nothing, the second writes. Repeating an import adds nothing,
//! because a line without an event id has one made of its stream and its ordinal within it.

mod line;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Database, with_database};
use crate::clock::Clock;
use crate::config::DatabaseArgs;
use crate::domain::append::{Append, AppendRequest, Outcome, REQUEST_EVENTS_MAX};
use crate::store::import::{ImportBatch, ImportError, Importer};
use crate::store::migrate;
use line::{ImportEvent, Line, Ordinals};

/// Bytes of payload that one commit carries, roughly.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Clocks differ; a time that is further ahead of ours is a mistake.
const AHEAD_MAX: chrono::Duration = chrono::Duration::days(1);
/// A line longer than this is none.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File with one event a line, or - for standard input
    file: PathBuf,

    /// keep: events occurred when their lines say; now: they occur now, and the lines' times go into metadata.occurred_at
    #[arg(long, value_enum, default_value_t = Time::Keep)]
    time: Time,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Time {
    Keep,
    Now,
}

pub async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let mut file = open(&args.file)?;
    let work = async |database: &Database| import(&mut file, args.time, database).await;
    let Imported { written, known } = with_database(&args.database, work).await?;
    println!("{written} new events, {known} known already");
    Ok(ExitCode::SUCCESS)
}

/// The file; standard input is kept in a temporary one, since it is read twice.
fn open(path: &Path) -> anyhow::Result<File> {
    if path != Path::new("-") {
        return File::open(path).with_context(|| path.display().to_string());
    }
    let mut file = tempfile::tempfile().context("standard input cannot be kept in a temporary file")?;
    io::copy(&mut io::stdin().lock(), &mut file).context("standard input")?;
    Ok(file)
}

struct Imported {
    written: u64,
    known: u64,
}

async fn import(file: &mut File, time: Time, database: &Database) -> anyhow::Result<Imported> {
    migrate::migrate(&database.config).await?;
    let mut importer = Importer::open(&database.config).await?;
    let checked = check(file, time, &mut importer).await.context("nothing was written")?;
    importer.create_months(&checked.months).await?;
    let imported = write(file, time, &mut importer, checked.bytes).await?;
    importer.finish().await?;
    Ok(imported)
}

/// What the first pass found.
struct Checked {
    bytes: u64,
    /// The months of what may be new, each by a time in it: nothing before the log's end is.
    months: BTreeMap<String, DateTime<Utc>>,
}

/// The first pass: every line is an event that may enter, and none goes back in time. Writes nothing.
async fn check(file: &mut File, time: Time, importer: &mut Importer) -> anyhow::Result<Checked> {
    let bytes = file.metadata()?.len();
    let progress = progress("checking", bytes);
    let log_ends = importer.last_occurred_at().await?;
    let mut last: Option<DateTime<Utc>> = None;
    let mut months = BTreeMap::new();
    let latest = Clock::system().now() + AHEAD_MAX;
    let mut before_the_end: Vec<(u64, Uuid, DateTime<Utc>)> = Vec::new();
    let mut lines = Lines::of(file)?;
    while let Some(event) = lines.next_event(&progress)? {
        if time == Time::Now {
            continue;
        }
        let number = lines.number;
        if event.occurred_at.is_some_and(|occurred_at| occurred_at > latest) {
            bail!(
                "line {number} occurred in the future. The log's times never go back, so that every \
                 event after it would have that time. Correct it, or import with --time=now"
            );
        }
        let Some(occurred_at) = event.occurred_at else {
            bail!("line {number} has no occurred_at; add it, or import with --time=now");
        };
        if let Some(last) = last
            && occurred_at < last
        {
            bail!(
                "line {number} goes back in time, from {} to {}. Sort the lines by occurred_at, or \
                 import with --time=now, which keeps the original in metadata.occurred_at",
                rfc3339(last),
                rfc3339(occurred_at),
            );
        }
        last = Some(occurred_at);
        // Only what is in the log already may be older than its end.
        if log_ends.is_some_and(|end| occurred_at < end) {
            before_the_end.push((number, event.event.event_id, occurred_at));
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
    Ok(Checked { bytes, months })
}

async fn refuse_unknown(
    importer: &mut Importer,
    log_ends: Option<DateTime<Utc>>,
    events: &[(u64, Uuid, DateTime<Utc>)],
) -> anyhow::Result<()> {
    let ids: Vec<Uuid> = events.iter().map(|(_, id, _)| *id).collect();
    let known = importer.known(&ids).await?;
    for ((number, _, occurred_at), known) in events.iter().zip(&known) {
        if known.is_some_and(|known| known != *occurred_at) {
            bail!("line {number}: {}", another_event());
        }
    }
    let unknown = events.iter().zip(known).find(|(_, known)| known.is_none());
    if let (Some(((number, _, occurred_at), _)), Some(end)) = (unknown, log_ends) {
        bail!(
            "line {number} occurred at {}, before the log's last event at {}, and the log's times never go back. \
             Import into an empty store, or with --time=now, which keeps the original in metadata.occurred_at",
            rfc3339(*occurred_at),
            rfc3339(end),
        );
    }
    Ok(())
}

/// The second pass: writes, a batch a commit, while the next one is read. A failure leaves the batches before it written;
/// repeating goes on there.
async fn write(file: &File, time: Time, importer: &mut Importer, bytes: u64) -> anyhow::Result<Imported> {
    let progress = progress("importing", bytes);
    let (ready, mut batches) = mpsc::channel(1);
    let reading = tokio::task::spawn_blocking({
        let (file, progress) = (file.try_clone()?, progress.clone());
        move || read_ahead(file, time, &progress, &ready)
    });
    let mut imported = Imported { written: 0, known: 0 };
    while let Some((lines, batch)) = batches.recv().await {
        lines.write(batch, importer, &mut imported).await?;
    }
    reading.await??;
    progress.finish_and_clear();
    Ok(imported)
}

/// Makes batches of the file, until nobody takes them any more.
fn read_ahead(
    mut file: File,
    time: Time,
    progress: &ProgressBar,
    ready: &mpsc::Sender<(Batch, ImportBatch)>,
) -> anyhow::Result<()> {
    let mut lines = Lines::of(&mut file)?;
    let mut batch = Batch::default();
    while let Some(mut event) = lines.next_event(progress)? {
        if time == Time::Now {
            event.occur_now().map_err(|error| anyhow::anyhow!("line {}: {error}", lines.number))?;
        }
        if !batch.fits(&event) && ready.blocking_send(std::mem::take(&mut batch).prepare()).is_err() {
            return Ok(());
        }
        batch.push(lines.number, event);
    }
    if !batch.requests.is_empty() {
        // Whoever takes no more has the reason.
        drop(ready.blocking_send(batch.prepare()));
    }
    Ok(())
}

/// Events that one commit will carry, each a request of its own.
#[derive(Default)]
struct Batch {
    numbers: Vec<u64>,
    requests: Vec<AppendRequest>,
    times: Vec<DateTime<Utc>>,
    ids: HashSet<Uuid>,
    bytes: usize,
}

impl Batch {
    /// An event that is larger than a batch has one to itself.
    fn fits(&self, event: &ImportEvent) -> bool {
        self.requests.is_empty()
            || (self.requests.len() < REQUEST_EVENTS_MAX
                && self.bytes + event.event.size() <= BATCH_BYTES_MAX
                && !self.ids.contains(&event.event.event_id))
    }

    fn push(&mut self, number: u64, event: ImportEvent) {
        self.numbers.push(number);
        self.times.extend(event.occurred_at);
        self.bytes += event.event.size();
        self.ids.insert(event.event.event_id);
        let append = Append { stream: event.stream, expected: event.expected, events: vec![event.event] };
        self.requests.push(AppendRequest { appends: vec![append], ids_are_new: false });
    }

    fn prepare(self) -> (Self, ImportBatch) {
        // With --time=now no event has a time any more.
        let times = (!self.times.is_empty()).then(|| self.times.clone());
        let prepared = ImportBatch::new(&self.requests, times);
        (self, prepared)
    }

    async fn write(
        self,
        prepared: ImportBatch,
        importer: &mut Importer,
        imported: &mut Imported,
    ) -> anyhow::Result<()> {
        let outcomes = importer.write(prepared).await.map_err(|error| explain(error, imported))?;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let (number, request) = (self.numbers[index], &self.requests[index]);
            match outcome {
                Outcome::Written(_) => imported.written += 1,
                // An id may have been made of the stream and the ordinal in the file: then this file is another one.
                Outcome::Replayed(recorded)
                    if (self.times.get(index))
                        .is_some_and(|time| recorded.iter().flatten().any(|event| event.occurred_at != *time)) =>
                {
                    bail!("line {number}: {}", another_event())
                }
                Outcome::Replayed(_) => imported.known += 1,
                refused => bail!(
                    "line {number}: {}. Other lines are written, and repeating the import passes over them",
                    reason(request, &refused)
                ),
            }
        }
        Ok(())
    }
}

fn another_event() -> &'static str {
    "the log has another event under this id, which occurred at another time. A line without event_id gets one made of \
     its stream and its ordinal in the file: import the files as one, or give the lines event ids"
}

fn reason(request: &AppendRequest, refused: &Outcome) -> String {
    let append = &request.appends[0];
    match refused {
        Outcome::VersionConflict(current) => format!(
            "the stream {} is at version {}, so the event cannot become version {}; without `version` it takes the next one",
            append.stream,
            current[0],
            append.expected.missed_after() + 1
        ),
        _ => format!("the event {} stands in the log already, with other content", append.events[0].event_id),
    }
}

fn explain(error: ImportError, imported: &Imported) -> anyhow::Error {
    let so_far = imported.written;
    if matches!(error, ImportError::TimeGoesBack) {
        return anyhow::anyhow!(
            "somebody else appended while the import ran, and the log's times never go back; {so_far} events are written. \
             Stop the writers and import into an empty store, or import with --time=now"
        );
    }
    anyhow::Error::new(error)
        .context(format!("the import broke off; {so_far} events are written, and repeating it goes on there"))
}

/// The lines of a file, with their numbers.
struct Lines<'f> {
    reader: BufReader<&'f mut File>,
    text: String,
    number: u64,
    events: u64,
    ordinals: Ordinals,
}

impl<'f> Lines<'f> {
    fn of(file: &'f mut File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let reader = BufReader::with_capacity(1024 * 1024, file);
        Ok(Self { reader, text: String::new(), number: 0, events: 0, ordinals: Ordinals::default() })
    }

    /// The next event; empty lines are passed over, and an export's end line is held against the count.
    fn next_event(&mut self, progress: &ProgressBar) -> anyhow::Result<Option<ImportEvent>> {
        loop {
            self.text.clear();
            let read = (&mut self.reader).take(LINE_BYTES_MAX).read_line(&mut self.text);
            let read = read.with_context(|| format!("line {}", self.number + 1))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            progress.inc(read as u64);
            if read as u64 == LINE_BYTES_MAX {
                bail!("line {} is longer than {LINE_BYTES_MAX} bytes", self.number);
            }
            let text = self.text.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                continue;
            }
            match Line::parse(text, &mut self.ordinals)
                .map_err(|error| anyhow::anyhow!("line {}: {error}", self.number))?
            {
                Line::Event(event) => {
                    self.events += 1;
                    return Ok(Some(*event));
                }
                // Several exports may stand in one file.
                Line::End(count) if count == self.events => self.events = 0,
                Line::End(count) => bail!(
                    "line {} says that {count} events come before it, and there are {}: the file is not complete",
                    self.number,
                    self.events
                ),
            }
        }
    }
}

/// A bar on a terminal; nothing elsewhere.
fn progress(what: &'static str, bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {eta}")
        .expect("the template is well-formed");
    ProgressBar::new(bytes).with_style(style).with_prefix(what)
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
