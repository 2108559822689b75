//! `annals export`: everything, a type or a stream, as lines that `annals import` takes.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{Database, with_database};
use crate::config::DatabaseArgs;
use crate::domain::cursor::Cursor;
use crate::domain::filter::EventFilter;
use crate::domain::name::{StreamId, check_path_name};
use crate::http::wire::write_event;
use crate::store::log::{LogScan, ScanLimits};
use crate::store::read::{Direction, Pace, VersionRange};
use crate::store::{Store, StoredEvent};

/// Written in pieces of about this size; no connection is held while standard output is slow.
const PIECE_BYTES: usize = 1024 * 1024;

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only the events of this aggregate type
    #[arg(long = "type", value_name = "AGGREGATE_TYPE")]
    aggregate_type: Option<String>,

    /// Only the stream of this aggregate
    #[arg(long = "id", value_name = "AGGREGATE_ID", requires = "aggregate_type")]
    aggregate_id: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    with_database(&args.database, async |database| export(&args, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn export(args: &ExportArgs, database: &Database) -> anyhow::Result<()> {
    let store = database.store().await?;
    let mut lines = Lines { out: BufWriter::new(io::stdout().lock()), piece: Vec::new(), count: 0 };
    let end = match (&args.aggregate_type, &args.aggregate_id) {
        (Some(aggregate_type), Some(aggregate_id)) => {
            let stream = StreamId::parse(aggregate_type.clone(), aggregate_id.clone())
                .map_err(|fault| anyhow::anyhow!("{} {}", fault.field, fault.fault))?;
            export_stream(&store, &stream, &mut lines).await?
        }
        (aggregate_type, _) => {
            if let Some(aggregate_type) = aggregate_type {
                check_path_name(aggregate_type).map_err(|fault| anyhow::anyhow!("aggregate_type {fault}"))?;
            }
            export_log(&store, aggregate_type.as_deref(), &mut lines).await?
        }
    };
    lines.end(&end)?;
    store.close().await;
    Ok(())
}

/// The log up to its head as it is now; returns what the end line says besides the count.
async fn export_log(store: &Store, aggregate_type: Option<&str>, lines: &mut Lines<'_>) -> anyhow::Result<String> {
    let start = store.log_head().await?;
    let head = start.global_position;
    let filter = EventFilter {
        aggregate_types: aggregate_type.map(str::to_owned).into_iter().collect(),
        ..EventFilter::default()
    };
    let mut scan = LogScan::new(filter, Cursor { epoch: Some(start.epoch), position: 0 }, ScanLimits::default());
    while scan.after() < head {
        let now = store.read_log(&mut scan, head, usize::MAX, |event| lines.take(event)).await?;
        anyhow::ensure!(now.global_position >= head, "the log has become shorter: another database answers");
        lines.flush()?;
    }
    Ok(format!("\"next_after\":{head}"))
}

async fn export_stream(store: &Store, stream: &StreamId, lines: &mut Lines<'_>) -> anyhow::Result<String> {
    let head = store.stream_head(stream).await?.with_context(|| format!("the stream {stream} has no event"))?;
    let mut left = VersionRange { from: 1, to: head.version, direction: Direction::Forward };
    let mut pace = Pace::default();
    while !left.is_empty() {
        left = store.read_stream(stream, &head, left, usize::MAX, &mut pace, |event| lines.take(event)).await?;
        lines.flush()?;
    }
    Ok(format!("\"version\":{}", head.version))
}

/// Lines on their way to standard output.
struct Lines<'o> {
    out: BufWriter<io::StdoutLock<'o>>,
    piece: Vec<u8>,
    count: u64,
}

impl Lines<'_> {
    fn take(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        write_event(&mut self.piece, event);
        self.piece.push(b'\n');
        self.count += 1;
        if self.piece.len() < PIECE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }

    /// The line without which nobody knows that everything came.
    fn end(&mut self, what: &str) -> io::Result<()> {
        self.flush()?;
        writeln!(self.out, "{{\"end\":{{\"count\":{},{what}}}}}", self.count)?;
        self.out.flush()
    }
}
