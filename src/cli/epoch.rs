//! `annals epoch`: the epochs of the log, and a new one after a restore that PostgreSQL itself does not tell of.
//!
//! A promotion, a point-in-time restore and a dump that is loaded into another cluster are noticed by themselves, before
//! the first append. A copy of the files or a snapshot of the volume that is put back looks like the old one.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::Database;
use crate::clock::Clock;
use crate::config::DatabaseArgs;
use crate::http::wire::time;
use crate::store::{Store, migrate};
use crate::telemetry::metrics::Metrics;

#[derive(Debug, Args)]
pub struct EpochArgs {
    /// Begin a new epoch after the last event; the reason is kept with it
    #[arg(long, value_name = "REASON", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    begin: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: EpochArgs) -> anyhow::Result<ExitCode> {
    let database = Database::open(&args.database).await?;
    let shown = super::until_interrupted(show(&args, &database)).await;
    database.close().await?;
    shown?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &EpochArgs, database: &Database) -> anyhow::Result<()> {
    migrate::check(&database.config).await?;
    let store = Store::open(&database.config, Clock::system(), Arc::new(Metrics::new())).await?;
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
