//! `annals archive` and `annals restore-archive`: months leave the database for files, and come back.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Database, with_database};
use crate::clock::Clock;
use crate::config::{DatabaseArgs, duration};
use crate::store::archive::Archiver;

/// A month's events are read and written in two orders, and read back in both.
const PASSES: u64 = 4;

#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// Archive months that have been over for so long
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration)]
    older_than: Duration,

    /// Do it; without, on a terminal, it is only told what would be done
    #[arg(long)]
    yes: bool,

    /// Only tell what would be done
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Args)]
pub struct RestoreArchiveArgs {
    /// Month to bring back, like 2025-01
    #[arg(value_parser = partition)]
    month: String,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// 2025-01, or the partition's name itself.
fn partition(month: &str) -> Result<String, String> {
    let digits = month.strip_prefix("events_").unwrap_or(month).replace('_', "-");
    match chrono::NaiveDate::parse_from_str(&format!("{digits}-01"), "%Y-%m-%d") {
        Ok(first) => Ok(first.format("events_%Y_%m").to_string()),
        Err(_) => Err("a month like 2025-01 is expected".to_owned()),
    }
}

pub async fn run(args: ArchiveArgs) -> anyhow::Result<ExitCode> {
    with_database(&args.database, async |database| archive(&args, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn archive(args: &ArchiveArgs, database: &Database) -> anyhow::Result<()> {
    let store = database.store().await?;
    // A month that is not counted may not leave.
    store.keep_months().await?;
    store.count_all_events().await?;
    let mut archiver = store.archiver().await?;
    // Somebody who looks on is asked first, even through a pipe.
    let is_watched = std::io::stdout().is_terminal() || std::io::stdin().is_terminal();
    let dry = args.dry_run || !args.yes && is_watched;
    let archived = archive_months(&mut archiver, args.older_than, dry).await;
    archiver.close().await?;
    store.close().await;
    archived
}

async fn archive_months(archiver: &mut Archiver, older_than: Duration, dry: bool) -> anyhow::Result<()> {
    let before = Clock::system().now() - older_than;
    let plan = archiver.plan(before, true).await?;
    if plan.months.is_empty() && plan.leftovers.is_empty() {
        println!("no month that is in the database was over before {}", before.format("%Y-%m-%d"));
        return Ok(());
    }
    for month in &plan.leftovers {
        println!("{}  archived already; its table is still there", month.name);
        if !dry {
            archiver.remove(month).await?;
        }
    }
    for month in &plan.months {
        if dry {
            let allowed = archiver.check(month).await;
            let why = allowed.err().map_or_else(|| "may leave".to_owned(), |error| format!("may not leave: {error}"));
            println!("{}  {} events  {why}", month.name, month.events.unwrap_or(0));
            continue;
        }
        let bar = progress(&month.name, u64::try_from(month.events.unwrap_or(0))? * PASSES);
        let manifest = archiver.archive(month, &|events| bar.inc(events)).await?;
        bar.finish_and_clear();
        let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        println!("{}  {} events archived, {bytes} bytes in two files", month.name, manifest.events);
    }
    if dry {
        println!("nothing was changed; to archive, run it again with --yes");
    }
    Ok(())
}

pub async fn restore(args: RestoreArchiveArgs) -> anyhow::Result<ExitCode> {
    with_database(&args.database, async |database| restore_month(&args.month, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn restore_month(name: &str, database: &Database) -> anyhow::Result<()> {
    let store = database.store().await?;
    let events = store.months().await?.iter().find(|month| month.name == name).and_then(|month| month.events);
    let mut archiver = store.archiver().await?;
    let bar = progress(name, u64::try_from(events.unwrap_or(0))?);
    let restored = archiver.restore(name, &|events| bar.inc(events)).await;
    bar.finish_and_clear();
    archiver.close().await?;
    store.close().await;
    println!("{name}  {} events are in the database again; the files stay where they are", restored?);
    Ok(())
}

/// A bar on a terminal, nothing elsewhere.
fn progress(what: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what.to_owned());
    bar.with_style(ProgressStyle::with_template("{msg} {bar:40} {percent} % ({eta})").expect("a template"))
}
