//! One run, which begins with an empty database and ends with a checked history.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::check::{Violation, check};
use super::cluster::{Cluster, RECOVERY_MAX, REPLICAS};
use super::faults::{self, Injector, Kind};
use super::history::{EventName, Fault, History, Logged};
use super::mutants::Mutant;
use super::workload::{Load, ReadMode, TYPES};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_annals");

pub struct Options {
    /// The folder for the history, the report, and the logs of all processes.
    pub folder: PathBuf,
    pub seed: u64,
    pub rounds: usize,
    /// The only kind of fault that is injected; `None`: all kinds.
    pub only: Option<Kind>,
    pub writers: usize,
    /// The number of workers of a consumer group.
    pub workers: u64,
    pub streams: u64,
    /// The run ends when this mutant is found.
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
    // An unprivileged user must be able to access the folder of PostgreSQL, and its path must be short enough for a
    // socket.
    let data = tempfile::Builder::new().prefix("annals-torture-").tempdir()?;
    // Content is removed from the files as soon as it is erased, so that tables are replaced under load.
    let settings = [("ERASE_REWRITE_EVERY".to_owned(), "1s".to_owned())];
    let in_program = options.mutant.map_or(Ok(None), Mutant::in_program)?;
    let mut cluster = Cluster::start(Path::new(PROGRAM), data.path(), &options.folder, &settings, in_program).await?;
    let major = cluster.postgres.major();
    let outcome = execute(options, &mut cluster).await;
    let Cluster { postgres, replicas } = cluster;
    drop(replicas);
    postgres.stop().await?;
    std::fs::copy(data.path().join("postgres.log"), options.folder.join("postgres.log"))?;
    let (took, faults, history) = outcome?;
    let violations = check(&history);
    history.write(&options.folder.join("history.jsonl"))?;
    Ok(Outcome { seed: options.seed, major, took, faults, history, violations })
}

async fn execute(options: &Options, cluster: &mut Cluster) -> anyhow::Result<(Duration, Vec<Kind>, History)> {
    let bases: Vec<_> = cluster.replicas.iter().map(super::cluster::Replica::base).collect();
    let load = Load::new(bases.try_into().expect("one base URL for each replica"), options.streams)?;
    load.register_reducer().await?;
    if options.workers > 0 {
        super::workers::create_group(&load).await?;
    }
    if let Some(mutant) = options.mutant {
        mutant.apply(&mut cluster.postgres.session().await?).await?;
    }
    let (writers, tasks) = start(&load, options);

    let mut random = fastrand::Rng::with_seed(options.seed);
    let schedule = faults::schedule(options.rounds, options.only, &mut random);
    let started = Instant::now();
    let mut history = History::default();
    let mut done = Vec::new();
    for (round, kind) in (1..).zip(schedule) {
        tokio::time::sleep(Duration::from_millis(random.u64(300..1_500))).await;
        let at = load.now();
        let progress = 2 * options.writers as u64 + 1;
        let harm = Injector { cluster, load: &load, random: &mut random, progress }.inject(kind).await?;
        let what = format!("{kind:?}");
        println!("round {round}: {what}{}", harm.as_deref().map_or(String::new(), |harm| format!(": {harm}")));
        history.faults.push(Fault { round, at, what, harm });
        done.push(kind);
        let has_harm = history.faults.iter().any(|fault| fault.harm.is_some());
        if options.mutant.is_some()
            && (has_harm || !check(&settle(cluster, &load, history.faults.clone()).await?).is_empty())
        {
            break;
        }
    }
    let took = started.elapsed();
    load.stop();
    if options.workers > 0
        && options.mutant.is_none()
        && let Err(error) = finish_work(&load, writers).await
    {
        let harm = Some(format!("{error:#}"));
        history.faults.push(Fault { round: 0, at: load.now(), what: "the workers".to_owned(), harm });
    }
    let history = settle(cluster, &load, history.faults).await?;
    for task in tasks {
        task.abort();
        // A task that panicked has recorded no violation, so the panic is propagated.
        if let Err(ended) = task.await
            && ended.is_panic()
        {
            std::panic::resume_unwind(ended.into_panic());
        }
    }
    Ok((took, done, history))
}

/// Waits until the writers have stopped, and the workers have processed the whole log.
async fn finish_work(load: &Arc<Load>, writers: Vec<JoinHandle<()>>) -> anyhow::Result<()> {
    futures_util::future::try_join_all(writers).await?;
    let head = load.send_to("GET", 0, "/events?after=head", None).await?.error_for_status()?.text().await?;
    let head: Value = serde_json::from_str(&head)?;
    super::workers::wait_until_processed(load, head["head"].as_i64().context("the log has a head")?).await
}

/// Starts the writers, and the other clients.
fn start(load: &Arc<Load>, options: &Options) -> (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>) {
    let seed = options.seed;
    let writers = (0..options.writers).map(|_| tokio::spawn(load.clone().write(seed))).collect();
    let mut tasks = Vec::new();
    for (name, mode, aggregate_type) in [
        ("subscriber-1", ReadMode::Subscribe, None),
        ("subscriber-2", ReadMode::Subscribe, None),
        ("subscriber-of-a-type", ReadMode::Subscribe, Some(TYPES[1])),
        ("slow-subscriber", ReadMode::SubscribeSlowly, None),
        ("poller", ReadMode::Poll, None),
        ("poller-of-a-type", ReadMode::Poll, Some(TYPES[0])),
    ] {
        tasks.push(tokio::spawn(load.clone().read(name, mode, aggregate_type, seed)));
    }
    tasks.push(tokio::spawn(load.clone().read_states(seed)));
    if options.mutant.is_none() {
        tasks.push(tokio::spawn(super::erasers::erase(load.clone(), seed)));
    }
    for number in 0..options.workers {
        tasks.push(tokio::spawn(super::workers::work(load.clone(), number, seed)));
    }
    if options.workers > 0 {
        tasks.push(tokio::spawn(super::workers::operate(load.clone())));
    }
    (writers, tasks)
}

/// Waits until every request has a response, and every reader has reached the end of the log. Returns the history.
async fn settle(cluster: &Cluster, load: &Load, mut faults: Vec<Fault>) -> anyhow::Result<History> {
    let mut add_harm = |what: &str, harm: String| {
        faults.push(Fault { round: 0, at: load.now(), what: what.to_owned(), harm: Some(harm) });
    };
    let quiet = match tokio::time::timeout(RECOVERY_MAX * 2, load.quiesce()).await {
        Ok(quiet) => Some(quiet),
        Err(_) => {
            add_harm("the end of the run", "a request has no response after two minutes".to_owned());
            None
        }
    };
    let mut logs = Vec::new();
    for replica in 0..REPLICAS {
        match read_log(load, replica).await {
            Ok(log) => logs.push(log),
            Err(error) => add_harm("reading the log", format!("replica {replica}: {error:#}")),
        }
    }
    let ids = |log: &[Logged]| log.iter().map(|event| (event.global_position, event.event_id)).collect::<Vec<_>>();
    if let [one, other] = logs.as_slice()
        && ids(one) != ids(other)
    {
        add_harm("reading the log", "the replicas return different logs".to_owned());
    }
    let log = logs.into_iter().next().unwrap_or_default();
    load.wait_for_readers(&log).await;
    if let Err(error) = verify(cluster).await {
        add_harm("annals verify", format!("{error:#}"));
    }
    let idle = cluster.postgres.idle_in_transaction().await?;
    if idle > 0 && quiet.is_some() {
        add_harm("connections", format!("{idle} connections are idle in a transaction"));
    }
    faults.extend(load.unexpected.lock().expect("the lock").iter().cloned());
    Ok(History {
        requests: load.requests.lock().expect("the lock").clone(),
        readers: load.readers.lock().expect("the lock").values().cloned().collect(),
        reads: load.reads.lock().expect("the lock").clone(),
        processed: load.processed.lock().expect("the lock").clone(),
        erased: load.erased.lock().expect("the lock").clone(),
        log,
        faults,
    })
}

/// Reads the whole log as NDJSON. The last line confirms that the log is complete.
async fn read_log(load: &Load, replica: usize) -> anyhow::Result<Vec<Logged>> {
    let call = load.get(replica, "/events").header("accept", "application/x-ndjson");
    let text = call.timeout(RECOVERY_MAX).send().await?.error_for_status()?.text().await?;
    let mut lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let end = lines.pop().context("the response has no lines")?;
    anyhow::ensure!(end["end"]["count"] == lines.len(), "the response ends with {end}");
    lines.iter().map(|line| logged(line).with_context(|| line.to_string())).collect()
}

fn logged(event: &Value) -> Option<Logged> {
    let event_id = event["event_id"].as_str()?.parse().ok()?;
    let data = &event["event_data"];
    let announcement = (event["event_type"] == "$erased").then(|| serde_json::from_value(data.clone()));
    let expected = EventName::from_id(event_id).map(EventName::data);
    let is_altered = !data.is_null() && announcement.is_none() && expected.as_ref() != Some(data);
    Some(Logged {
        global_position: event["global_position"].as_i64()?,
        stream: format!("{}/{}", event["aggregate_type"].as_str()?, event["aggregate_id"].as_str()?),
        version: i32::try_from(event["version"].as_i64()?).ok()?,
        event_id,
        occurred_at: event["occurred_at"].as_str()?.to_owned(),
        altered_data: is_altered.then(|| data.clone()),
        is_erased: data.is_null(),
        announcement: announcement.transpose().ok()?,
    })
}

/// Runs `annals verify` on the database.
async fn verify(cluster: &Cluster) -> anyhow::Result<()> {
    let mut command = Command::new(PROGRAM);
    command.arg("verify").env_clear().env("DATABASE_URL", cluster.postgres.url());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{printed}");
    Ok(())
}
