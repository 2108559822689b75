//! The measured service, which is `annals serve` as a process of its own with its usual log.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use annals::store::connection::config::{ConnectOptions, to_url};
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::args::BenchArgs;
use crate::load::Client;
use crate::scratch::Scratch;

/// The name of the database of a part that needs one instance.
pub const SERVICE_DATABASE: &str = "annals_bench";

/// The database of a command of `annals`.
pub enum ServerDatabase<'a> {
    /// A database of a running PostgreSQL.
    Url(&'a ConnectOptions),
    /// A PostgreSQL that the command itself starts, with its data in this folder.
    DataDir(&'a Path),
}

impl ServerDatabase<'_> {
    /// Returns a command `annals <command>` for this database. It does not inherit the database of this process.
    pub fn command(&self, args: &BenchArgs, command: &str) -> anyhow::Result<Command> {
        let mut process = Command::new(args.program()?);
        process.arg(command).stdin(Stdio::null());
        for part in ["URL", "READ_URL", "HOST", "PORT", "NAME", "USER", "PASSWORD"] {
            process.env_remove(format!("DATABASE_{part}"));
        }
        match self {
            Self::Url(options) => {
                process.env("DATABASE_URL", to_url(options));
            }
            Self::DataDir(data_dir) => {
                process.env("ANNALS_DATA_DIR", data_dir);
                process.envs(args.database.own_postgres.bin().map(|bin| ("ANNALS_PG_BIN", bin)));
            }
        }
        Ok(process)
    }
}

/// Runs a command of `annals` on a database, and waits until it has ended.
pub async fn run_command(mut command: Command) -> anyhow::Result<()> {
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if !output.status.success() {
        bail!("the command has failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A process that runs `annals serve`. It is killed when this value is dropped.
pub struct Server {
    child: Child,
    /// The address at which the process listens, as `host:port`.
    pub address: String,
    /// The time from the start of the process to the first response of `/readyz` with status 200.
    pub ready_after: Duration,
    /// The file is removed together with this value.
    log: tempfile::NamedTempFile,
}

impl Server {
    /// Starts a server on a free port, and waits until it is ready.
    pub async fn start(args: &BenchArgs, database: ServerDatabase<'_>) -> anyhow::Result<Self> {
        Self::start_with(args, database, &[]).await
    }

    /// Starts a server with further settings, which are variables and their values.
    pub async fn start_with(
        args: &BenchArgs,
        database: ServerDatabase<'_>,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        const START_MAX: Duration = Duration::from_secs(60);
        let log = tempfile::NamedTempFile::new()?;
        let mut command = database.command(args, "serve")?;
        command.env("ANNALS_LISTEN", "127.0.0.1:0").env("ANNALS_LOG", "json").env("ANNALS_LOG_LEVEL", "info");
        command.envs(settings.iter().copied());
        let started = Instant::now();
        let child = command.stderr(File::create(log.path())?).spawn()?;
        let mut server = Self { child, address: String::new(), ready_after: Duration::ZERO, log };
        while started.elapsed() < START_MAX {
            let logged = std::fs::read_to_string(server.log.path())?;
            if let Some((_, rest)) = logged.split_once("listening on http://") {
                server.address = rest.split('"').next().unwrap_or(rest).to_owned();
                let ready = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
                Client::connect(&server.address).await?.expect(ready, 200).await?;
                server.ready_after = started.elapsed();
                return Ok(server);
            }
            if server.child.try_wait()?.is_some() {
                bail!("annals serve has ended: {logged}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bail!("annals serve did not listen within {} s", START_MAX.as_secs())
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM, and waits until the process has ended. The process also stops a PostgreSQL that it has started.
    pub fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }

    /// Returns the largest resident memory of the process since its start, in MiB. Linux only.
    pub fn peak_memory_mib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1_024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No request is in progress, so an orderly shutdown is not necessary.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A service with a database of its own.
pub struct BenchInstance {
    pub scratch: Scratch,
    pub server: Server,
}

impl BenchInstance {
    /// Creates the database `name` over a connection to the database `other`, and starts a server on it.
    pub async fn start(args: &BenchArgs, other: &ConnectOptions, name: &str) -> anyhow::Result<Self> {
        Self::start_on(args, Scratch::create(other.clone(), name).await?, &[]).await
    }

    /// Starts a server on a database, with further settings.
    pub async fn start_on(args: &BenchArgs, scratch: Scratch, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let server = Server::start_with(args, ServerDatabase::Url(&scratch.options()), settings).await?;
        Ok(Self { scratch, server })
    }

    /// Ends the server, and drops the database.
    pub async fn remove(self) -> anyhow::Result<()> {
        drop(self.server);
        self.scratch.remove().await
    }
}
