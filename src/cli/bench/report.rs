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

/// A rate of Annals, beside another that was measured in turn with it.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    clients: usize,
    /// A second.
    annals: Spread,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    beside: String,
    /// A second.
    rate_beside: Spread,
    /// Of the medians.
    ratio: f64,
}

impl Row {
    pub fn new(what: String, clients: usize, annals: &[Measured], beside: &str, rates_beside: &[f64]) -> Self {
        let spread = |value: fn(&Measured) -> f64| Spread::of(&annals.iter().map(value).collect::<Vec<_>>());
        let rates: Vec<_> = annals.iter().map(|run| run.per_second).collect();
        Self {
            p50_ms: Some(spread(|run| run.p50.as_secs_f64() * 1e3).median),
            p99_ms: Some(spread(|run| run.p99.as_secs_f64() * 1e3).median),
            ..Self::of_rates(what, clients, &rates, beside, rates_beside)
        }
    }

    /// Where single answers have no times.
    pub fn of_rates(what: String, clients: usize, rates: &[f64], beside: &str, rates_beside: &[f64]) -> Self {
        let (annals, rate_beside) = (Spread::of(rates), Spread::of(rates_beside));
        let ratio = annals.median / rate_beside.median;
        Self { what, clients, annals, p50_ms: None, p99_ms: None, beside: beside.to_owned(), rate_beside, ratio }
    }
}

/// How long an event takes from the sending of its append to its reading by each subscriber.
#[derive(Debug, Serialize)]
pub struct Delivery {
    pub what: &'static str,
    pub subscribers: usize,
    pub appends_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
    /// Events that a subscriber should have seen next and did not.
    pub out_of_order: u64,
}

/// One figure that has nothing beside it.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub what: String,
    pub unit: &'static str,
    pub value: Spread,
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: u64,
    pub seconds: u64,
    pub rows: Vec<Row>,
    pub deliveries: Vec<Delivery>,
    pub figures: Vec<Figure>,
}

impl Report {
    pub fn new(machine: Machine, rounds: u64, seconds: u64) -> Self {
        Self { machine, rounds, seconds, rows: Vec::new(), deliveries: Vec::new(), figures: Vec::new() }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} rounds of {} s a measurement, medians (lowest to highest)", self.rounds, self.seconds)?;
        if !self.rows.is_empty() {
            writeln!(f, "\n| | clients | Annals, a second | p50 | p99 | beside it | a second | ratio |")?;
            writeln!(f, "|---|---:|---:|---:|---:|---|---:|---:|")?;
        }
        let ms = |time: &Option<f64>| time.map_or(String::new(), |time| format!("{time:.2} ms"));
        for Row { what, clients, annals, p50_ms, p99_ms, beside, rate_beside, ratio } in &self.rows {
            let (p50, p99) = (ms(p50_ms), ms(p99_ms));
            writeln!(f, "| {what} | {clients} | {annals} | {p50} | {p99} | {beside} | {rate_beside} | {ratio:.2} |")?;
        }
        if !self.deliveries.is_empty() {
            writeln!(
                f,
                "\n| to subscribers | subscribers | appends/s | p50 | p99 | longest | missed or out of order |"
            )?;
            writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
        }
        for delivery in &self.deliveries {
            let Delivery { what, subscribers, appends_per_second, p50_ms, p99_ms, longest_ms, out_of_order } = delivery;
            writeln!(
                f,
                "| {what} | {subscribers} | {appends_per_second:.0} | {p50_ms:.1} ms | {p99_ms:.1} ms | {longest_ms:.1} ms \
                 | {out_of_order} |"
            )?;
        }
        if !self.figures.is_empty() {
            writeln!(f, "\n| | |\n|---|---:|")?;
        }
        for Figure { what, unit, value } in &self.figures {
            writeln!(f, "| {what} | {value} {unit} |")?;
        }
        Ok(())
    }
}
