//! The command line.

use std::path::PathBuf;

use annals::config::database::DatabaseArgs;
use anyhow::Context;
use clap::{Parser, ValueEnum};

/// Measures Annals beside direct SQL, and beside itself under other conditions.
#[derive(Debug, Parser)]
#[command(name = "annals-bench", version)]
pub struct BenchArgs {
    /// What to measure [default: all; with --server, direct and delivery; with --fill, that alone]
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Rounds; each round measures every row once on both sides
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub rounds: u64,

    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,

    /// Clients of the rows that append single events
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    pub clients: Vec<usize>,

    /// Subscribers of the parts that have subscribers
    #[arg(long, default_value_t = 200)]
    pub subscribers: usize,

    /// Appends per second while the time to subscribers is measured
    #[arg(long, default_value_t = 500)]
    pub rate: u64,

    /// Store this number of events (about 800 bytes of disk each), and measure appends and loads beside an empty store
    #[arg(long)]
    pub fill: Option<u64>,

    /// A running server to measure, as host:port, which requires no API key; direct SQL still goes to the configured database
    #[arg(long)]
    pub server: Option<String>,

    /// The service to start [default: the annals beside this program]
    #[arg(long)]
    program: Option<PathBuf>,

    /// Also write the report to this file, as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,

    /// Folder of pgbench [default: found in PATH; without pgbench this process sends the same statements]
    #[arg(long)]
    pub pgbench_dir: Option<PathBuf>,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Appends, batches and loads over HTTP beside direct SQL
    Direct,
    /// The time from an append to its subscribers, alone and beside other work on the database
    Delivery,
    /// Appends beside other work on the database: a long transaction and a vacuum
    Background,
    /// Loads and pages of the log with the events in 12 and 36 partitions, beside 1
    Partitions,
    /// `annals import` beside COPY into the same tables
    Import,
    /// Memory under clients and subscribers, and the time from start to ready
    Footprint,
}

impl BenchArgs {
    /// The parts to measure.
    pub fn parts(&self) -> anyhow::Result<Vec<Part>> {
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

    /// The path of the service to start.
    pub fn program(&self) -> anyhow::Result<PathBuf> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("annals"),
        };
        anyhow::ensure!(
            program.is_file(),
            "{} does not exist: build it with the same profile (cargo build --release), or name another with --program",
            program.display()
        );
        program.canonicalize().with_context(|| format!("{} cannot be resolved", program.display()))
    }
}
