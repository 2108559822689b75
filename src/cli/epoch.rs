//! `annals epoch`: the epochs of the log, and a new one after a restore that PostgreSQL itself does not tell of.
//!
//! A promotion, a point-in-time restore and a dump that is loaded into another cluster are noticed by themselves, before
//! the first append. A copy of the files or a snapshot of the volume that is put back looks like the old one.

use std::process::ExitCode;

use clap::Args;

use super::{Database, with_database};
use crate::config::DatabaseArgs;
use crate::http::wire::time;

#[derive(Debug, Args)]
pub struct EpochArgs {
    /// Begin a new epoch after the last event; the reason is kept with it
    #[arg(long, value_name = "REASON", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    begin: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: EpochArgs) -> anyhow::Result<ExitCode> {
    with_database(&args.database, async |database| show(&args, database).await).await?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &EpochArgs, database: &Database) -> anyhow::Result<()> {
    let store = database.store().await?;
    if let Some(reason) = &args.begin {
        let epoch = store.begin_epoch(reason).await?;
        println!("epoch {epoch} begins; cursors of earlier ones are good up to the position before its first");
    }
    println!("{:>10}  {:>14}  {:<27}  reason", "epoch", "first position", "began at");
    for epoch in store.epochs().await? {
        let began_at = time(epoch.began_at);
        println!("{:>10}  {:>14}  {began_at:<27}  {}", epoch.epoch, epoch.first_position, epoch.reason);
    }
    store.close().await;
    Ok(())
}
