//! One run, from the empty database to the checked history.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::check::{Violation, check};
use super::cluster::{Cluster, RECOVERY_MAX, REPLICAS};
use super::faults::{self, Kind, Torturer};
use super::history::{EventName, Fault, History, Logged};
use super::mutants::Mutant;
use super::workload::{Load, TYPES, Way};

const PROGRAM: &str = env!("CARGO_BIN_EXE_annals");

pub struct Options {
    /// What the run leaves behind: its history, its report, and the logs of all processes.
    pub folder: PathBuf,
    pub seed: u64,
    pub rounds: usize,
    /// One kind of fault alone.
    pub only: Option<Kind>,
    pub writers: usize,
    pub streams: u64,
    /// A broken build; the run ends when it is found.
    pub mutant: Option<&'static Mutant>,
}

pub struct Outcome {
    pub seed: u64,
    pub major: u32,
    pub took: Duration,
    pub faults: Vec<Kind>,
    pub history: History,
    pub violations: Vec<Violation>,
}

pub async fn run(options: &Options) -> anyhow::Result<Outcome> {
    if options.folder.exists() {
        std::fs::remove_dir_all(&options.folder)?;
    }
    std::fs::create_dir_all(&options.folder)?;
    // PostgreSQL's own folder has to be one that an unprivileged user gets to, with a path short enough for a socket.
    let data = tempfile::Builder::new().prefix("annals-torture-").tempdir()?;
    let in_program = options.mutant.map_or(Ok(None), Mutant::in_program)?;
    let mut cluster = Cluster::start(Path::new(PROGRAM), data.path(), &options.folder, in_program).await?;
    let major = cluster.postgres.major();
    let outcome = torture(options, &mut cluster).await;
    let Cluster { postgres, replicas } = cluster;
    drop(replicas);
    postgres.stop().await?;
    std::fs::copy(data.path().join("postgres.log"), options.folder.join("postgres.log"))?;
    let (took, faults, history) = outcome?;
    let violations = check(&history);
    history.write(&options.folder.join("history.jsonl"))?;
    Ok(Outcome { seed: options.seed, major, took, faults, history, violations })
}

async fn torture(options: &Options, cluster: &mut Cluster) -> anyhow::Result<(Duration, Vec<Kind>, History)> {
    let bases: Vec<_> = cluster.replicas.iter().map(|replica| replica.base()).collect();
    let load = Load::new(bases.try_into().expect("one a replica"), options.streams)?;
    load.register_reducer().await?;
    if let Some(mutant) = options.mutant {
        mutant.apply(&mut cluster.postgres.session().await?).await?;
    }
    let tasks = start(&load, options);

    let mut random = fastrand::Rng::with_seed(options.seed);
    let schedule = faults::schedule(options.rounds, options.only, &mut random);
    let started = Instant::now();
    let mut history = History::default();
    let mut done = Vec::new();
    for (round, kind) in (1..).zip(schedule) {
        tokio::time::sleep(Duration::from_millis(random.u64(300..1_500))).await;
        let at = load.now();
        let enough = 2 * options.writers as u64 + 1;
        let harm = Torturer { cluster, load: &load, random: &mut random, enough }.strike(kind).await?;
        let what = format!("{kind:?}");
        println!("round {round}: {what}{}", harm.as_deref().map_or(String::new(), |harm| format!(": {harm}")));
        history.faults.push(Fault { round, at, what, harm });
        done.push(kind);
        let broken = history.faults.iter().any(|fault| fault.harm.is_some());
        if options.mutant.is_some()
            && (broken || !check(&settle(cluster, &load, history.faults.clone()).await?).is_empty())
        {
            break;
        }
    }
    let took = started.elapsed();
    load.stop();
    let history = settle(cluster, &load, history.faults).await?;
    for task in tasks {
        task.abort();
        // A reader that has panicked would be one that sees no fault.
        if let Err(ended) = task.await
            && ended.is_panic()
        {
            std::panic::resume_unwind(ended.into_panic());
        }
    }
    Ok((took, done, history))
}

fn start(load: &Arc<Load>, options: &Options) -> Vec<tokio::task::JoinHandle<()>> {
    let seed = options.seed;
    let mut tasks = Vec::new();
    for _ in 0..options.writers {
        tasks.push(tokio::spawn(load.clone().write(seed)));
    }
    for (name, way, aggregate_type) in [
        ("subscriber-1", Way::Follow, None),
        ("subscriber-2", Way::Follow, None),
        ("subscriber-of-a-type", Way::Follow, Some(TYPES[1])),
        ("slow-subscriber", Way::FollowSlowly, None),
        ("poller", Way::Poll, None),
        ("poller-of-a-type", Way::Poll, Some(TYPES[0])),
    ] {
        tasks.push(tokio::spawn(load.clone().read(name, way, aggregate_type, seed)));
    }
    tasks.push(tokio::spawn(load.clone().fold(seed)));
    tasks
}

/// Waits until every request is answered and every reader is at the end; the history up to here.
async fn settle(cluster: &Cluster, load: &Load, mut faults: Vec<Fault>) -> anyhow::Result<History> {
    let mut harmed = |what: &str, harm: String| {
        faults.push(Fault { round: 0, at: load.now(), what: what.to_owned(), harm: Some(harm) });
    };
    let quiet = match tokio::time::timeout(RECOVERY_MAX * 2, load.quiesce()).await {
        Ok(quiet) => Some(quiet),
        Err(_) => {
            harmed("the end", "a request is not answered in two minutes".to_owned());
            None
        }
    };
    let mut logs = Vec::new();
    for replica in 0..REPLICAS {
        match read_log(load, replica).await {
            Ok(log) => logs.push(log),
            Err(error) => harmed("the log is read", format!("replica {replica}: {error:#}")),
        }
    }
    let ids = |log: &[Logged]| log.iter().map(|event| (event.global_position, event.event_id)).collect::<Vec<_>>();
    if let [one, other] = logs.as_slice()
        && ids(one) != ids(other)
    {
        harmed("the log is read", "the replicas show different logs".to_owned());
    }
    let log = logs.into_iter().next().unwrap_or_default();
    load.wait_for_readers(&log).await;
    if let Err(error) = verify(cluster).await {
        harmed("annals verify", format!("{error:#}"));
    }
    let left = cluster.postgres.idle_in_transaction().await?;
    if left > 0 && quiet.is_some() {
        harmed("connections", format!("{left} were left inside a transaction"));
    }
    faults.extend(load.complaints.lock().expect("the lock").iter().cloned());
    Ok(History {
        requests: load.requests.lock().expect("the lock").clone(),
        readers: load.readers.lock().expect("the lock").values().cloned().collect(),
        looks: load.looks.lock().expect("the lock").clone(),
        log,
        faults,
    })
}

/// The whole log as lines, of which the last one says that it is whole.
async fn read_log(load: &Load, replica: usize) -> anyhow::Result<Vec<Logged>> {
    let call = load.get(replica, "/events").header("accept", "application/x-ndjson");
    let text = call.timeout(RECOVERY_MAX).send().await?.error_for_status()?.text().await?;
    let mut lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let end = lines.pop().context("an answer without lines")?;
    anyhow::ensure!(end["end"]["count"] == lines.len(), "it ends with {end}");
    lines.iter().map(|line| logged(line).with_context(|| line.to_string())).collect()
}

fn logged(event: &Value) -> Option<Logged> {
    let event_id = event["event_id"].as_str()?.parse().ok()?;
    let expected = EventName::of(event_id).map(EventName::data);
    Some(Logged {
        global_position: event["global_position"].as_i64()?,
        stream: format!("{}/{}", event["aggregate_type"].as_str()?, event["aggregate_id"].as_str()?),
        version: i32::try_from(event["version"].as_i64()?).ok()?,
        event_id,
        occurred_at: event["occurred_at"].as_str()?.to_owned(),
        altered_data: (expected.as_ref() != Some(&event["event_data"])).then(|| event["event_data"].clone()),
    })
}

/// `annals verify` on the database itself.
async fn verify(cluster: &Cluster) -> anyhow::Result<()> {
    let mut command = Command::new(PROGRAM);
    command.arg("verify").env_clear().env("DATABASE_URL", cluster.postgres.url());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{told}");
    Ok(())
}
