//! `annals migrate`: the schema alone.

use std::process::ExitCode;

use super::Database;
use crate::config::DatabaseArgs;
use crate::store::migrate;

pub async fn run(args: DatabaseArgs) -> anyhow::Result<ExitCode> {
    let database = Database::open(&args).await?;
    let applied = migrate::migrate(&database.config).await;
    database.close().await?;
    let applied = applied?;
    for migration in &applied {
        println!("applied {migration}");
    }
    if applied.is_empty() {
        println!("the schema is up to date: version {}", migrate::known_version());
    }
    Ok(ExitCode::SUCCESS)
}
