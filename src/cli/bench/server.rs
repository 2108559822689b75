//! The service that is measured: `annals serve` as a process of its own, with its usual log.

use std::fs::File;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::store::database::{self, ConnectOptions};

/// `annals serve` as a process of its own.
pub struct Server {
    child: Child,
    pub address: String,
    /// Removed with the server.
    log: tempfile::NamedTempFile,
}

impl Server {
    pub fn start(options: &ConnectOptions) -> anyhow::Result<Self> {
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
