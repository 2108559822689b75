//! The other side: prepared statements whose values are parameters, as a service of one's own would send them, over a
//! connection for each client. pgbench sends them where it is installed, else this process does.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::BenchArgs;
use super::load::EVENT_DATA;
use crate::store::database::ConnectOptions;
use crate::store::scratch::Scratch;

/// More sessions than this do not make PostgreSQL faster; an HTTP service hides its clients from it.
const SESSIONS_MAX: usize = 64;

/// What each client repeats.
pub enum Script {
    /// A row a transaction.
    SingleRows,
    /// So many rows a transaction, of one stream.
    ManyRows(usize),
    /// A snapshot and the events after it, of one of so many aggregates.
    Loads { aggregates: usize },
}

impl Script {
    /// What `:n` is, each time anew: a number up to this one.
    fn numbers(&self) -> u64 {
        match self {
            Self::SingleRows | Self::ManyRows(_) => 1_000_000_000_000,
            Self::Loads { aggregates } => *aggregates as u64,
        }
    }

    /// With the parameters `:n` and `:data`. That both are cast from text costs nothing, and the driver needs it.
    fn statements(&self) -> Vec<String> {
        const INSERT: &str = "INSERT INTO events (event_id, aggregate_type, aggregate_id, version, event_type, event_data, \
                              occurred_at)\nVALUES ";
        const ONE: &str = "aggregate_type = 'Loaded' AND aggregate_id = 'agg-' || :n::text";
        match self {
            Self::SingleRows => vec![format!(
                "{INSERT}(gen_random_uuid(), 'Bench', gen_random_uuid()::text, 1, 'OrderPlaced', :data::text::jsonb, now())"
            )],
            Self::ManyRows(rows) => {
                let row = |version| {
                    format!(
                        "(gen_random_uuid(), 'Bench', :n::text, {version}, 'OrderPlaced', :data::text::jsonb, now())"
                    )
                };
                vec![format!("{INSERT}{}", (1..=*rows).map(row).collect::<Vec<_>>().join(",\n"))]
            }
            Self::Loads { .. } => vec![
                format!("SELECT version, state FROM snapshots WHERE {ONE}"),
                format!(
                    "SELECT event_id, version, event_type, event_data, metadata, occurred_at, correlation_id, \
                     causation_id\n  FROM events\n WHERE {ONE} AND version > 100\n ORDER BY version"
                ),
            ],
        }
    }
}

/// Who sends the statements.
pub enum ByHand {
    Pgbench {
        program: PathBuf,
        options: ConnectOptions,
        /// Beside a `DATABASE_URL` it stands in `PGPASSWORD`, which pgbench reads itself.
        password: Option<String>,
    },
    Driver(Scratch),
}

impl ByHand {
    pub fn find(args: &BenchArgs, direct: &Scratch) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = args.pgbench_dir.clone().into_iter().chain(std::env::split_paths(&path));
        match places.map(|place| place.join("pgbench")).find(|program| program.is_file()) {
            Some(program) => {
                let password = args.database.database_password.clone();
                Self::Pgbench { program, options: direct.options(), password }
            }
            None => Self::Driver(direct.clone()),
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Pgbench { .. } => "pgbench",
            Self::Driver(_) => "the same statements, without pgbench",
        }
    }

    /// Transactions a second.
    pub async fn run(&self, script: &Script, clients: usize, seconds: u64) -> anyhow::Result<f64> {
        let sessions = clients.min(SESSIONS_MAX);
        match self {
            Self::Pgbench { program, options, password } => {
                let file = tempfile::NamedTempFile::new()?;
                let statements = script.statements().join(";\n");
                std::fs::write(file.path(), format!("\\set n random(1, {})\n{statements};\n", script.numbers()))?;
                let mut command = pgbench(program, options, file.path(), sessions, seconds)?;
                if let Some(password) = password {
                    command.env("PGPASSWORD", password);
                }
                let output = command.output().await?;
                let said = String::from_utf8_lossy(&output.stdout);
                let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
                rate.with_context(|| format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)))
            }
            Self::Driver(scratch) => drive(scratch, script, sessions, Duration::from_secs(seconds)).await,
        }
    }
}

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
        .arg(options.get_database().context("the direct database has a name")?)
        .stdin(Stdio::null());
    Ok(command)
}

/// The statements from this process.
async fn drive(scratch: &Scratch, script: &Script, sessions: usize, duration: Duration) -> anyhow::Result<f64> {
    let statements: Arc<Vec<_>> = Arc::new(script.statements().iter().map(|text| Prepared::of(text)).collect());
    let mut opened = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        opened.push(scratch.session().await?);
    }
    let numbers = script.numbers();
    let started = Instant::now();
    let tasks: Vec<_> = opened
        .into_iter()
        .map(|mut session| {
            let statements = statements.clone();
            tokio::spawn(async move {
                let mut done = 0_u64;
                while started.elapsed() < duration {
                    let n = fastrand::u64(1..=numbers).to_string();
                    for Prepared { text, parameters } in &*statements {
                        let value = |name: &&str| if *name == ":n::" { n.as_str() } else { EVENT_DATA };
                        session.query(text, parameters.iter().map(value)).await?;
                    }
                    done += 1;
                }
                anyhow::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// A statement with the parameters that it has, numbered.
struct Prepared {
    text: String,
    parameters: Vec<&'static str>,
}

impl Prepared {
    fn of(statement: &str) -> Self {
        let mut prepared = Self { text: statement.to_owned(), parameters: Vec::new() };
        for name in [":data::", ":n::"] {
            if prepared.text.contains(name) {
                prepared.parameters.push(name);
                prepared.text = prepared.text.replace(name, &format!("${}::", prepared.parameters.len()));
            }
        }
        prepared
    }
}
