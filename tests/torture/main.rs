//! `annals-torture`: faults while it works, and a checker that knows every promise.
//!
//! Two replicas of the service on one PostgreSQL; writers, subscribers, pollers and folders of states go through proxies;
//! a seed says which fault comes when. In the end the history of it all is checked, and `annals verify` is run.
//!
//!     cargo test --test annals-torture                                     every kind of fault once, as in CI
//!     cargo test --release --test annals-torture -- --rounds 300 --seed 7  the long run
//!     cargo test --features mutants --test annals-torture -- --mutants     broken builds, each of which has to be found
//!     cargo test --test annals-torture -- --check target/torture/seed-7    a kept history, checked again
//!
//! Seed, history, logs and report of a run are kept in target/torture. A seed fixes what is sent and which faults come in
//! which order; how they meet in time is the machine's.

mod check;
mod cluster;
mod faults;
mod history;
mod mutants;
mod proxy;
mod report;
mod run;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use check::check;
use clap::Parser;
use history::History;
use mutants::{MUTANTS, Mutant};
use run::Options;

/// Tortures Annals, and checks that it keeps its promises.
#[derive(Parser)]
#[command(name = "annals-torture")]
struct Args {
    /// Rounds; each has one fault
    #[arg(long, default_value_t = faults::Kind::ALL.len())]
    rounds: usize,

    /// One kind of fault alone: stop-replica is a rolling restart
    #[arg(long)]
    only: Option<faults::Kind>,

    /// What is sent, and which faults come in which order
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Clients that append
    #[arg(long, default_value_t = 16)]
    writers: usize,

    /// Streams of each of the two types
    #[arg(long, default_value_t = 25)]
    streams: u64,

    /// Torture a broken build, until it is found
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,

    /// Torture every broken build; a failure if one is not found
    #[arg(long)]
    mutants: bool,

    /// Check the history in this folder again, and do nothing else
    #[arg(long, value_name = "FOLDER")]
    check: Option<PathBuf>,

    /// Names of tests, as `cargo test` hands them to every test program
    #[arg(hide = true)]
    filters: Vec<String>,

    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !args.filters.is_empty() && !args.filters.iter().any(|filter| "torture".contains(filter.as_str())) {
        println!("annals-torture: not asked for");
        return Ok(ExitCode::SUCCESS);
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("torture");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(folder) = &args.check {
        let history = History::read(&folder.join("history.jsonl"))?;
        return Ok(told(&check(&history)));
    }
    let options = |mutant: Option<&'static Mutant>| Options {
        folder: kept.join(mutant.map_or(format!("seed-{}", args.seed), |mutant| format!("mutant-{}", mutant.name))),
        seed: args.seed,
        rounds: args.rounds,
        only: args.only,
        writers: args.writers,
        streams: args.streams,
        mutant,
    };
    if args.mutants {
        let mut found = Vec::new();
        for mutant in &MUTANTS {
            found.push((mutant, runtime.block_on(run::run(&options(Some(mutant))))?));
        }
        println!("{}", report::of_mutants(&found));
        let missed = found.iter().any(|(_, outcome)| outcome.violations.is_empty());
        return Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let mutant = args.mutant.as_deref().map(Mutant::named).transpose()?;
    let options = options(mutant);
    let outcome = runtime.block_on(run::run(&options))?;
    let report = report::of_run(&outcome);
    std::fs::write(options.folder.join("report.txt"), &report)?;
    println!("{report}");
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(told(&outcome.violations))
}

fn told(violations: &[check::Violation]) -> ExitCode {
    for violation in violations {
        println!("NOT KEPT: {}: {}", violation.rule, violation.what);
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
