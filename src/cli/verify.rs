//! `annals verify`: proves that the store is what it promises to be, or says where it is not.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::Database;
use crate::config::{DatabaseArgs, this_program};
use crate::domain::name::StreamId;
use crate::http::wire::write_event;
use crate::reducers::javascript::Workers;
use crate::reducers::{FoldError, Until, replay};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::verify::{Check, SampledSnapshot, Verifier};

/// Something is not as it has to be.
const WRONG: u8 = 1;
/// The verification could not be finished.
const UNFINISHED: u8 = 2;

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Look only at what came since the last verification that found nothing wrong
    #[arg(long)]
    since_last: bool,

    /// Snapshots to compare with a replay, taken by chance
    #[arg(long, value_name = "SNAPSHOTS", default_value_t = 100)]
    sample: u32,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let database = Database::open(&args.database).await?;
    let verified = super::until_interrupted(verify(&args, &database)).await;
    database.close().await?;
    match verified {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::from(WRONG)),
        Err(error) => {
            tracing::error!("the verification could not be finished: {error:#}");
            Ok(ExitCode::from(UNFINISHED))
        }
    }
}

/// Looks at everything and prints the report; whether all is well.
async fn verify(args: &VerifyArgs, database: &Database) -> anyhow::Result<bool> {
    let store = database.store().await?;
    let mut verifier = store.verifier(args.since_last).await?;
    let (since, head) = (verifier.since, verifier.head);
    let archive = verifier.archive_files().await?;
    let checks = vec![
        verifier.order().await?,
        verifier.versions().await?,
        verifier.ids().await?,
        snapshots(&mut verifier, &store, args.sample, archive.findings.is_empty()).await?,
        archive,
    ];
    let all_is_well = checks.iter().all(|check| check.findings.is_empty());
    verifier.close(all_is_well).await?;
    store.close().await;

    if args.json {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| json!({"name": check.name, "checked": check.checked, "findings": check.findings}))
            .collect();
        let report = json!({
            "ok": all_is_well, "epoch": head.epoch, "after_position": since, "to_position": head.global_position,
            "checks": checks,
        });
        println!("{report:#}");
    } else {
        println!("positions {} to {} of epoch {}", since + 1, head.global_position, head.epoch);
        for check in &checks {
            let (what, unit) = described(check.name);
            println!("{:<6}  {what}: {} {unit}", if check.findings.is_empty() { "ok" } else { "WRONG" }, check.checked);
            check.findings.iter().for_each(|finding| println!("        {finding}"));
        }
    }
    Ok(all_is_well)
}

fn described(name: &str) -> (&'static str, &'static str) {
    match name {
        "order" => ("positions without a gap, times in order, months as the catalogue says", "events"),
        "versions" => ("versions without a hole, heads equal to the events", "streams"),
        "ids" => ("ids, places and content in both tables", "events"),
        "snapshots" => ("snapshots equal to a replay", "snapshots"),
        _ => ("archived files equal to what was written", "months"),
    }
}

/// Snapshots against a replay from the first event, where Annals itself knows how to fold; against the stream, where a
/// client made them.
async fn snapshots(
    verifier: &mut Verifier,
    store: &Store,
    sample: u32,
    archive_is_whole: bool,
) -> anyhow::Result<Check> {
    let mut check = Check::new("snapshots");
    let workers = Workers::new(this_program()?, write_event);
    for snapshot in verifier.sample_snapshots(sample).await? {
        check.checked += 1;
        let compared = match compare(&snapshot, store, &workers).await {
            // An event that is missing is told with whatever else it spoils.
            Err(error @ (StoreError::Internal(_) | StoreError::ArchiveDamaged(_))) => {
                Some(format!("its stream cannot be read: {error}"))
            }
            Err(StoreError::ArchiveUnavailable(_)) if !archive_is_whole => {
                Some("not looked at: its stream is archived, and the archive is not whole".to_owned())
            }
            compared => compared?,
        };
        if let Some(wrong) = compared {
            check.find(format!(
                "snapshot of {}/{} at version {}: {wrong}",
                snapshot.aggregate_type, snapshot.aggregate_id, snapshot.version
            ));
        }
    }
    Ok(check)
}

/// What is wrong with a snapshot.
async fn compare(
    snapshot: &SampledSnapshot,
    store: &Store,
    workers: &Arc<Workers>,
) -> Result<Option<String>, StoreError> {
    let wrong = |what: &str| Ok(Some(what.to_owned()));
    if !snapshot.is_whole {
        return wrong("its checksum does not fit");
    }
    let Ok(stream) = StreamId::parse(snapshot.aggregate_type.clone(), snapshot.aggregate_id.clone()) else {
        return wrong("its stream has no name that a stream can have");
    };
    let Some(head) = store.stream_head(&stream).await? else { return wrong("there is no such stream") };
    if snapshot.version > head.version {
        return wrong("the stream has no such version");
    }
    if store.event_time(&stream, &head, snapshot.version).await? != snapshot.occurred_at {
        return wrong("it names another time than its event");
    }
    let reducer = store.reducer(stream.aggregate_type()).await?;
    let Some(reducer) = reducer.filter(|reducer| Some(reducer.revision) == snapshot.reducer) else { return Ok(None) };
    match replay(store, workers, &reducer, &stream, Until::Version(snapshot.version)).await {
        Ok(replayed) if store.is_same_json(&replayed.state, &snapshot.state).await? => Ok(None),
        Ok(_) => wrong("a replay comes to another state"),
        Err(FoldError::Store(error)) => Err(error),
        Err(error) => Ok(Some(format!("a replay fails: {error}"))),
    }
}
