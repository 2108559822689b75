//! The cluster of a run: one PostgreSQL, two replicas of the service as processes, and a proxy on every connection.
//!
//! ```text
//! clients ── proxy ── replica 1 ── proxy ──┐
//! clients ── proxy ── replica 2 ── proxy ──┴── PostgreSQL (a Unix socket)
//! ```

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use annals::own_postgres::server::OwnPostgres;
use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{ConnectOptions, PgConnection};

use super::http_client::http_client;
use super::proxy::{Proxy, Target};

pub const REPLICAS: usize = 2;
/// The time limit for every recovery. No result depends on the duration of a recovery.
pub const RECOVERY_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// The time limit of a query while a backend of PostgreSQL is frozen.
const QUERY_MAX: Duration = Duration::from_secs(1);
/// The number of lines of a log that an error quotes.
const LOG_LINES: usize = 20;

pub struct Postgres {
    folder: PathBuf,
    server: OwnPostgres,
}

impl Postgres {
    pub async fn start(folder: PathBuf) -> anyhow::Result<Self> {
        let bin = std::env::var_os("ANNALS_PG_BIN").map(PathBuf::from);
        let server =
            OwnPostgres::start_in(folder.clone(), bin, &["shared_buffers=64MB", "log_min_messages=warning"]).await?;
        Ok(Self { folder, server })
    }

    pub fn major(&self) -> u32 {
        self.server.major()
    }

    pub fn socket(&self) -> PathBuf {
        self.files().join(".s.PGSQL.5432")
    }

    /// Returns the address for a program that connects directly.
    pub fn url(&self) -> String {
        format!("postgres://annals@localhost/eventstore?host={}", self.files().display())
    }

    /// Returns the folder of the cluster.
    pub fn files(&self) -> PathBuf {
        self.server.data_dir().join("pg")
    }

    /// Opens a session as the owner of the database. The service does not use it.
    pub async fn session(&self) -> anyhow::Result<PgConnection> {
        Ok(self.server.options().disable_statement_logging().connect().await?)
    }

    /// Kills all processes of PostgreSQL, and starts PostgreSQL again after a pause. It then recovers from its
    /// write-ahead log.
    pub async fn kill_and_restart(&mut self, pause: Duration) -> anyhow::Result<()> {
        let postmaster = Pid::from_raw(self.server.pid());
        // A suspended postmaster does not react when its children exit.
        kill(postmaster, Signal::SIGSTOP)?;
        for child in children(postmaster)? {
            signal(child, Signal::SIGKILL)?;
        }
        kill(postmaster, Signal::SIGKILL)?;
        wait_for_death(postmaster).await?;
        tokio::time::sleep(pause).await;
        *self = Self::start(self.folder.clone()).await?;
        Ok(())
    }

    /// Returns the process ids of the backends that serve Annals.
    pub async fn backends(&self) -> anyhow::Result<Vec<Pid>> {
        let pids: Vec<i32> =
            sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE application_name = 'annals' ORDER BY pid")
                .fetch_all(&mut self.session().await?)
                .await?;
        Ok(pids.into_iter().map(Pid::from_raw).collect())
    }

    /// Freezes the backend that holds the append lock, in the middle of an append. Returns `None` if no backend was
    /// found with the lock.
    pub async fn freeze_lock_holder(&self) -> anyhow::Result<Option<Pid>> {
        const TRIES: usize = 500;
        let holder =
            "SELECT pid FROM pg_locks WHERE relation = 'append_lock'::regclass AND granted AND mode = 'ExclusiveLock'";
        let mut session = self.session().await?;
        for _ in 0..TRIES {
            let found: Option<i32> = sqlx::query_scalar(holder).fetch_optional(&mut session).await?;
            if let Some(pid) = found.map(Pid::from_raw) {
                signal(pid, Signal::SIGSTOP)?;
                // The backend may have completed its append before the signal, so the lock is checked again. If the
                // backend was frozen while it held an internal lock of PostgreSQL, this query reaches its time limit.
                let still = sqlx::query_scalar::<_, i32>(holder).fetch_optional(&mut session);
                let still = tokio::time::timeout(QUERY_MAX, still).await.unwrap_or(Ok(Some(pid.as_raw())))?;
                if still == Some(pid.as_raw()) {
                    return Ok(Some(pid));
                }
                signal(pid, Signal::SIGCONT)?;
            }
        }
        Ok(None)
    }

    /// Returns the number of connections that are idle inside a transaction.
    pub async fn idle_in_transaction(&self) -> anyhow::Result<i64> {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
        Ok(sqlx::query_scalar(count).fetch_one(&mut self.session().await?).await?)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.server.stop().await?)
    }
}

/// Sends a signal to a process, which may have ended already.
pub fn signal(pid: Pid, signal: Signal) -> anyhow::Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => bail!("{signal} to {pid}: {errno}"),
    }
}

/// Waits until a killed process has ended. Until then, the next start would take it for a server that runs.
async fn wait_for_death(pid: Pid) -> anyhow::Result<()> {
    let died = async {
        // proc(5): the state is the first field behind the name, which is in parentheses. Z: only its parent knows it.
        while let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            && !stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('Z'))
        {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(RECOVERY_MAX, died).await.context("a killed process has not ended after a minute")
}

fn children(parent: Pid) -> anyhow::Result<Vec<Pid>> {
    let listed = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    Ok(listed
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<i32>, _>>()?
        .into_iter()
        .map(Pid::from_raw)
        .collect())
}

/// One process of the service, between its two proxies.
pub struct Replica {
    program: PathBuf,
    listen: SocketAddr,
    log: PathBuf,
    /// Variables of the environment, in addition to those that every replica has.
    settings: Vec<(String, String)>,
    child: Child,
    /// The proxy between clients and the replica.
    pub clients: Proxy,
    /// The proxy between the replica and PostgreSQL.
    pub database: Proxy,
}

impl Replica {
    pub async fn start(
        number: usize,
        program: &Path,
        folder: &Path,
        postgres: &Postgres,
        settings: &[(String, String)],
        mutant: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let listen = reserve_address()?;
        let database = Proxy::start(Target::Unix(postgres.socket())).await?;
        let clients = Proxy::start(Target::Tcp(listen)).await?;
        let log = folder.join(format!("replica-{number}.log"));
        let mut settings = settings.to_vec();
        settings.extend(mutant.map(|name| ("ANNALS_MUTANT".to_owned(), name.to_owned())));
        let child = spawn(program, listen, database.address, &log, &settings)?;
        let mut replica = Self { program: program.to_owned(), listen, log, settings, child, clients, database };
        replica.wait_until_ready().await?;
        Ok(replica)
    }

    /// Returns the base URL for clients.
    pub fn base(&self) -> String {
        format!("http://{}", self.clients.address)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    pub fn signal(&self, what: Signal) -> anyhow::Result<()> {
        signal(self.pid()?, what)
    }

    /// Waits until the process has ended.
    pub async fn wait_for_end(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(status);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(RECOVERY_MAX, ended).await.context("the replica has not ended after a minute")?
    }

    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.program, self.listen, self.database.address, &self.log, &self.settings)?;
        Ok(())
    }

    /// Waits until the replica is ready. Starts it again if it has ended, like a supervisor.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client = http_client().timeout(Duration::from_secs(5)).build()?;
        let url = format!("http://{}/readyz", self.listen);
        let ready = async {
            loop {
                if self.child.try_wait()?.is_some() {
                    self.restart()?;
                }
                if client.get(&url).send().await.is_ok_and(|response| response.status().is_success()) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(RECOVERY_MAX, ready).await {
            Ok(ready) => ready,
            Err(_) => bail!("the replica is not ready after a minute; the end of its log: {}", self.end_of_log()?),
        }
    }

    fn end_of_log(&self) -> anyhow::Result<String> {
        let log = std::fs::read_to_string(&self.log)?;
        let lines: Vec<&str> = log.lines().collect();
        Ok(lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // No process survives the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a free address for a replica. A replica listens on it again after each restart, so the port is on a loopback
/// address that only this process uses: other processes bind their listeners and connections to ports of 127.0.0.1.
fn reserve_address() -> anyhow::Result<SocketAddr> {
    // Linux numbers its processes with 22 bits at most (proc(5), pid_max).
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let loopback = Ipv4Addr::new(127, 128 + high, middle, low);
    Ok(TcpListener::bind((loopback, 0))?.local_addr()?)
}

fn spawn(
    program: &Path,
    listen: SocketAddr,
    database: SocketAddr,
    log: &Path,
    settings: &[(String, String)],
) -> anyhow::Result<Child> {
    let out = OpenOptions::new().create(true).append(true).open(log)?;
    let err = out.try_clone()?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("DATABASE_URL", format!("postgres://annals@{database}/eventstore?sslmode=disable"))
        .env("ANNALS_LISTEN", listen.to_string())
        .env("SNAPSHOT_EVERY", "50")
        .envs(settings.iter().cloned());
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
    child.with_context(|| program.display().to_string())
}

/// PostgreSQL and the replicas.
pub struct Cluster {
    pub postgres: Postgres,
    pub replicas: Vec<Replica>,
}

impl Cluster {
    /// Starts a cluster with the files of PostgreSQL in `data`, and the logs of the replicas in `folder`.
    pub async fn start(
        program: &Path,
        data: &Path,
        folder: &Path,
        settings: &[(String, String)],
        mutant: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        let postgres = Postgres::start(data.to_owned()).await?;
        let mut replicas = Vec::new();
        for number in 1..=REPLICAS {
            replicas.push(Replica::start(number, program, folder, &postgres, settings, mutant).await?);
        }
        Ok(Self { postgres, replicas })
    }

    /// Waits until every replica is ready.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        for replica in &mut self.replicas {
            replica.wait_until_ready().await?;
        }
        Ok(())
    }
}
