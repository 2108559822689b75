//! `annals export`: writes all events, those of a type, or those of a stream, as lines that `annals import` reads.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::cli::database::{Database, with_database};
use crate::config::database::DatabaseArgs;
use crate::domain::cursor::Cursor;
use crate::domain::event::StoredEvent;
use crate::domain::filter::EventFilter;
use crate::domain::name::{StreamId, check_path_name};
use crate::store::fetch_size::FetchSize;
use crate::store::log::scan::{LogScan, ScanLimits};
use crate::store::reader::Reader;
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;
use crate::wire::event::write_event;

/// Lines are written in chunks of about this size. While a chunk is written, no connection is held.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The arguments of `annals export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only the events of this aggregate type
    #[arg(long = "type", value_name = "AGGREGATE_TYPE")]
    aggregate_type: Option<String>,

    /// Only the events of this aggregate
    #[arg(long = "id", value_name = "AGGREGATE_ID", requires = "aggregate_type")]
    aggregate_id: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs `annals export`.
pub async fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    match with_database(&args.database, async |database| export(&args, database).await).await {
        // The program that reads the lines, like head, has read enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        exported => exported.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn export(args: &ExportArgs, database: &Database) -> anyhow::Result<()> {
    let primary = database.primary().await?;
    let mut lines = Lines { out: BufWriter::new(io::stdout()), chunk: Vec::new(), count: 0 };
    let end = match (&args.aggregate_type, &args.aggregate_id) {
        (Some(aggregate_type), Some(aggregate_id)) => {
            let stream = StreamId::parse(aggregate_type.clone(), aggregate_id.clone()).map_err(|fault| {
                anyhow::anyhow!("--{} {}", fault.field.trim_start_matches("aggregate_"), fault.fault)
            })?;
            export_stream(&primary, &stream, &mut lines).await?
        }
        (aggregate_type, _) => {
            if let Some(aggregate_type) = aggregate_type {
                check_path_name(aggregate_type).map_err(|fault| anyhow::anyhow!("--type {fault}"))?;
            }
            export_log(&primary, aggregate_type.as_deref(), &mut lines).await?
        }
    };
    lines.finish(&end)?;
    primary.close().await;
    Ok(())
}

/// Exports the log up to its current head. Returns the members of the end line besides the count.
async fn export_log(reader: &Reader, aggregate_type: Option<&str>, lines: &mut Lines) -> anyhow::Result<String> {
    let start = reader.log_head().await?;
    let head = start.global_position;
    let filter = EventFilter {
        aggregate_types: aggregate_type.map(str::to_owned).into_iter().collect(),
        ..EventFilter::default()
    };
    let mut scan = LogScan::new(filter, Cursor { epoch: Some(start.epoch), position: 0 }, ScanLimits::default());
    while scan.after() < head {
        let now = reader.read_log(&mut scan, head, usize::MAX, |event| lines.push(event)).await?;
        let is_shorter = now.global_position < head;
        anyhow::ensure!(!is_shorter, "the log is shorter than before: the connection now reaches another database");
        lines.flush()?;
    }
    Ok(format!("\"next_after\":{head}"))
}

async fn export_stream(reader: &Reader, stream: &StreamId, lines: &mut Lines) -> anyhow::Result<String> {
    let head = reader.stream_head(stream).await?.with_context(|| format!("the stream {stream} does not exist"))?;
    let mut left = VersionRange::forward(1, head.version);
    let mut fetch_size = FetchSize::default();
    while !left.is_empty() {
        let read = StreamRead { stream, head: &head, range: left, limit: usize::MAX };
        left = reader.read_stream(read, &mut fetch_size, |event| lines.push(event)).await?;
        lines.flush()?;
    }
    Ok(format!("\"version\":{}", head.version))
}

/// The lines of standard output.
struct Lines {
    out: BufWriter<io::Stdout>,
    chunk: Vec<u8>,
    count: u64,
}

impl Lines {
    fn push(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        write_event(&mut self.chunk, event);
        self.chunk.push(b'\n');
        self.count += 1;
        if self.chunk.len() < CHUNK_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Writes the end line, which proves that the export is complete.
    fn finish(&mut self, what: &str) -> io::Result<()> {
        self.flush()?;
        writeln!(self.out, "{{\"end\":{{\"count\":{},{what}}}}}", self.count)?;
        self.out.flush()
    }
}
