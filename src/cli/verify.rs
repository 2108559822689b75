//! `annals verify`: checks the integrity of the store.

use std::cmp::Ordering;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use crate::cli::counted::counted;
use crate::cli::database::{Database, until_interrupted};
use crate::config::database::DatabaseArgs;
use crate::config::parse::whole_number;
use crate::config::program::this_program;
use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::reducers::error::FoldError;
use crate::reducers::fold::{AsOf, replay};
use crate::reducers::javascript::workers::Workers;
use crate::store::admin::verify::check::Check;
use crate::store::admin::verify::verifier::{SampledSnapshot, Verifier, VerifyFrom};
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::wire::time::format_time;

/// The exit status after findings.
const WRONG: u8 = 1;
/// The exit status when the verification could not be completed.
const INCOMPLETE: u8 = 2;

/// The arguments of `annals verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Verify only events after the last verification without findings
    #[arg(long)]
    since_last: bool,

    /// Number of random snapshots to compare with a fold of their events
    #[arg(long, value_name = "SNAPSHOTS", default_value_t = 100, value_parser = whole_number(0..=u32::MAX))]
    sample: u32,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs `annals verify`.
pub async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let database = Database::open(&args.database).await?;
    let verified = until_interrupted(verify(&args, &database)).await;
    database.close().await?;
    match verified {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::from(WRONG)),
        Err(error) => {
            tracing::error!("the verification could not be completed: {error:#}");
            Ok(ExitCode::from(INCOMPLETE))
        }
    }
}

/// Runs all checks and prints the report. Returns whether no check has findings.
async fn verify(args: &VerifyArgs, database: &Database) -> anyhow::Result<bool> {
    let primary = database.primary().await?;
    let from = if args.since_last { VerifyFrom::TheLastVerification } else { VerifyFrom::TheBeginning };
    let mut verifier = primary.verifier(from).await?;
    let (since, head) = (verifier.since, verifier.head);
    let archive = verifier.archive_files().await?;
    let checks = vec![
        verifier.order().await?,
        verifier.versions().await?,
        verifier.ids().await?,
        verifier.records().await?,
        snapshots(&mut verifier, &primary, args.sample, archive.findings.is_empty()).await?,
        archive,
        verifier.clocks().await?,
    ];
    let reach = verifier.reach().await?;
    let is_ok = checks.iter().all(|check| check.findings.is_empty());
    verifier.close(!is_ok).await?;
    primary.close().await;

    if args.json {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| json!({"name": check.name, "checked": check.checked, "findings": check.findings}))
            .collect();
        let report = json!({
            "ok": is_ok, "epoch": head.epoch, "after_position": since, "to_position": head.global_position,
            "to_occurred_at": head.occurred_at.map(format_time), "counted_to_position": reach.counted_to,
            "append_generation": reach.append_generation, "checks": checks,
        });
        println!("{report:#}");
    } else {
        println!("{}", range(since, head.global_position, head.epoch));
        for check in &checks {
            let (what, unit) = describe(check.name);
            let result = if check.findings.is_empty() { "ok" } else { "WRONG" };
            println!("{result:<6}  {what}: {}", counted(check.checked, unit));
            check.findings.iter().for_each(|finding| println!("        {finding}"));
        }
    }
    Ok(is_ok)
}

/// Describes the part of the log that is verified.
fn range(since: Position, head: Position, epoch: Epoch) -> String {
    match since.cmp(&head) {
        Ordering::Less => format!("positions {} to {head} of epoch {epoch}", since + 1),
        Ordering::Equal => format!("no events after position {since} of epoch {epoch}"),
        Ordering::Greater => format!(
            "the range runs backwards: epoch {epoch} was verified up to position {since}, and the log ends at position \
             {head}"
        ),
    }
}

/// Returns what a check verifies, and what it counts.
fn describe(name: &str) -> (&'static str, &'static str) {
    match name {
        "order" => ("positions without gaps, times in order, partitions as in the catalogue", "event"),
        "versions" => ("versions without gaps, heads as the events", "stream"),
        "ids" => ("ids, places and content equal in both tables", "event"),
        "snapshots" => ("snapshots equal to a fold of their events", "snapshot"),
        "records" => ("ids, streams, snapshots, positions and counts do not exceed the log", "record"),
        "clocks" => ("no event in the future", "clock"),
        _ => ("archived files as written", "partition"),
    }
}

/// Compares snapshots of reducers with a fold from the first event, and snapshots of clients with their streams.
async fn snapshots(
    verifier: &mut Verifier,
    primary: &Primary,
    sample: u32,
    archive_is_intact: bool,
) -> anyhow::Result<Check> {
    let mut check = Check::new("snapshots");
    let workers = Workers::new(this_program()?);
    for snapshot in verifier.sample_snapshots(sample).await? {
        check.checked += 1;
        let compared = match compare(&snapshot, primary, &workers).await {
            // A missing event is a finding, not a failure of the verification.
            Err(
                error @ (StoreError::EventMissing(_)
                | StoreError::Unreadable(_)
                | StoreError::Internal(_)
                | StoreError::ArchiveDamaged(_)),
            ) => Some(format!("its stream cannot be read: {error}")),
            Err(StoreError::ArchiveUnavailable(_)) if !archive_is_intact => {
                Some("not verified: its stream is archived, and the archive is damaged".to_owned())
            }
            compared => compared?,
        };
        if let Some(wrong) = compared {
            check.add_finding(format!(
                "snapshot of {}/{} at version {}: {wrong}",
                snapshot.aggregate_type, snapshot.aggregate_id, snapshot.version
            ));
        }
    }
    Ok(check)
}

/// Returns what is wrong with a snapshot.
async fn compare(
    snapshot: &SampledSnapshot,
    primary: &Primary,
    workers: &Arc<Workers>,
) -> Result<Option<String>, StoreError> {
    let wrong = |what: &str| Ok(Some(what.to_owned()));
    if !snapshot.is_intact {
        return wrong("it does not match its checksum");
    }
    let Ok(stream) = StreamId::parse(snapshot.aggregate_type.clone(), snapshot.aggregate_id.clone()) else {
        return wrong("the name of its stream is not valid");
    };
    let Some(head) = primary.stream_head(&stream).await? else { return wrong("its stream does not exist") };
    if snapshot.version > head.version {
        return wrong("its stream does not have this version");
    }
    if primary.event_time(&stream, &head, snapshot.version).await? != snapshot.occurred_at {
        return wrong("its time is not the time of its event");
    }
    let reducer = primary.reducer(stream.aggregate_type()).await?;
    let Some(reducer) = reducer.filter(|reducer| Some(reducer.revision) == snapshot.reducer) else { return Ok(None) };
    match replay(primary, workers, &reducer, &stream, AsOf::Version(snapshot.version)).await {
        Ok(replayed) if primary.is_same_json(&replayed.state, &snapshot.state).await? => Ok(None),
        Ok(_) => wrong("a fold of its events returns another state"),
        Err(FoldError::Store(error)) => Err(error),
        Err(error) => Ok(Some(format!("a fold of its events fails: {error}"))),
    }
}
