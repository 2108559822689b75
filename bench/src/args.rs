//! The command line.

use std::path::PathBuf;

use annals::config::database::DatabaseArgs;
use anyhow::Context;
use clap::{Parser, ValueEnum};

/// Compares Annals with direct SQL, and with itself under other conditions.
#[derive(Debug, Parser)]
#[command(name = "annals-bench", version)]
pub struct BenchArgs {
    /// Parts to measure [default: all; with --server: direct and delivery; with --fill: none]
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Number of rounds; each round measures every row once on both sides
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub rounds: u64,

    /// Duration of each measurement in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,

    /// Numbers of clients for the rows that append single events
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    pub clients: Vec<usize>,

    /// Number of subscribers in the parts delivery and footprint
    #[arg(long, default_value_t = 200)]
    pub subscribers: usize,

    /// Appends per second in the part delivery
    #[arg(long, default_value_t = 500)]
    pub rate: u64,

    /// Also compare a store with this number of events (about 800 bytes of disk each) with an empty store
    #[arg(long)]
    pub fill: Option<u64>,

    /// Let each commit wait longer for the disk, by this number of microseconds; needs --annals-pg-bin, a C compiler and no
    /// configured database
    #[arg(long)]
    pub commit_delay_us: Option<u64>,

    /// Number of events in the log in the parts catch-up, groups, erasures and fairness, at least 1000
    // With fewer events, some of the streams that the good client reads would not exist: `import::GROWING_STREAMS`.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub events: u64,

    /// Number of event streams that match nothing in the part catch-up; a server has 10,000 connections
    #[arg(long, default_value_t = 9_900)]
    pub filtering: usize,

    /// Measure only the rows of the part catch-up whose name contains one of these texts
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,

    /// Folder of scripts/get-rivals: the part groups also measures NATS JetStream, pgmq and message-db
    #[arg(long)]
    pub rivals: Option<PathBuf>,

    /// Attacks in the part fairness [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    attacks: Vec<Attack>,

    /// Attack with few clients in the part fairness, to try the program; the figures are not those of an attack
    #[arg(long)]
    pub quick: bool,

    /// Pause in milliseconds of a client of an attack after a refused request
    #[arg(long, default_value_t = 1_000)]
    pub attack_pause: u64,

    /// Number of threads that keep processors busy in the control of the part fairness [default: the number of
    /// processors that the attack keeps busy]
    #[arg(long)]
    pub spinning_threads: Option<usize>,

    /// Create the keys of the part fairness without grants of the scope project, for a program that has no such scope
    #[arg(long)]
    pub without_project_scope: bool,

    /// Measure a running server at this address, as host:port; it must not require API keys, and direct SQL still uses
    /// the configured database
    #[arg(long)]
    pub server: Option<String>,

    /// Program of the service to start [default: annals in the folder of this program]
    #[arg(long)]
    program: Option<PathBuf>,

    /// Also write the report to this file, as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,

    /// Folder of pgbench [default: searched in PATH; without pgbench, this process sends the same statements]
    #[arg(long)]
    pub pgbench_dir: Option<PathBuf>,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// The parts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Appends, batches and loads over HTTP, compared with direct SQL
    Direct,
    /// Time from an append to its delivery to subscribers, with and without other work on the database
    Delivery,
    /// Appends with and without other work on the database (long transactions and a vacuum)
    Background,
    /// Loads and pages of the log with the events in 12 and in 36 partitions, compared with 1 partition
    Partitions,
    /// `annals import`, compared with COPY into the same tables
    Import,
    /// Reads of the whole log and of parts of it, compared with COPY and with each other
    CatchUp,
    /// Memory with many clients and subscribers, and the time from start to ready
    Footprint,
    /// Workers of a consumer group, compared with pages of the log and with direct SQL
    Groups,
    /// Requests to erase, and appends while a month is written again, compared with appends alone
    Erasures,
    /// Requests of one client beside attacks by the clients of other API keys
    Fairness,
}

/// The attacks of the part fairness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// One key opens as many event streams as it can
    Streams,
    /// Many requests for states of two types with slow reducers
    Reducers,
    /// Snapshots that are due of a type with a slow reducer
    Snapshots,
    /// Reads of the whole log by a key that may read none of its events
    Scans,
    /// Many requests that wait for a projection
    Waiters,
    /// Appends of a megabyte at a time
    Appends,
}

impl BenchArgs {
    /// Returns the parts to measure.
    pub fn parts(&self) -> anyhow::Result<Vec<Part>> {
        let server_parts = [Part::Direct, Part::Delivery];
        let parts = match (&self.server, self.fill) {
            _ if !self.parts.is_empty() => self.parts.clone(),
            (Some(_), _) => server_parts.to_vec(),
            (None, Some(_)) => Vec::new(),
            (None, None) => Part::value_variants().to_vec(),
        };
        let needs_own_server = self.fill.is_some() || parts.iter().any(|part| !server_parts.contains(part));
        anyhow::ensure!(
            self.server.is_none() || !needs_own_server,
            "--server is allowed only for direct and delivery: the other parts need their own servers and databases"
        );
        Ok(parts)
    }

    /// Returns whether a row of the part catch-up is measured.
    pub fn measures(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|wanted| row.contains(wanted.as_str()))
    }

    /// Returns the attacks to measure.
    pub fn attacks(&self) -> &[Attack] {
        if self.attacks.is_empty() { Attack::value_variants() } else { &self.attacks }
    }

    /// Returns the path of the program of the service.
    pub fn program(&self) -> anyhow::Result<PathBuf> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("annals"),
        };
        anyhow::ensure!(
            program.is_file(),
            "{} does not exist: build it with the same profile (cargo build --release), or use --program",
            program.display()
        );
        program.canonicalize().with_context(|| format!("{} cannot be resolved", program.display()))
    }
}
