//! The service that is measured: `annals serve` as a process of its own, with its usual log, or one that runs elsewhere.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::BenchArgs;
use super::load::Client;
use crate::store::database::{self, ConnectOptions};
use crate::store::scratch::Scratch;

/// `annals serve` as a process of its own. It ends with this value.
pub struct Server {
    child: Child,
    pub address: String,
    /// From its start until it said that it was ready.
    pub ready_after: Duration,
    /// Removed with the server.
    _log: tempfile::NamedTempFile,
}

/// Which database a process of ours works on.
pub enum On<'a> {
    Database(&'a ConnectOptions),
    /// A PostgreSQL of its own, whose data are in this folder.
    Folder(&'a Path, &'a BenchArgs),
}

impl On<'_> {
    /// `annals <command>` on it, whatever this process itself was configured with.
    pub fn command(&self, command: &str) -> anyhow::Result<Command> {
        let mut process = Command::new(std::env::current_exe()?);
        process.arg(command).stdin(Stdio::null());
        for part in ["URL", "HOST", "PORT", "NAME", "USER", "PASSWORD"] {
            process.env_remove(format!("DATABASE_{part}"));
        }
        match self {
            Self::Database(options) => process.env("DATABASE_URL", database::to_url(options)),
            Self::Folder(folder, args) => {
                let programs = args.database.devdb.annals_pg_bin.clone().map(OsString::from);
                process.env("ANNALS_DATA_DIR", folder).envs(programs.map(|folder| ("ANNALS_PG_BIN", folder)))
            }
        };
        Ok(process)
    }
}

impl Server {
    pub async fn start(on: On<'_>) -> anyhow::Result<Self> {
        const START_MAX: Duration = Duration::from_secs(60);
        let log = tempfile::NamedTempFile::new()?;
        let mut command = on.command("serve")?;
        command.env("ANNALS_LISTEN", "127.0.0.1:0").env("ANNALS_LOG", "json").env("ANNALS_LOG_LEVEL", "info");
        let started = Instant::now();
        let child = command.stderr(File::create(log.path())?).spawn()?;
        let mut server = Self { child, address: String::new(), ready_after: Duration::ZERO, _log: log };
        while started.elapsed() < START_MAX {
            let said = std::fs::read_to_string(server._log.path())?;
            if let Some((_, rest)) = said.split_once("listening on http://") {
                server.address = rest.split('"').next().unwrap_or(rest).to_owned();
                let ready = "GET /readyz HTTP/1.1\r\nHost: bench\r\n\r\n";
                Client::connect(&server.address).await?.expect(ready, 200).await?;
                server.ready_after = started.elapsed();
                return Ok(server);
            }
            if server.child.try_wait()?.is_some() {
                bail!("the server ended: {said}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bail!("the server does not listen within {} s", START_MAX.as_secs())
    }

    /// Stops it as an operator would, and waits for its end: a PostgreSQL of its own ends with it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let process = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }

    /// The high-water mark of its resident memory, as Linux tells it.
    pub fn peak_memory_mb(&self) -> anyhow::Result<u64> {
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

/// A service on a database of its own, which is dropped at the end.
pub struct Site {
    pub scratch: Scratch,
    pub server: Server,
}

impl Site {
    pub async fn start(other: &ConnectOptions, name: &str) -> anyhow::Result<Self> {
        let scratch = Scratch::create(other.clone(), name).await?;
        let server = Server::start(On::Database(&scratch.options())).await?;
        Ok(Self { scratch, server })
    }

    pub async fn remove(self) -> anyhow::Result<()> {
        drop(self.server);
        Ok(self.scratch.remove().await?)
    }
}
