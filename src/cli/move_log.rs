//! `annals move`: moves the log to another PostgreSQL.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::app::event_id_at;
use crate::cli::database::{Database, with_database};
use crate::clock::Clock;
use crate::config::database::{DatabaseArgs, options_from_url};
use crate::store::connection::config::DatabaseConfig;
use crate::store::moves::log_move::{LogMove, Moved, Step};

pub const EXAMPLES: &str = "\
Examples:
  annals move --to postgres://annals_owner:...@new.example/eventstore --copy-only
  annals move --to postgres://annals_owner:...@new.example/eventstore
  annals move --cancel";

/// The arguments of `annals move`.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// URL of the other database, which is empty, as the owner of its tables: postgres://user:password@host:port/name
    #[arg(long, value_name = "URL", required_unless_present = "cancel")]
    to: Option<String>,

    /// Copy what exists, and do not switch: a later run copies the rest in less time
    #[arg(long)]
    copy_only: bool,

    /// Cancel a move that is not complete: the source accepts all writes again. If it is frozen, --to is necessary
    #[arg(long, conflicts_with = "copy_only")]
    cancel: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// Runs `annals move`.
pub async fn run(args: MoveArgs) -> anyhow::Result<ExitCode> {
    let target = args.to.as_deref().map(|url| options_from_url("--to", url)).transpose()?;
    let target = target.map(|servers| args.database.with_servers(servers, None));
    with_database(&args.database, async |database| match &target {
        Some(target) if !args.cancel => move_log(&args, database, target).await,
        target => cancel(database, target.as_ref()).await,
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

async fn cancel(database: &Database, target: Option<&DatabaseConfig>) -> anyhow::Result<()> {
    let other = LogMove::cancel(&database.config, target).await?;
    println!("the move to {other} is cancelled: this database accepts writes again. Drop the other one");
    Ok(())
}

async fn move_log(args: &MoveArgs, database: &Database, target: &DatabaseConfig) -> anyhow::Result<()> {
    let bar = ProgressBar::no_length().with_style(
        ProgressStyle::with_template("{prefix} {wide_bar} {human_pos}/{human_len} {eta}")
            .expect("the template is well-formed"),
    );
    bar.set_prefix("copying events");
    let mut frozen_at = None;
    let mut show = |step: Step| match step {
        Step::Copied { events, of } => {
            bar.set_length(of.unsigned_abs());
            bar.set_position(events.unsigned_abs());
        }
        Step::CopiedArchived => {}
        Step::CopiedSnapshots => bar.suspend(|| println!("copied the events and the snapshots")),
        Step::Frozen => {
            frozen_at = Some(std::time::Instant::now());
            bar.suspend(|| println!("the source refuses writes: its clients get 503 log_moving"));
        }
    };
    let id = event_id_at(Clock::system().now());
    let mut log_move = LogMove::begin(&database.config, target, id).await?;
    log_move.copy(&mut show).await?;
    if args.copy_only {
        log_move.close().await?;
        bar.finish_and_clear();
        println!("the target has what existed. Run the command again without --copy-only to switch");
        return Ok(());
    }
    let moved = log_move.switch(&mut show).await?;
    bar.finish_and_clear();
    let pause = frozen_at.map(|frozen_at| frozen_at.elapsed().as_secs_f64());
    announce(moved, pause, &database.config, target);
    Ok(())
}

/// Prints what the operator changes now.
fn announce(moved: Moved, pause: Option<f64>, source: &DatabaseConfig, target: &DatabaseConfig) {
    let Moved { epoch, first_position } = moved;
    if let Some(seconds) = pause {
        println!("the target has everything, {seconds:.1} s after the source has refused writes");
    }
    println!(
        "The log is in {}, in epoch {epoch} from position {first_position}.\n\
         Now set DATABASE_URL to it in every instance and command, and restart the instances. DATABASE_READ_URL needs a\n\
         standby of the new server. ARCHIVE_URL stays the same.\n\
         The source is {}, which refuses writes. Drop it when you no longer need it.",
        target.address(),
        source.address(),
    );
    if std::io::stdout().is_terminal() {
        println!("Before you drop it, run `annals verify` on the new one.");
    }
}
