//! The other side: pgbench, with prepared statements whose values are parameters, as a service of one's own would send them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::BenchArgs;
use super::load::EVENT_DATA;
use crate::store::database::ConnectOptions;

/// More sessions than this do not make PostgreSQL faster; an HTTP service hides its clients from it.
const SESSIONS_MAX: usize = 64;

/// What pgbench repeats.
pub enum Script {
    /// A row a transaction.
    SingleRows,
    /// So many rows a transaction, of one stream.
    ManyRows(usize),
    /// A snapshot and the events after it, of one of so many aggregates.
    Loads { aggregates: usize },
}

impl Script {
    fn text(&self) -> String {
        const INSERT: &str = "INSERT INTO events (event_id, aggregate_type, aggregate_id, version, event_type, event_data, \
                              occurred_at)\nVALUES ";
        match self {
            Self::SingleRows => format!(
                "{INSERT}(gen_random_uuid(), 'Bench', gen_random_uuid()::text, 1, 'OrderPlaced', :data, now());\n"
            ),
            Self::ManyRows(rows) => {
                let row =
                    |version| format!("(gen_random_uuid(), 'Bench', :stream, {version}, 'OrderPlaced', :data, now())");
                let values: Vec<_> = (1..=*rows).map(row).collect();
                format!("\\set stream random(1, 1000000000000)\n{INSERT}{};\n", values.join(",\n"))
            }
            Self::Loads { aggregates } => format!(
                "\\set n random(1, {aggregates})\n\
                 SELECT version, state FROM snapshots WHERE aggregate_type = 'Loaded' AND aggregate_id = 'agg-' || :n;\n\
                 SELECT event_id, version, event_type, event_data, metadata, occurred_at, correlation_id, causation_id\n  \
                 FROM events\n WHERE aggregate_type = 'Loaded' AND aggregate_id = 'agg-' || :n AND version > 100\n \
                 ORDER BY version;\n"
            ),
        }
    }
}

pub struct Pgbench {
    program: PathBuf,
    options: ConnectOptions,
    /// Beside a `DATABASE_URL` it stands in `PGPASSWORD`, which pgbench reads itself.
    password: Option<String>,
}

impl Pgbench {
    pub fn find(args: &BenchArgs, options: ConnectOptions) -> anyhow::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = args.pgbench_dir.clone().into_iter().chain(std::env::split_paths(&path));
        let program = places.map(|place| place.join("pgbench")).find(|program| program.is_file()).context(
            "pgbench was not found: install it (it comes with PostgreSQL), or name its folder with --pgbench-dir",
        )?;
        Ok(Self { program, options, password: args.database.database_password.clone() })
    }

    /// Transactions a second.
    pub fn run(&self, script: &Script, clients: usize, seconds: u64) -> anyhow::Result<f64> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), script.text())?;
        let host = match self.options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => self.options.get_host().to_owned(),
        };
        let mut command = Command::new(&self.program);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        let sessions = clients.min(SESSIONS_MAX).to_string();
        let data = format!("data={EVENT_DATA}");
        command.args([
            "-n",
            "-M",
            "prepared",
            "-j",
            "2",
            "-c",
            &sessions,
            "-T",
            &seconds.to_string(),
            "-D",
            &data,
            "-f",
        ]);
        command.arg(file.path());
        command.args(["-h", &host, "-p", &self.options.get_port().to_string(), "-U", self.options.get_username()]);
        let database = self.options.get_database().context("the direct database has a name")?;
        let output = command.arg(database).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        rate.with_context(|| format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
