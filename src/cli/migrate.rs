//! `annals migrate`: brings the schema up to date.

use std::process::ExitCode;

use crate::cli::database::Database;
use crate::config::database::DatabaseArgs;
use crate::store::admin::migrate;

/// Runs `annals migrate`.
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
