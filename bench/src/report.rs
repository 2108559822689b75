//! The results of a run, as tables for people and as JSON for programs.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::fairness::row::{FairShare, TABLE_HEAD};
use crate::load::Measurement;
use crate::processor_time::ProcessorTime;
use crate::scratch::Scratch;

/// Several measurements of one value.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    /// Summarizes at least one value.
    pub fn from_values(values: &[f64]) -> Self {
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

/// The machine and the settings of PostgreSQL, without which the figures cannot be interpreted.
#[derive(Debug, Serialize)]
pub struct Machine {
    annals: &'static str,
    postgresql: String,
    fsync: String,
    synchronous_commit: String,
    processors: usize,
    processor: String,
    /// The time that a small commit waits for the disk, in microseconds.
    commit_flush_us: f64,
}

impl Machine {
    /// Reads the properties of this machine, and of the PostgreSQL of the database.
    pub async fn read(scratch: &Scratch) -> anyhow::Result<Self> {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Ok(Self {
            annals: env!("CARGO_PKG_VERSION"),
            postgresql: scratch.query_text("SHOW server_version").await?,
            fsync: scratch.query_text("SHOW fsync").await?,
            synchronous_commit: scratch.query_text("SHOW synchronous_commit").await?,
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
            "Annals {}, PostgreSQL {} (fsync {}, synchronous_commit {}; a commit waits {:.0} us for the disk), \
             {} processors ({}), which the service, PostgreSQL and the clients share",
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

/// Returns the difference between the medians of commits that wait for the disk and of commits that do not.
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

/// A rate of Annals, and the rate of a baseline. Both were measured alternately.
#[derive(Debug, Serialize)]
pub struct Row {
    name: String,
    clients: usize,
    /// The rate of Annals per second.
    annals: Spread,
    /// The median over the rounds of the median of the response times, in milliseconds.
    p50_ms: Option<f64>,
    /// The median over the rounds of the 99th percentile of the response times, in milliseconds.
    p99_ms: Option<f64>,
    /// The description of the baseline.
    baseline: String,
    /// The rate of the baseline per second.
    baseline_rate: Spread,
    /// The median of Annals, divided by the median of the baseline.
    ratio: f64,
    /// The medians of the processor time of each request, of Annals and of the baseline, if they were measured.
    pub processor_time: Option<(ProcessorTime, ProcessorTime)>,
}

impl Row {
    /// Compares runs of requests with the rates of the baseline, which are per second. Each slice has one value per
    /// round.
    pub fn new(name: String, clients: usize, annals: &[Measurement], baseline: &str, baseline_rates: &[f64]) -> Self {
        let median =
            |value: fn(&Measurement) -> f64| Spread::from_values(&annals.iter().map(value).collect::<Vec<_>>()).median;
        let rates: Vec<_> = annals.iter().map(|run| run.per_second).collect();
        Self {
            p50_ms: Some(median(|run| run.p50.as_secs_f64() * 1e3)),
            p99_ms: Some(median(|run| run.p99.as_secs_f64() * 1e3)),
            ..Self::from_rates(name, clients, &rates, baseline, baseline_rates)
        }
    }

    /// Compares rates for which no response times exist. All rates are per second.
    pub fn from_rates(name: String, clients: usize, rates: &[f64], baseline: &str, baseline_rates: &[f64]) -> Self {
        let (annals, baseline_rate) = (Spread::from_values(rates), Spread::from_values(baseline_rates));
        let ratio = annals.median / baseline_rate.median;
        let baseline = baseline.to_owned();
        Self { name, clients, annals, p50_ms: None, p99_ms: None, baseline, baseline_rate, ratio, processor_time: None }
    }
}

/// The time from sending an append until each subscriber has read the event, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Delivery {
    pub name: &'static str,
    pub subscribers: usize,
    pub appends_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub longest_ms: f64,
    /// The number of events that did not directly follow the event that the subscriber had read before.
    pub out_of_order: u64,
}

/// A figure without a baseline.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub value: Spread,
}

/// All results of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: u64,
    /// The duration of each measurement, in seconds.
    pub seconds: u64,
    pub rows: Vec<Row>,
    pub deliveries: Vec<Delivery>,
    pub fair_shares: Vec<FairShare>,
    pub figures: Vec<Figure>,
}

impl Report {
    /// Creates a report without results. `seconds` is the duration of each measurement.
    pub fn new(machine: Machine, rounds: u64, seconds: u64) -> Self {
        Self {
            machine,
            rounds,
            seconds,
            rows: Vec::new(),
            deliveries: Vec::new(),
            fair_shares: Vec::new(),
            figures: Vec::new(),
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "Rounds: {}; {} s for each measurement; medians (lowest to highest)", self.rounds, self.seconds)?;
        if !self.rows.is_empty() {
            writeln!(f, "\n| | clients | Annals, per second | p50 | p99 | baseline | baseline, per second | ratio |")?;
            writeln!(f, "|---|---:|---:|---:|---:|---|---:|---:|")?;
        }
        let ms = |time: &Option<f64>| time.map_or(String::new(), |time| format!("{time:.2} ms"));
        for Row { name, clients, annals, p50_ms, p99_ms, baseline, baseline_rate, ratio, .. } in &self.rows {
            let (p50, p99) = (ms(p50_ms), ms(p99_ms));
            writeln!(
                f,
                "| {name} | {clients} | {annals} | {p50} | {p99} | {baseline} | {baseline_rate} | {ratio:.2} |"
            )?;
        }
        if self.rows.iter().any(|row| row.processor_time.is_some()) {
            let columns = "processor time of a request: client + service + PostgreSQL";
            writeln!(f, "\n| | clients | Annals, {columns} | baseline, {columns} |")?;
            writeln!(f, "|---|---:|---:|---:|")?;
        }
        for row in &self.rows {
            if let Some((annals, baseline)) = row.processor_time {
                writeln!(f, "| {} | {} | {annals} | {baseline} |", row.name, row.clients)?;
            }
        }
        if !self.deliveries.is_empty() {
            writeln!(
                f,
                "\n| delivery | subscribers | appends per second | p50 | p99 | longest | missed or out of order |"
            )?;
            writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
        }
        for delivery in &self.deliveries {
            let Delivery { name, subscribers, appends_per_second, p50_ms, p99_ms, longest_ms, out_of_order } = delivery;
            writeln!(
                f,
                "| {name} | {subscribers} | {appends_per_second:.0} | {p50_ms:.1} ms | {p99_ms:.1} ms \
                 | {longest_ms:.1} ms | {out_of_order} |"
            )?;
        }
        if !self.fair_shares.is_empty() {
            writeln!(f, "\n{TABLE_HEAD}")?;
        }
        for fair_share in &self.fair_shares {
            writeln!(f, "{fair_share}")?;
        }
        if !self.figures.is_empty() {
            writeln!(f, "\n| | |\n|---|---:|")?;
        }
        for Figure { name, unit, value } in &self.figures {
            writeln!(f, "| {name} | {value} {unit} |")?;
        }
        Ok(())
    }
}
