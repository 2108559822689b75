//! The commands.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::client::failure::exit_code;
use crate::cli::client::watch::WatchArgs;
use crate::cli::demo::command as demo;
use crate::cli::import::command as import;
use crate::cli::{
    append, archive, completions, epoch, erasures, export, groups, healthcheck, keys, logging, man, migrate, move_log,
    openapi, projections, serve, show, state, streams, tail, trace, verify,
};
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
    /// Print the newest events of a service, and new ones as they are appended
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::TailArgs),
    /// Print the events of a stream, or one event
    #[command(after_help = show::EXAMPLES)]
    Show(show::ShowArgs),
    /// Append an event to a stream
    #[command(after_help = append::EXAMPLES)]
    Append(append::AppendArgs),
    /// Print the state of an aggregate, now or in the past, or what has changed
    #[command(after_help = state::EXAMPLES)]
    State(state::StateArgs),
    /// List the streams of an aggregate type
    #[command(after_help = streams::EXAMPLES)]
    Streams(streams::StreamsArgs),
    /// Print the events of a correlation id as a tree of causes
    #[command(after_help = trace::EXAMPLES)]
    Trace(trace::TraceArgs),
    /// List the projections, and how far they are behind the log
    #[command(after_help = projections::EXAMPLES)]
    Projections(WatchArgs),
    /// List the consumer groups, and how far they are behind the log
    #[command(after_help = groups::EXAMPLES)]
    Groups(WatchArgs),
    /// Fill an empty store with the events of a shop, for a first look
    #[command(after_help = demo::EXAMPLES)]
    Demo(demo::DemoArgs),
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
    /// Move the log to another PostgreSQL, with a pause of seconds
    #[command(after_help = move_log::EXAMPLES)]
    Move(move_log::MoveArgs),
    /// List erasures, remove erased content from the files, or erase again after a restore
    #[command(after_help = erasures::EXAMPLES)]
    Erasures(erasures::ErasuresArgs),
    /// Check whether a running server is ready; the exit status is 0 if it is
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Print the completions of a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
    /// Print a manual page
    #[command(after_help = man::EXAMPLES)]
    Man(man::ManArgs),
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
            Command::Tail(args) => Ok(exit_code(tail::run(args).await)),
            Command::Show(args) => Ok(exit_code(show::run(args).await)),
            Command::Append(args) => Ok(exit_code(append::run(args).await)),
            Command::State(args) => Ok(exit_code(state::run(args).await)),
            Command::Streams(args) => Ok(exit_code(streams::run(args).await)),
            Command::Trace(args) => Ok(exit_code(trace::run(args).await)),
            Command::Projections(args) => Ok(exit_code(projections::run(args).await)),
            Command::Groups(args) => Ok(exit_code(groups::run(args).await)),
            Command::Demo(args) => Ok(exit_code(demo::run(args).await)),
            Command::Migrate(args) => migrate::run(args).await,
            Command::Import(args) => import::run(args).await,
            Command::Export(args) => export::run(args).await,
            Command::Archive(args) => archive::run(args).await,
            Command::RestoreArchive(args) => archive::restore(args).await,
            Command::Keys(args) => keys::run(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Epoch(args) => epoch::run(args).await,
            Command::Move(args) => move_log::run(args).await,
            Command::Erasures(args) => erasures::run(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Openapi => openapi::run(),
            Command::Completions(args) => Ok(completions::run(&args, Cli::command())),
            Command::Man(args) => Ok(man::run(&args, Cli::command())),
            Command::ReducerWorker => unreachable!("it returned above, without a runtime"),
        }
    })
}
