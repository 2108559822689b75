//! `annals-bench` compares the service with direct SQL, and with itself under other conditions, in alternating rounds
//! of one run.
//!
//! Figures of different machines or of different days cannot be compared. The ratio of the two sides of one run can be
//! compared. This program reports figures and does not judge them. It starts the program `annals` from its own folder
//! as a separate process, with the usual log, on databases that it creates and drops.

mod args;
mod background;
mod catch_up;
mod direct;
mod direct_sql;
mod erasures;
mod fairness;
mod footprint;
mod groups;
mod growth;
mod import;
mod instance;
mod load;
mod processor_time;
mod report;
mod rivals;
mod scratch;
mod slow_commits;
mod subscribers;

use annals::cli::database::{Database, with_database};
use anyhow::Context;
use clap::{Parser, ValueEnum};

use crate::args::{BenchArgs, Part};
use crate::instance::{BenchInstance, SERVICE_DATABASE};
use crate::report::{Machine, Report};
use crate::scratch::Scratch;
use crate::slow_commits::SlowPostgres;

const DIRECT_DATABASE: &str = "annals_bench_direct";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = BenchArgs::parse();
    let parts = args.parts()?;
    let slow = args.commit_delay_us.map(|delay| prepare_slow_postgres(&args, delay)).transpose()?;
    if let Some(slow) = &slow {
        args.database.own_postgres.annals_pg_bin = Some(slow.bin().to_owned());
        args.database.own_postgres.annals_data_dir = Some(slow.data_dir());
    }
    let report = with_database(&args.database, async |database| measure(&args, &parts, database).await).await?;
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("the report cannot be written to {}", path.display()))?;
    }
    Ok(())
}

/// Returns a PostgreSQL whose commits are delayed.
fn prepare_slow_postgres(args: &BenchArgs, delay_us: u64) -> anyhow::Result<SlowPostgres> {
    let bin = args.database.own_postgres.bin().context("--commit-delay-us needs --annals-pg-bin (ANNALS_PG_BIN)")?;
    SlowPostgres::prepare(&bin, delay_us)
}

async fn measure(args: &BenchArgs, parts: &[Part], database: &Database) -> anyhow::Result<Report> {
    let other = &database.config.servers[0];
    let direct = Scratch::create(other.clone(), DIRECT_DATABASE).await?;
    direct.run(direct::DIRECT_TABLES).await?;
    let machine = Machine::read(&direct).await?;
    let mut report = Report::new(machine, args.rounds, args.seconds);
    for part in parts {
        eprintln!("measuring: {}", part.to_possible_value().expect("no part is hidden").get_name());
        match part {
            Part::Direct | Part::Delivery | Part::Background => {
                measure_server(args, *part, database, &direct, &mut report).await?;
            }
            Part::Partitions => growth::compare_partitions(args, other, &mut report).await?,
            Part::Import => import::compare_with_copy(args, other, &mut report).await?,
            Part::CatchUp => catch_up::measure(args, other, &mut report).await?,
            Part::Footprint => footprint::measure(args, database, &mut report).await?,
            Part::Groups => {
                let instance = BenchInstance::start(args, other, SERVICE_DATABASE).await?;
                groups::measure(args, &instance, &direct, &mut report).await?;
                instance.remove().await?;
            }
            Part::Erasures => erasures::measure(args, other, &mut report).await?,
            Part::Fairness => fairness::measure(args, other, &mut report).await?,
        }
    }
    if let Some(events) = args.fill {
        growth::compare_with_empty(args, other, events, &mut report).await?;
    }
    direct.remove().await?;
    Ok(report)
}

/// Measures a part that needs only one server: the given server, or a new instance on a new database.
async fn measure_server(
    args: &BenchArgs,
    part: Part,
    database: &Database,
    direct: &Scratch,
    report: &mut Report,
) -> anyhow::Result<()> {
    let instance = match args.server {
        Some(_) => None,
        None => Some(BenchInstance::start(args, &database.config.servers[0], SERVICE_DATABASE).await?),
    };
    let address = match (&instance, &args.server) {
        (Some(instance), _) => &instance.server.address,
        (None, Some(address)) => address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/'),
        (None, None) => unreachable!("an instance is started if no server is given"),
    };
    match part {
        Part::Direct => {
            let service = instance.as_ref().map(|instance| instance.server.id());
            direct::compare(args, direct, address, service, report).await?;
        }
        Part::Delivery => background::measure_delivery(args, instance.as_ref(), direct, address, report).await?,
        _ => {
            let instance = instance.as_ref().context("background load needs an instance of its own")?;
            background::compare_appends(args, instance, direct, report).await?;
        }
    }
    match instance {
        Some(instance) => instance.remove().await,
        None => Ok(()),
    }
}
