//! Direct SQL, the baseline: prepared statements with parameters, as an application without Annals would send them.
//!
//! Each client has a connection of its own. pgbench sends the statements if it is installed. Otherwise this process
//! sends them through sqlx.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::store::connection::config::ConnectOptions;
use anyhow::Context;

use crate::args::BenchArgs;
use crate::load::EVENT_DATA;
use crate::scratch::Scratch;

/// The maximum number of sessions. More sessions do not make PostgreSQL faster, and an application with more clients
/// would not open a session for each client.
const SESSIONS_MAX: usize = 64;

/// The transaction that each client repeats.
pub enum Script {
    /// Inserts one row.
    InsertOne,
    /// Inserts a number of rows of one stream.
    InsertMany { rows: usize },
    /// Reads the snapshot and the later events of a random aggregate.
    Loads { aggregates: usize },
}

impl Script {
    /// Returns the maximum of `:n`, which is a new random number from 1 for each transaction.
    fn random_max(&self) -> u64 {
        match self {
            Self::InsertOne | Self::InsertMany { .. } => 1_000_000_000_000,
            Self::Loads { aggregates } => *aggregates as u64,
        }
    }

    /// Returns the statements, with the parameters `:n` and `:data`. Both are cast from text, because sqlx binds text.
    /// The cost of the casts is negligible.
    fn statements(&self) -> Vec<String> {
        const INSERT: &str = "INSERT INTO events (event_id, aggregate_type, aggregate_id, version, event_type, \
                              event_data, occurred_at)\nVALUES ";
        const AGGREGATE: &str = "aggregate_type = 'Loaded' AND aggregate_id = 'agg-' || :n::text";
        match self {
            Self::InsertOne => vec![format!(
                "{INSERT}(gen_random_uuid(), 'Bench', gen_random_uuid()::text, 1, 'OrderPlaced', :data::text::jsonb, \
                 now())"
            )],
            Self::InsertMany { rows } => {
                let row = |version| {
                    format!(
                        "(gen_random_uuid(), 'Bench', :n::text, {version}, 'OrderPlaced', :data::text::jsonb, now())"
                    )
                };
                vec![format!("{INSERT}{}", (1..=*rows).map(row).collect::<Vec<_>>().join(",\n"))]
            }
            Self::Loads { .. } => vec![
                format!("SELECT version, state FROM snapshots WHERE {AGGREGATE}"),
                format!(
                    "SELECT event_id, version, event_type, event_data, metadata, occurred_at, correlation_id, \
                     causation_id\n  FROM events\n WHERE {AGGREGATE} AND version > 100\n ORDER BY version"
                ),
            ],
        }
    }
}

/// The sender of the statements.
pub enum DirectSql {
    /// pgbench, as a process of its own.
    Pgbench {
        program: PathBuf,
        options: ConnectOptions,
        /// The value of `DATABASE_PASSWORD`. With `DATABASE_URL` it is `None`, and pgbench itself reads `PGPASSWORD`.
        password: Option<String>,
    },
    /// This process, through sqlx.
    Driver(Scratch),
}

impl DirectSql {
    /// Chooses pgbench if it is in the configured folder or in `PATH`, and the driver otherwise.
    pub fn find(args: &BenchArgs, direct: &Scratch) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = args.pgbench_dir.clone().into_iter().chain(std::env::split_paths(&path));
        match folders.map(|folder| folder.join("pgbench")).find(|program| program.is_file()) {
            Some(program) => {
                let password = args.database.database_password.clone();
                Self::Pgbench { program, options: direct.options(), password }
            }
            None => Self::Driver(direct.clone()),
        }
    }

    /// The name of the baseline in a report.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pgbench { .. } => "direct SQL, sent by pgbench",
            Self::Driver(_) => "direct SQL, sent by sqlx",
        }
    }

    /// Repeats a script for a number of seconds, with a session for each client, up to a limit. Returns the number of
    /// transactions per second.
    pub async fn run(&self, script: &Script, clients: usize, seconds: u64) -> anyhow::Result<f64> {
        let sessions = clients.min(SESSIONS_MAX);
        match self {
            Self::Pgbench { program, options, password } => {
                let file = tempfile::NamedTempFile::new()?;
                let statements = script.statements().join(";\n");
                std::fs::write(file.path(), format!("\\set n random(1, {})\n{statements};\n", script.random_max()))?;
                let mut command = pgbench(program, options, file.path(), sessions, seconds)?;
                if let Some(password) = password {
                    command.env("PGPASSWORD", password);
                }
                let output = command.output().await?;
                let stdout = String::from_utf8_lossy(&output.stdout);
                let rate = stdout.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
                rate.with_context(|| format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)))
            }
            Self::Driver(scratch) => run_driver(scratch, script, sessions, Duration::from_secs(seconds)).await,
        }
    }
}

/// Returns the command that runs a script file with pgbench.
fn pgbench(
    program: &Path,
    options: &ConnectOptions,
    script: &Path,
    sessions: usize,
    seconds: u64,
) -> anyhow::Result<tokio::process::Command> {
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let mut command = tokio::process::Command::new(program);
    command
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &sessions.to_string(), "-T", &seconds.to_string()])
        .args(["-D", &format!("data={EVENT_DATA}"), "-f"])
        .arg(script)
        .args(["-h", &host, "-p", &options.get_port().to_string(), "-U", options.get_username()])
        .arg(options.get_database().context("the options name no database")?)
        .stdin(Stdio::null());
    Ok(command)
}

/// Repeats a script from this process. Returns the number of transactions per second.
async fn run_driver(scratch: &Scratch, script: &Script, sessions: usize, duration: Duration) -> anyhow::Result<f64> {
    let statements: Arc<Vec<_>> = Arc::new(script.statements().iter().map(|text| Statement::parse(text)).collect());
    let mut opened = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        opened.push(scratch.session().await?);
    }
    let random_max = script.random_max();
    let started = Instant::now();
    let tasks: Vec<_> = opened
        .into_iter()
        .map(|mut session| {
            let statements = statements.clone();
            tokio::spawn(async move {
                let mut transactions = 0_u64;
                while started.elapsed() < duration {
                    let n = fastrand::u64(1..=random_max).to_string();
                    for Statement { text, parameters } in &*statements {
                        let value = |name: &&str| if *name == ":n::" { n.as_str() } else { EVENT_DATA };
                        session.run_prepared(text, parameters.iter().map(value)).await?;
                    }
                    transactions += 1;
                }
                anyhow::Ok(transactions)
            })
        })
        .collect();
    let mut transactions = 0;
    for task in tasks {
        transactions += task.await??;
    }
    Ok(transactions as f64 / started.elapsed().as_secs_f64())
}

/// A statement with numbered parameters.
struct Statement {
    text: String,
    /// The names of the parameters `$1`, `$2` and so on.
    parameters: Vec<&'static str>,
}

impl Statement {
    /// Replaces the names of the parameters with numbers.
    fn parse(statement: &str) -> Self {
        let mut parsed = Self { text: statement.to_owned(), parameters: Vec::new() };
        for name in [":data::", ":n::"] {
            if parsed.text.contains(name) {
                parsed.parameters.push(name);
                parsed.text = parsed.text.replace(name, &format!("${}::", parsed.parameters.len()));
            }
        }
        parsed
    }
}
