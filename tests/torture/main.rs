//! `annals-torture`: injects faults under load, and checks every promise afterwards.
//!
//! Two replicas of the service run on one PostgreSQL. Writers, subscribers, pollers, readers of states and workers of a
//! consumer group send requests through proxies. A seed decides the faults. At the end a checker examines the history,
//! and `annals verify` runs.
//!
//!     cargo test --test annals-torture                                     each kind of fault once, as in CI
//!     cargo test --release --test annals-torture -- --rounds 300 --seed 7  the long run
//!     cargo test --test annals-torture -- --mutants                        mutants, each of which must be found
//!     cargo test --test annals-torture -- --check target/torture/seed-7    checks a stored history again
//!
//! The history, the logs and the report of a run are stored in target/torture. The seed decides which requests are
//! sent, and which faults occur in which order. It does not decide the timing.

mod check;
mod cluster;
mod erasers;
#[path = "../it/support/erasure_model.rs"]
mod erasure_model;
mod faults;
#[path = "../it/support/group_model.rs"]
mod group_model;
mod history;
#[path = "../it/support/http_client.rs"]
mod http_client;
mod model_mutants;
mod mutants;
mod proxy;
mod report;
mod run;
mod workers;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use check::check;
use clap::Parser;
use history::History;
use mutants::{FoundBy, MUTANTS, Mutant};
use report::Found;
use run::Options;

/// Injects faults into Annals under load, and checks its promises.
#[derive(Parser)]
#[command(name = "annals-torture")]
struct Args {
    /// Number of rounds, with one fault each
    #[arg(long, default_value_t = faults::Kind::ALL.len())]
    rounds: usize,

    /// Inject only one kind of fault, for example stop-replica for rolling restarts
    #[arg(long)]
    only: Option<faults::Kind>,

    /// Seed that decides which requests are sent, and which faults occur in which order
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Number of clients that append
    #[arg(long, default_value_t = 16)]
    writers: usize,

    /// Number of workers of a consumer group
    #[arg(long, default_value_t = 8)]
    workers: u64,

    /// Number of streams of each of the two types
    #[arg(long, default_value_t = 25)]
    streams: u64,

    /// Run one mutant until the checker finds it
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,

    /// Run every mutant; fail if the checker misses one
    #[arg(long)]
    mutants: bool,

    /// Check the history that is stored in this folder, without a run
    #[arg(long, value_name = "FOLDER")]
    check: Option<PathBuf>,

    /// Names of tests, which `cargo test` passes to every test program
    #[arg(hide = true)]
    filters: Vec<String>,

    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !args.filters.is_empty() && !args.filters.iter().any(|filter| "torture".contains(filter.as_str())) {
        println!("annals-torture: skipped, because no filter matches \"torture\"");
        return Ok(ExitCode::SUCCESS);
    }
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("torture");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(folder) = &args.check {
        let history = History::read(&folder.join("history.jsonl"))?;
        return Ok(report_violations(&check(&history)));
    }
    let options = |mutant: Option<&'static Mutant>| Options {
        folder: results.join(mutant.map_or(format!("seed-{}", args.seed), |mutant| format!("mutant-{}", mutant.name))),
        seed: args.seed,
        rounds: args.rounds,
        only: args.only,
        writers: args.writers,
        workers: if mutant.is_some() { 0 } else { args.workers },
        streams: args.streams,
        mutant,
    };
    let mutant = args.mutant.as_deref().map(Mutant::named).transpose()?;
    let searched: Vec<&'static Mutant> = match mutant {
        _ if args.mutants => MUTANTS.iter().collect(),
        Some(mutant) if mutant.found_by() != FoundBy::Run => vec![mutant],
        _ => Vec::new(),
    };
    if !searched.is_empty() {
        let mut found = Vec::new();
        for mutant in searched {
            found.push(runtime.block_on(find(mutant, &options(Some(mutant))))?);
        }
        println!("{}", report::format_mutants(&found));
        let missed = found.iter().any(|found| found.rules.is_empty());
        return Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let options = options(mutant);
    let outcome = runtime.block_on(run::run(&options))?;
    let report = report::format_run(&outcome);
    std::fs::write(options.folder.join("report.txt"), &report)?;
    println!("{report}");
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(report_violations(&outcome.violations))
}

/// Runs a mutant until it is found.
async fn find(mutant: &'static Mutant, options: &Options) -> anyhow::Result<Found> {
    if mutant.found_by() != FoundBy::Run {
        let search = model_mutants::search(Path::new(run::PROGRAM), &options.folder, mutant).await?;
        let rules = search.broken.iter().map(|(rule, _)| *rule).collect();
        let after = format!("{} histories, {:.0} s", search.histories, search.took.as_secs_f64());
        return Ok(Found { mutant, rules, after });
    }
    let outcome = run::run(options).await?;
    let rules = outcome.violations.iter().map(|violation| violation.rule).collect();
    let after = format!("{} rounds, {:.0} s", outcome.faults.len(), outcome.took.as_secs_f64());
    Ok(Found { mutant, rules, after })
}

fn report_violations(violations: &[check::Violation]) -> ExitCode {
    for violation in violations {
        println!("BROKEN PROMISE: {}: {}", violation.rule, violation.what);
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
