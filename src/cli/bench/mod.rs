//! `annals bench`: appends over HTTP beside direct INSERTs by pgbench, in alternating rounds of one run.
//!
//! The figures of two machines, or of two days, say little; the ratio of the two sides in one run does. Nothing here judges.
//! The service runs as a process of its own, with its usual log, on a database made for the purpose. The other side is
//! pgbench with prepared single-row INSERTs into the tables that a service of one's own would have.

mod load;
mod subscribers;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::Database;
use crate::config::DatabaseArgs;
use crate::store::database::{self, ConnectOptions};
use crate::store::error::StoreError;
use crate::store::scratch::{Scratch, Session};
use load::{EVENT_DATA, Measured, Target};

/// The tables of a service that writes its events by hand: the mission's columns, keys and indexes, one table.
const DIRECT_TABLES: &str = include_str!("direct_tables.sql");
const SERVICE_DATABASE: &str = "annals_bench";
const DIRECT_DATABASE: &str = "annals_bench_direct";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Rounds; each measures every row once on both sides
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 5)]
    seconds: u64,

    /// Clients of the rows
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    clients: Vec<usize>,

    /// Measure instead what long transactions and a vacuum beside the appends cost, on 1, 50 and 20,000 streams
    #[arg(long)]
    beside_others: bool,

    /// Measure instead how long an event takes to so many subscribers, at --rate appends a second
    #[arg(long)]
    subscribers: Option<usize>,

    /// Appends a second for --subscribers
    #[arg(long, default_value_t = 500, requires = "subscribers")]
    rate: u64,

    /// Folder of pgbench [default: looked for in PATH]
    #[arg(long)]
    pgbench_dir: Option<PathBuf>,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub async fn run(args: BenchArgs) -> anyhow::Result<std::process::ExitCode> {
    let database = Database::open(&args.database).await?;
    let measured = bench(&args, &database).await;
    database.close().await?;
    measured?;
    Ok(std::process::ExitCode::SUCCESS)
}

async fn bench(args: &BenchArgs, database: &Database) -> anyhow::Result<()> {
    let service = Scratch::create(database.config.options.clone(), SERVICE_DATABASE).await?;
    let direct = Scratch::create(database.config.options.clone(), DIRECT_DATABASE).await?;
    direct.run(DIRECT_TABLES).await?;
    println!("{}", about(&service).await?);
    let server = Server::start(&service.options())?;
    let measured = if let Some(subscribers) = args.subscribers {
        to_subscribers(args, subscribers, &service, &direct, &server).await
    } else if args.beside_others {
        beside_others(args, &service, &direct, &server).await
    } else {
        beside_direct(args, &direct, &server).await
    };
    println!("\nThe service took {} MB of memory at the most.", server.peak_memory_mb()?);
    drop(server);
    service.remove().await?;
    direct.remove().await?;
    measured
}

/// The machine and the server, in a line: without them no figure means anything.
async fn about(scratch: &Scratch) -> anyhow::Result<String> {
    let version = scratch.ask("SHOW server_version").await?;
    let fsync = scratch.ask("SHOW fsync").await?;
    let commit = scratch.ask("SHOW synchronous_commit").await?;
    let processors = std::thread::available_parallelism()?;
    Ok(format!(
        "Annals {}, PostgreSQL {version} (fsync {fsync}, synchronous_commit {commit}), {processors} processors shared by \
         everything",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Each append a single event to a new stream with If-Match, beside single-row INSERTs.
async fn beside_direct(args: &BenchArgs, direct: &Scratch, server: &Server) -> anyhow::Result<()> {
    let pgbench = Pgbench::find(args, direct.options())?;
    let duration = Duration::from_secs(args.seconds);
    let sent = Arc::new(AtomicU64::new(0));
    let mut rows: Vec<(usize, Vec<Measured>, Vec<f64>)> = args.clients.iter().map(|n| (*n, vec![], vec![])).collect();
    for _ in 0..args.rounds {
        for (clients, over_http, by_hand) in &mut rows {
            over_http.push(load::append(&server.address, *clients, Target::NewStreams, duration, &sent).await?);
            // More sessions than this do not make PostgreSQL faster; an HTTP service hides its clients from it.
            by_hand.push(pgbench.run((*clients).min(64), args.seconds)?);
        }
    }
    println!(
        "{} rounds of {} s each, medians (lowest to highest)\n\n\
         | clients | appends/s over HTTP | p50 | p99 | direct INSERTs/s (pgbench, at most 64) | ratio |\n\
         |---:|---:|---:|---:|---:|---:|",
        args.rounds, args.seconds
    );
    for (clients, over_http, by_hand) in rows {
        let rates: Vec<f64> = over_http.iter().map(|measured| measured.per_second).collect();
        let ms = |pick: fn(&Measured) -> Duration| {
            median(&over_http.iter().map(|measured| pick(measured).as_secs_f64() * 1_000.0).collect::<Vec<_>>())
        };
        println!(
            "| {clients} | {} | {:.2} ms | {:.2} ms | {} | {:.2} |",
            spread(&rates),
            ms(|measured| measured.p50),
            ms(|measured| measured.p99),
            spread(&by_hand),
            median(&rates) / median(&by_hand)
        );
    }
    Ok(())
}

/// The append rate while others hold transactions and vacuum, beside the rate without them.
async fn beside_others(args: &BenchArgs, service: &Scratch, direct: &Scratch, server: &Server) -> anyhow::Result<()> {
    const CLIENTS: usize = 16;
    let duration = Duration::from_secs(args.seconds);
    let sent = Arc::new(AtomicU64::new(0));
    println!(
        "{} rounds of {} s each, {CLIENTS} clients, medians (lowest to highest); the others: {OTHERS}\n\n\
         | streams | appends/s | beside the others | ratio |\n|---:|---:|---:|---:|",
        args.rounds, args.seconds
    );
    for streams in [1, 50, 20_000] {
        let (mut without, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            let target = Target::Streams(streams);
            without.push(load::append(&server.address, CLIENTS, target, duration, &sent).await?.per_second);
            let others = Others::begin(service, direct).await?;
            beside.push(load::append(&server.address, CLIENTS, target, duration, &sent).await?.per_second);
            others.end().await?;
        }
        let ratio = median(&beside) / median(&without);
        println!("| {streams} | {} | {} | {ratio:.2} |", spread(&without), spread(&beside));
    }
    Ok(())
}

/// How long an event takes to those who follow, without the others and beside them.
async fn to_subscribers(
    args: &BenchArgs,
    subscribers: usize,
    service: &Scratch,
    direct: &Scratch,
    server: &Server,
) -> anyhow::Result<()> {
    let duration = Duration::from_secs(args.seconds);
    println!(
        "{} rounds of {} s each, {subscribers} subscribers, from the sending of an append to its reading by each of them; \
         the others: {OTHERS}\n\n\
         | | appends/s | p50 | p99 | longest | missed or out of order |\n|---|---:|---:|---:|---:|---:|",
        args.rounds, args.seconds
    );
    for beside in [false, true] {
        for _ in 0..args.rounds {
            let others = if beside { Some(Others::begin(service, direct).await?) } else { None };
            let delivered = subscribers::measure(&server.address, subscribers, args.rate, duration).await?;
            if let Some(others) = others {
                others.end().await?;
            }
            let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
            println!(
                "| {} | {:.0} | {:.1} ms | {:.1} ms | {:.1} ms | {} |",
                if beside { "beside the others" } else { "alone" },
                delivered.appends_per_second,
                ms(delivered.p50),
                ms(delivered.p99),
                ms(delivered.longest),
                delivered.out_of_order
            );
        }
    }
    Ok(())
}

const OTHERS: &str =
    "a REPEATABLE READ snapshot, a transaction that has written in another database, a VACUUM every ten seconds";

/// What else a PostgreSQL does at the same time.
struct Others {
    held: (Session, Session),
    vacuum: tokio::task::JoinHandle<Result<(), StoreError>>,
    enough: CancellationToken,
}

impl Others {
    async fn begin(service: &Scratch, elsewhere: &Scratch) -> anyhow::Result<Self> {
        let mut report = service.session().await?;
        report.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM partitions").await?;
        let mut writer = elsewhere.session().await?;
        writer.run("CREATE TABLE IF NOT EXISTS idle (n integer); BEGIN; INSERT INTO idle VALUES (1)").await?;
        let mut vacuuming = service.session().await?;
        // At the pace of autovacuum.
        vacuuming.run("SET vacuum_cost_delay = '2ms'").await?;
        let enough = CancellationToken::new();
        let until = enough.clone();
        let vacuum = tokio::spawn(async move {
            while !until.is_cancelled() {
                vacuuming.run("VACUUM events, event_ids, streams").await?;
                until.run_until_cancelled(tokio::time::sleep(Duration::from_secs(10))).await;
            }
            Ok(())
        });
        Ok(Self { held: (report, writer), vacuum, enough })
    }

    async fn end(self) -> anyhow::Result<()> {
        self.enough.cancel();
        self.vacuum.await??;
        drop(self.held);
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn spread(values: &[f64]) -> String {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(0.0, f64::max);
    format!("{:.0} ({lowest:.0} to {highest:.0})", median(values))
}

/// `annals serve` as a process of its own.
struct Server {
    child: Child,
    address: String,
    /// Removed with the server.
    log: tempfile::NamedTempFile,
}

impl Server {
    fn start(options: &ConnectOptions) -> anyhow::Result<Self> {
        const START_MAX: Duration = Duration::from_secs(30);
        let log = tempfile::NamedTempFile::new()?;
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .env("ANNALS_LISTEN", "127.0.0.1:0")
            .env("ANNALS_LOG", "json")
            .env("ANNALS_LOG_LEVEL", "info")
            .env("DATABASE_URL", database::to_url(options))
            .env_remove("DATABASE_HOST")
            .env_remove("DATABASE_PORT")
            .env_remove("DATABASE_NAME")
            .env_remove("DATABASE_USER")
            .env_remove("DATABASE_PASSWORD")
            .stderr(File::create(log.path())?)
            .spawn()?;
        let mut server = Self { child, address: String::new(), log };
        let started = std::time::Instant::now();
        while started.elapsed() < START_MAX {
            let said = std::fs::read_to_string(server.log.path())?;
            if let Some((_, rest)) = said.split_once("listening on http://") {
                server.address = rest.split('"').next().unwrap_or(rest).to_owned();
                return Ok(server);
            }
            if server.child.try_wait()?.is_some() {
                bail!("the server ended: {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the server does not listen within {} s", START_MAX.as_secs())
    }

    /// The high-water mark of its resident memory, as Linux tells it.
    fn peak_memory_mb(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1_024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The benchmark is over: nothing in flight is worth waiting for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// pgbench against the direct tables.
struct Pgbench {
    program: PathBuf,
    script: tempfile::NamedTempFile,
    options: ConnectOptions,
    /// Beside a `DATABASE_URL` it stands in `PGPASSWORD`, which pgbench reads itself.
    password: Option<String>,
}

impl Pgbench {
    fn find(args: &BenchArgs, options: ConnectOptions) -> anyhow::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = args.pgbench_dir.clone().into_iter().chain(std::env::split_paths(&path));
        let program = places.map(|place| place.join("pgbench")).find(|program| program.is_file()).context(
            "pgbench was not found: install it (it comes with PostgreSQL), or name its folder with --pgbench-dir",
        )?;
        let script = tempfile::NamedTempFile::new()?;
        std::fs::write(
            script.path(),
            format!(
                "INSERT INTO events (event_id, aggregate_type, aggregate_id, version, event_type, event_data, occurred_at)\n\
                 VALUES (gen_random_uuid(), 'Bench', gen_random_uuid()::text, 1, 'OrderPlaced', '{EVENT_DATA}', now());\n"
            ),
        )?;
        let password = args.database.database_password.clone();
        Ok(Self { program, script, options, password })
    }

    /// Transactions a second.
    fn run(&self, clients: usize, seconds: u64) -> anyhow::Result<f64> {
        let host = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => self.options.get_host().to_owned(),
        };
        let mut command = Command::new(&self.program);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        let output = command
            .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string(), "-T", &seconds.to_string(), "-f"])
            .arg(self.script.path())
            .args([
                "-h",
                &host,
                "-p",
                &self.options.get_port().to_string(),
                "-U",
                self.options.get_username(),
                DIRECT_DATABASE,
            ])
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        rate.with_context(|| format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
