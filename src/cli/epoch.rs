//! `annals epoch`: lists the epochs of the log, and begins one after a restore that Annals cannot detect.
//!
//! Annals detects a promotion, a point-in-time restore, and a dump that is loaded into another cluster, before the
//! first append. It cannot detect that a copy of the files, or a snapshot of a volume, was restored.

use std::process::ExitCode;

use clap::Args;

use crate::cli::database::{Database, with_database};
use crate::config::database::DatabaseArgs;
use crate::wire::time::format_time;

/// The arguments of `annals epoch`.
#[derive(Debug, Args)]
pub struct EpochArgs {
    /// Begin a new epoch after the last event, with this reason
    #[arg(long, value_name = "REASON", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    begin: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs `annals epoch`.
pub async fn run(args: EpochArgs) -> anyhow::Result<ExitCode> {
    with_database(&args.database, async |database| show(&args, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &EpochArgs, database: &Database) -> anyhow::Result<()> {
    let primary = database.primary().await?;
    if let Some(reason) = &args.begin {
        let epoch = primary.begin_epoch(reason).await?;
        println!(
            "epoch {epoch} has begun; cursors of earlier epochs are valid up to the position before its first position"
        );
    }
    println!("{:>10}  {:>14}  {:<27}  reason", "epoch", "first position", "began at");
    for epoch in primary.epochs().await? {
        let began_at = format_time(epoch.began_at);
        println!("{:>10}  {:>14}  {began_at:<27}  {}", epoch.epoch, epoch.first_position, epoch.reason);
    }
    primary.close().await;
    Ok(())
}
