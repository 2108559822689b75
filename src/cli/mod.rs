//! The command line: which commands there are, and what each one needs.

mod archive;
mod bench;
mod epoch;
mod export;
mod healthcheck;
mod import;
mod keys;
mod migrate;
mod openapi;
mod serve;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::clock::Clock;
use crate::config::{DatabaseArgs, DatabaseSource, LogArgs, ServeArgs};
use crate::devdb::OwnPostgres;
use crate::store::database::DatabaseConfig;
use crate::store::{Store, migrate as schema};
use crate::telemetry;
use crate::telemetry::metrics::Metrics;

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
    /// Run the event store; what happens without a command
    Serve(ServeArgs),
    /// Bring the database's schema up to date
    Migrate(DatabaseArgs),
    /// Read events from a file, one a line, into the log
    Import(import::ImportArgs),
    /// Write events to standard output, one a line
    Export(export::ExportArgs),
    /// Move months that are old from the database to files
    Archive(archive::ArchiveArgs),
    /// Bring an archived month back
    RestoreArchive(archive::RestoreArchiveArgs),
    /// Prove that the store is what it promises to be, or say where it is not
    Verify(verify::VerifyArgs),
    /// Make, list and revoke API keys
    Keys(keys::KeysArgs),
    /// Show the epochs of the log, or begin one after a restore
    Epoch(epoch::EpochArgs),
    /// Measure appends over HTTP beside direct INSERTs, in one run
    Bench(bench::BenchArgs),
    /// Ask a running server whether it is ready; exit status 0 if it is
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Fold in JavaScript for the service that has started this process
    #[cfg(feature = "javascript")]
    #[command(hide = true)]
    ReducerWorker,
}

/// Runs what the command line says.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "javascript")]
    if matches!(cli.command, Some(Command::ReducerWorker)) {
        return crate::reducers::javascript::worker::run().map(|()| ExitCode::SUCCESS);
    }
    telemetry::log::init(&cli.log.resolve());
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
            Command::Bench(args) => bench::run(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Openapi => openapi::run(),
            #[cfg(feature = "javascript")]
            Command::ReducerWorker => unreachable!("it has no runtime"),
        }
    })
}

/// Runs a command's work until Ctrl-C or SIGTERM, so that what it started is stopped in any case.
async fn until_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("interrupted"),
    }
}

/// The database of a command: the configured one, or Annals' own, which is stopped again by [`Database::close`] if this
/// command started it.
struct Database {
    config: DatabaseConfig,
    own: Option<OwnPostgres>,
}

/// Runs a command's work on its database, until it is done or interrupted.
async fn with_database<T>(
    args: &DatabaseArgs,
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let database = Database::open(args).await?;
    let done = until_interrupted(work(&database)).await;
    database.close().await?;
    done
}

impl Database {
    /// The store in it, whose schema has to be the one that this program needs.
    async fn store(&self) -> anyhow::Result<Arc<Store>> {
        schema::check(&self.config).await?;
        Ok(Store::open(&self.config, Clock::system(), Arc::new(Metrics::new())).await?)
    }

    async fn open(args: &DatabaseArgs) -> anyhow::Result<Self> {
        Ok(match args.source()? {
            DatabaseSource::Configured(config) => Self { config: *config, own: None },
            DatabaseSource::Own => {
                let archive = args.archive()?;
                let own = OwnPostgres::start(&args.devdb).await?;
                Self { config: args.with_options(own.options(), archive), own: Some(own) }
            }
        })
    }

    async fn close(self) -> anyhow::Result<()> {
        match self.own {
            Some(own) => Ok(own.stop().await?),
            None => Ok(()),
        }
    }
}
