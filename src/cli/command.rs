//! The commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::import::command as import;
use crate::cli::{archive, epoch, export, healthcheck, keys, logging, migrate, openapi, serve, verify};
use crate::config::database::DatabaseArgs;
use crate::config::log::LogArgs;
use crate::config::serve::ServeArgs;
use crate::reducers::javascript::worker;

/// An event store for any service: plain HTTP and JSON, on PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "annals", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: ServeArgs,

    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the event store (the default command)
    Serve(ServeArgs),
    /// Bring the schema of the database up to date
    Migrate(DatabaseArgs),
    /// Import events from a file with one event a line
    Import(import::ImportArgs),
    /// Export events to standard output, one a line
    Export(export::ExportArgs),
    /// Move old events from the database to the archive
    Archive(archive::ArchiveArgs),
    /// Restore an archived month to the database
    RestoreArchive(archive::RestoreArchiveArgs),
    /// Check the integrity of the store
    Verify(verify::VerifyArgs),
    /// Create, list and revoke API keys
    Keys(keys::KeysArgs),
    /// List the epochs of the log, or begin one after a restore
    Epoch(epoch::EpochArgs),
    /// Check whether a running server is ready; the exit status is 0 if it is
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Run reducers for the service that has started this process
    #[command(hide = true)]
    ReducerWorker,
}

/// Runs the command of the command line.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if matches!(cli.command, Some(Command::ReducerWorker)) {
        return worker::run().map(|()| ExitCode::SUCCESS);
    }
    logging::init(&cli.log.resolve());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command.unwrap_or(Command::Serve(cli.serve)) {
            Command::Serve(args) => serve::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Import(args) => import::run(args).await,
            Command::Export(args) => export::run(args).await,
            Command::Archive(args) => archive::run(args).await,
            Command::RestoreArchive(args) => archive::restore(args).await,
            Command::Keys(args) => keys::run(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Epoch(args) => epoch::run(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Openapi => openapi::run(),
            Command::ReducerWorker => unreachable!("it returned above, without a runtime"),
        }
    })
}
