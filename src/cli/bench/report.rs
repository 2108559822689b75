//! What a run has measured, for people as tables and for programs as JSON.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::Measured;
use crate::store::scratch::Scratch;

/// Several measurements of one thing.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { median: sorted[sorted.len() / 2], lowest: sorted[0], highest: sorted[sorted.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} ({:.0} to {:.0})", self.median, self.lowest, self.highest)
    }
}

/// The machine and the server: without them no figure means anything.
#[derive(Debug, Serialize)]
pub struct Machine {
    annals: &'static str,
    postgresql: String,
    fsync: String,
    synchronous_commit: String,
    processors: usize,
    processor: String,
    /// How much longer a small commit takes that waits for the disk than one that does not.
    commit_flush_us: f64,
}

impl Machine {
    pub async fn of(scratch: &Scratch) -> anyhow::Result<Self> {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_else(|_| String::new());
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(Self {
            annals: env!("CARGO_PKG_VERSION"),
            postgresql: scratch.ask("SHOW server_version").await?,
            fsync: scratch.ask("SHOW fsync").await?,
            synchronous_commit: scratch.ask("SHOW synchronous_commit").await?,
            processors: std::thread::available_parallelism()?.get(),
            processor: model.map_or("unknown".to_owned(), |(_, model)| model.trim().to_owned()),
            commit_flush_us: commit_flush(scratch).await?.as_secs_f64() * 1e6,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Annals {}, PostgreSQL {} (fsync {}, synchronous_commit {}; a commit waits {:.0} us for the disk), {} processors \
             ({}) shared by everything",
            self.annals,
            self.postgresql,
            self.fsync,
            self.synchronous_commit,
            self.commit_flush_us,
            self.processors,
            self.processor
        )
    }
}

/// The medians of commits with and without waiting for the disk, compared.
async fn commit_flush(scratch: &Scratch) -> anyhow::Result<Duration> {
    const COMMITS: usize = 300;
    let mut session = scratch.session().await?;
    let mut medians = Vec::new();
    for setting in ["SET synchronous_commit = on", "SET synchronous_commit = off"] {
        session.run(setting).await?;
        let mut times = Vec::with_capacity(COMMITS);
        for _ in 0..COMMITS {
            let started = Instant::now();
            session.run("SELECT pg_logical_emit_message(true, 'annals_bench', 'a commit')").await?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        medians.push(times[COMMITS / 2]);
    }
    Ok(medians[0].saturating_sub(medians[1]))
}

/// One thing, done by Annals and by hand, in alternating rounds.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    clients: usize,
    /// Requests a second.
    annals: Spread,
    /// Transactions a second.
    direct: Spread,
    /// Of the medians.
    ratio: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Row {
    pub fn new(what: String, clients: usize, annals: &[Measured], direct: &[f64]) -> Self {
        let spread = |value: fn(&Measured) -> f64| Spread::of(&annals.iter().map(value).collect::<Vec<_>>());
        let (over_http, by_hand) = (spread(|run| run.per_second), Spread::of(direct));
        Self {
            what,
            clients,
            annals: over_http,
            direct: by_hand,
            ratio: over_http.median / by_hand.median,
            p50_ms: spread(|run| run.p50.as_secs_f64() * 1e3).median,
            p99_ms: spread(|run| run.p99.as_secs_f64() * 1e3).median,
        }
    }
}

/// Annals beside direct SQL.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: usize,
    pub seconds: u64,
    pub rows: Vec<Row>,
    /// Of the service, at the most.
    pub resident_mb: u64,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} rounds of {} s each, medians (lowest to highest)\n", self.rounds, self.seconds)?;
        writeln!(f, "| | clients | Annals over HTTP, a second | p50 | p99 | pgbench, a second | ratio |")?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
        for Row { what, clients, annals, direct, ratio, p50_ms, p99_ms } in &self.rows {
            writeln!(f, "| {what} | {clients} | {annals} | {p50_ms:.2} ms | {p99_ms:.2} ms | {direct} | {ratio:.2} |")?;
        }
        write!(f, "\nThe service took {} MB of memory at the most.", self.resident_mb)
    }
}
