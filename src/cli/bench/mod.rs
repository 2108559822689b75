//! `annals bench`: the service beside direct SQL, in alternating rounds of one run.
//!
//! The figures of two machines, or of two days, say little; the ratio of the two sides in one run does. Nothing here judges.
//! The service runs as a process of its own, with its usual log, on a database made for the purpose. The other side is
//! pgbench, on tables that a service of one's own would have.

mod direct;
mod load;
mod others;
mod pgbench;
mod report;
mod server;
mod subscribers;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::Database;
use crate::config::DatabaseArgs;
use crate::store::scratch::Scratch;
use report::{Machine, Report};
use server::Server;

const SERVICE_DATABASE: &str = "annals_bench";
const DIRECT_DATABASE: &str = "annals_bench_direct";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Rounds; each measures every row once on both sides
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Clients of the rows that append single events
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,

    /// Measure instead what long transactions and a vacuum beside the appends cost, on 1, 50 and 20,000 streams
    #[arg(long)]
    beside_others: bool,

    /// Measure instead how long an event takes to so many subscribers, at --rate appends a second
    #[arg(long)]
    subscribers: Option<usize>,

    /// Appends a second for --subscribers
    #[arg(long, default_value_t = 500, requires = "subscribers")]
    rate: u64,

    /// Write the table to this file as JSON, too
    #[arg(long, conflicts_with_all = ["beside_others", "subscribers"])]
    json: Option<PathBuf>,

    /// Folder of pgbench [default: looked for in PATH]
    #[arg(long)]
    pgbench_dir: Option<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: BenchArgs) -> anyhow::Result<std::process::ExitCode> {
    let database = Database::open(&args.database).await?;
    let measured = bench(&args, &database).await;
    database.close().await?;
    measured?;
    Ok(std::process::ExitCode::SUCCESS)
}

async fn bench(args: &BenchArgs, database: &Database) -> anyhow::Result<()> {
    let service = Scratch::create(database.config.options.clone(), SERVICE_DATABASE).await?;
    let direct = Scratch::create(database.config.options.clone(), DIRECT_DATABASE).await?;
    direct.run(direct::DIRECT_TABLES).await?;
    let machine = Machine::of(&service).await?;
    let server = Server::start(&service.options())?;
    let measured = measure(args, machine, &service, &direct, &server).await;
    drop(server);
    service.remove().await?;
    direct.remove().await?;
    measured
}

async fn measure(
    args: &BenchArgs,
    machine: Machine,
    service: &Scratch,
    direct: &Scratch,
    server: &Server,
) -> anyhow::Result<()> {
    if args.subscribers.is_some() || args.beside_others {
        println!("{machine}");
        match args.subscribers {
            Some(subscribers) => others::to_subscribers(args, subscribers, service, direct, server).await?,
            None => others::beside_others(args, service, direct, server).await?,
        }
        println!("\nThe service took {} MB of memory at the most.", server.peak_memory_mb()?);
        return Ok(());
    }
    let rows = direct::compare(args, direct, server).await?;
    let resident_mb = server.peak_memory_mb()?;
    let report = Report { machine, rounds: args.rounds, seconds: args.seconds, rows, resident_mb };
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("the report cannot be written to {}", path.display()))?;
    }
    Ok(())
}
