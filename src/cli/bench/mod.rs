//! `annals bench`: the service beside direct SQL, and beside itself under other conditions, in alternating rounds of one run.
//!
//! The figures of two machines, or of two days, say little; the ratio of two sides in one run does. Nothing here judges.
//! The service runs as a process of its own, with its usual log, on databases made for the purpose and dropped again.

mod by_hand;
mod direct;
mod footprint;
mod growth;
mod import;
mod load;
mod others;
mod report;
mod server;
mod subscribers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{Database, with_database};
use crate::config::DatabaseArgs;
use crate::store::scratch::Scratch;
use report::{Machine, Report};
use server::Site;

const SERVICE_DATABASE: &str = "annals_bench";
const DIRECT_DATABASE: &str = "annals_bench_direct";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure [default: all; with --server, direct and delivery; with --fill, that alone]
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Rounds; each measures every row once on both sides
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rounds: u64,

    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,

    /// Clients of the rows that append single events
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,

    /// Subscribers of the parts that have some
    #[arg(long, default_value_t = 200)]
    subscribers: usize,

    /// Appends a second while the time to subscribers is measured
    #[arg(long, default_value_t = 500)]
    rate: u64,

    /// Measure what appends and loads cost where so many events are stored, beside an empty store (about 800 bytes of disk
    /// an event)
    #[arg(long)]
    fill: Option<u64>,

    /// A running server to measure, as host:port, which asks for no API key; direct SQL still goes to the configured database
    #[arg(long)]
    server: Option<String>,

    /// Write the report to this file as JSON, too
    #[arg(long)]
    json: Option<PathBuf>,

    /// Folder of pgbench [default: looked for in PATH; without it this process sends the same statements]
    #[arg(long)]
    pgbench_dir: Option<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Appends, batches and loads over HTTP beside direct SQL
    Direct,
    /// How long an event takes to those who follow, alone and beside other work on the database
    Delivery,
    /// Appends beside other work on the database: a long transaction, a vacuum
    Others,
    /// Loads and pages of the log where the events are spread over 12 and 36 months, beside 1
    Months,
    /// `annals import` beside COPY into the same tables
    Import,
    /// Memory under clients and subscribers, and the time from start to ready
    Footprint,
}

impl BenchArgs {
    /// The parts to run.
    fn parts(&self) -> anyhow::Result<Vec<Part>> {
        let with_a_server = [Part::Direct, Part::Delivery];
        let parts = match (&self.server, self.fill) {
            _ if !self.parts.is_empty() => self.parts.clone(),
            (Some(_), _) => with_a_server.to_vec(),
            (None, Some(_)) => Vec::new(),
            (None, None) => Part::value_variants().to_vec(),
        };
        let needs_its_own = self.fill.is_some() || parts.iter().any(|part| !with_a_server.contains(part));
        anyhow::ensure!(
            self.server.is_none() || !needs_its_own,
            "--server goes with direct and delivery alone: the other parts need servers and databases of their own"
        );
        Ok(parts)
    }
}

pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let parts = args.parts()?;
    let report = with_database(&args.database, async |database| measure(&args, &parts, database).await).await?;
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("the report cannot be written to {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(args: &BenchArgs, parts: &[Part], database: &Database) -> anyhow::Result<Report> {
    let other = &database.config.options;
    let direct = Scratch::create(other.clone(), DIRECT_DATABASE).await?;
    let machine = Machine::of(&direct).await?;
    let mut report = Report::new(machine, args.rounds, args.seconds);
    for part in parts {
        eprintln!("measuring: {}", part.to_possible_value().expect("no part is hidden").get_name());
        match part {
            Part::Direct | Part::Delivery | Part::Others => {
                at_a_server(args, *part, database, &direct, &mut report).await?
            }
            Part::Months => growth::over_months(args, other, &mut report).await?,
            Part::Import => import::beside_copy(args, other, &mut report).await?,
            Part::Footprint => footprint::measure(args, database, &mut report).await?,
        }
    }
    if let Some(events) = args.fill {
        growth::filled(args, other, events, &mut report).await?;
    }
    direct.remove().await?;
    Ok(report)
}

/// The parts that one server is enough for: the given one, or one of our own on a new database.
async fn at_a_server(
    args: &BenchArgs,
    part: Part,
    database: &Database,
    direct: &Scratch,
    report: &mut Report,
) -> anyhow::Result<()> {
    let site = match args.server {
        Some(_) => None,
        None => Some(Site::start(&database.config.options, SERVICE_DATABASE).await?),
    };
    let address = match (&site, &args.server) {
        (Some(site), _) => &site.server.address,
        (None, Some(address)) => address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/'),
        (None, None) => unreachable!("a site is started where no server is given"),
    };
    match part {
        Part::Direct => direct::compare(args, direct, address, report).await?,
        Part::Delivery => others::to_subscribers(args, site.as_ref(), direct, address, report).await?,
        _ => others::beside_others(args, site.as_ref().context("others need a site")?, direct, report).await?,
    }
    match site {
        Some(site) => site.remove().await,
        None => Ok(()),
    }
}
