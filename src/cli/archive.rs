//! `annals archive` and `annals restore-archive`: move partitions between the database and the archive.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::counted::counted;
use crate::cli::database::{Database, with_database};
use crate::clock::Clock;
use crate::config::database::DatabaseArgs;
use crate::config::parse::duration;
use crate::store::partitions::archiver::{Archiver, Include};

/// Each event of a partition is written in two orders, and read back in both.
const PASSES: u64 = 4;

/// The arguments of `annals archive`.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Archive the events of months that ended at least this long ago
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration)]
    older_than: Duration,

    /// Archive without asking; on a terminal, the command otherwise only shows what it would do
    #[arg(long)]
    yes: bool,

    /// Only show what the command would do
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// The arguments of `annals restore-archive`.
#[derive(Debug, Args)]
pub struct RestoreArchiveArgs {
    /// Month to restore, like 2025-01
    #[arg(value_parser = partition_name)]
    month: String,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Parses a month like 2025-01, or the name of its partition.
fn partition_name(month: &str) -> Result<String, String> {
    let digits = month.strip_prefix("events_").unwrap_or(month).replace('_', "-");
    match chrono::NaiveDate::parse_from_str(&format!("{digits}-01"), "%Y-%m-%d") {
        Ok(first) => Ok(first.format("events_%Y_%m").to_string()),
        Err(_) => Err("must be a month like 2025-01".to_owned()),
    }
}

/// Runs `annals archive`.
pub async fn run(args: ArchiveArgs) -> anyhow::Result<ExitCode> {
    with_database(&args.database, async |database| archive(&args, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn archive(args: &ArchiveArgs, database: &Database) -> anyhow::Result<()> {
    let primary = database.primary().await?;
    // Only a counted partition may be archived.
    primary.maintain_partitions().await?;
    primary.count_all_events().await?;
    let mut archiver = primary.archiver().await?;
    // At a terminal the command needs a confirmation, even if the output is a pipe.
    let is_interactive = std::io::stdout().is_terminal() || std::io::stdin().is_terminal();
    let dry_run = args.dry_run || !args.yes && is_interactive;
    let archived = archive_partitions(&mut archiver, args.older_than, dry_run).await;
    archiver.close().await?;
    primary.close().await;
    archived
}

async fn archive_partitions(archiver: &mut Archiver, older_than: Duration, dry_run: bool) -> anyhow::Result<()> {
    let before = Clock::system().now() - older_than;
    let plan = archiver.plan(before, Include::All).await?;
    if plan.partitions.is_empty() && plan.leftovers.is_empty() {
        println!("no sealed partition in the database ended before {}", before.format("%Y-%m-%d"));
        return Ok(());
    }
    for partition in &plan.leftovers {
        let action = if dry_run { "still exists" } else { "is dropped now" };
        println!("{}  is archived already, and its table {action}", partition.name);
        if !dry_run {
            archiver.drop_table(partition).await?;
        }
    }
    for partition in &plan.partitions {
        let events = u64::try_from(partition.events.unwrap_or(0))?;
        if dry_run {
            let checked = archiver.check(partition).await;
            let state = checked
                .err()
                .map_or_else(|| "can be archived".to_owned(), |error| format!("cannot be archived: {error}"));
            println!("{}  {}  {state}", partition.name, counted(events, "event"));
            continue;
        }
        let bar = progress(&partition.name, events * PASSES);
        let manifest = archiver.archive(partition, &|events| bar.inc(events)).await?;
        bar.finish_and_clear();
        let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let archived = counted(manifest.events, "event");
        println!("{}  {archived} archived, {bytes} bytes in two files", partition.name);
    }
    if dry_run {
        println!("nothing was changed; to archive, run the command again with --yes");
    }
    Ok(())
}

/// Runs `annals restore-archive`.
pub async fn restore(args: RestoreArchiveArgs) -> anyhow::Result<ExitCode> {
    with_database(&args.database, async |database| restore_partition(&args.month, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn restore_partition(name: &str, database: &Database) -> anyhow::Result<()> {
    let primary = database.primary().await?;
    let partitions = primary.partitions().await?;
    let events = partitions.iter().find(|partition| partition.name == name).and_then(|partition| partition.events);
    let mut archiver = primary.archiver().await?;
    let bar = progress(name, u64::try_from(events.unwrap_or(0))?);
    let restored = archiver.restore(name, &|events| bar.inc(events)).await;
    bar.finish_and_clear();
    archiver.close().await?;
    primary.close().await;
    let restored = counted(restored?, "event");
    println!("{name}  {restored} restored to the database; the files stay in the archive");
    Ok(())
}

/// Returns a progress bar, which appears only on a terminal.
fn progress(what: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    bar.with_style(ProgressStyle::with_template("{msg} {bar:40} {percent} % ({eta})").expect("a template"))
}
