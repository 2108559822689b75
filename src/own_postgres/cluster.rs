//! A cluster: created by `initdb`, run by `postgres`, and found by its `postmaster.pid` if it is already running.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::own_postgres::data_dir::CLUSTER;
use crate::own_postgres::error::OwnPostgresError;
use crate::own_postgres::installation::Installation;
use crate::own_postgres::private_file::{open_folder, open_private_file, read_private_file};
use crate::own_postgres::user::RunAs;

/// The port is only part of the socket's name: the server does not listen on TCP.
pub(super) const PORT: u16 = 5432;
/// The name of the superuser that `initdb` creates.
pub(super) const SUPERUSER: &str = "annals";

/// The longest time of a start. Recovery after a crash may take long.
const START_MAX: Duration = Duration::from_secs(60);
/// After this time a fast shutdown is followed by an immediate one.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long to wait for the processes of a killed server to end, and the pause between two attempts to start.
const LEFTOVERS_MAX: Duration = Duration::from_secs(10);
const LEFTOVERS_PAUSE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(10);
/// The length of `sockaddr_un` without the name of the socket file.
const SOCKET_DIR_BYTES_MAX: usize = 90;

/// A cluster whose server is running.
pub(super) struct Cluster {
    directory: PathBuf,
    major: u32,
    pid: Pid,
}

impl Cluster {
    /// Uses the running server of `<data_dir>/pg`, or starts it, after `initdb` if there is no data.
    pub(super) fn run(
        data_dir: &Path,
        bin: Option<PathBuf>,
        user: Option<RunAs>,
        settings: &[String],
    ) -> Result<Self, OwnPostgresError> {
        let directory = data_dir.join(CLUSTER);
        if directory.as_os_str().len() > SOCKET_DIR_BYTES_MAX {
            return Err(OwnPostgresError::PathTooLong(data_dir.to_owned()));
        }
        let found = major_of_data(&directory)?;
        if let (Some(major), Some(pid)) = (found, running(&directory)) {
            tracing::info!(pid = pid.as_raw(), "Annals' own PostgreSQL is already running");
            let cluster = Self { directory, major, pid };
            cluster.wait_until_ready(data_dir)?;
            return Ok(cluster);
        }

        let installation = Installation::find(bin.as_deref(), data_dir, found, user)?;
        if found.is_none() {
            init(&installation, data_dir, &directory, user)?;
        }
        let started = Instant::now();
        loop {
            let pid = spawn(&installation, data_dir, &directory, user, settings)?;
            let cluster = Self { directory: directory.clone(), major: installation.major, pid };
            match cluster.wait_until_ready(data_dir) {
                // No server starts before all processes of a killed one have ended.
                Err(OwnPostgresError::Failed { .. }) if started.elapsed() < LEFTOVERS_MAX => {
                    std::thread::sleep(LEFTOVERS_PAUSE);
                }
                waited => return waited.map(|()| cluster),
            }
        }
    }

    /// Returns the folder of the data, which also contains the socket.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the major version.
    pub(super) fn major(&self) -> u32 {
        self.major
    }

    /// Returns the process id of the server.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Stops the server by a fast shutdown: it cancels running statements and writes all data.
    pub(super) fn stop(self) -> Result<(), OwnPostgresError> {
        self.signal(Signal::SIGINT)?;
        if !self.gone_within(STOP_MAX) {
            tracing::warn!("PostgreSQL does not stop; stopping it immediately (it recovers at the next start)");
            self.signal(Signal::SIGQUIT)?;
            if !self.gone_within(STOP_MAX) {
                return Err(OwnPostgresError::Failed {
                    what: "PostgreSQL does not stop",
                    output: format!("process {}", self.pid),
                });
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), OwnPostgresError> {
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(OwnPostgresError::Io { path: self.directory.clone(), error: errno.into() }),
        }
    }

    fn gone_within(&self, limit: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < limit {
            if !is_alive(self.pid) {
                return true;
            }
            std::thread::sleep(POLL);
        }
        false
    }

    /// Waits until the server accepts connections and `postmaster.pid` says that it is ready.
    ///
    /// The file alone does not prove it. After a kill in a container, the next server may have the same process id, and
    /// the old file says that it is ready.
    fn wait_until_ready(&self, data_dir: &Path) -> Result<(), OwnPostgresError> {
        let started = Instant::now();
        loop {
            let accepts_connections = accepts_connections(&self.directory);
            let file = PidFile::read(&self.directory);
            if accepts_connections && file.as_ref().is_some_and(|file| file.pid == self.pid && file.ready) {
                return Ok(());
            }
            if !is_alive(self.pid) {
                return Err(OwnPostgresError::Failed {
                    what: "PostgreSQL has ended during its start",
                    output: last_log_lines(data_dir),
                });
            }
            if started.elapsed() > START_MAX {
                return Err(OwnPostgresError::Failed {
                    what: "PostgreSQL is not ready after a minute",
                    output: last_log_lines(data_dir),
                });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Returns the major version of the data; `None` if there is no data.
fn major_of_data(directory: &Path) -> Result<Option<u32>, OwnPostgresError> {
    let path = directory.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(version) => version.trim().parse().map(Some).map_err(|_| OwnPostgresError::Failed {
            what: "the data folder does not say its version",
            output: path.display().to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OwnPostgresError::Io { path, error }),
    }
}

/// Creates the cluster under another name first, so that no incomplete cluster exists after an interrupted `initdb`.
fn init(
    installation: &Installation,
    data_dir: &Path,
    directory: &Path,
    user: Option<RunAs>,
) -> Result<(), OwnPostgresError> {
    tracing::info!(directory = %directory.display(), major = installation.major, "creating a PostgreSQL cluster");
    let unfinished = data_dir.join("pg.unfinished");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(OwnPostgresError::Io { path: unfinished, error });
        }
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(OwnPostgresError::io(&unfinished))?;
    if let Some(user) = user {
        open_folder(&unfinished)
            .and_then(|folder| fchown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())))
            .map_err(OwnPostgresError::io(&unfinished))?;
    }
    let output = installation
        .command("initdb", user)
        .arg("-D")
        .arg(&unfinished)
        .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums"])
        .output()
        .map_err(OwnPostgresError::io(&installation.bin))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(OwnPostgresError::Failed { what: "initdb failed", output });
    }
    fs::rename(&unfinished, directory).map_err(OwnPostgresError::io(directory))
}

fn spawn(
    installation: &Installation,
    data_dir: &Path,
    directory: &Path,
    user: Option<RunAs>,
    settings: &[String],
) -> Result<Pid, OwnPostgresError> {
    let log = data_dir.join("postgres.log");
    let out = open_private_file(&log)?;
    let err = out.try_clone().map_err(OwnPostgresError::io(&log))?;
    let mut postgres = installation.command("postgres", user);
    postgres.arg("-D").arg(directory);
    let socket = format!("unix_socket_directories={}", directory.display());
    let port = format!("port={PORT}");
    for setting in [
        "listen_addresses=",
        &socket,
        // Every connection is trusted, and PostgreSQL also accepts a folder that its group can enter.
        "unix_socket_permissions=0700",
        &port,
        // Every partition is a table with indexes, and planning a statement may lock all of them.
        "max_locks_per_transaction=256",
    ] {
        postgres.args(["-c", setting]);
    }
    for setting in settings {
        postgres.args(["-c", setting]);
    }
    // A process group of its own: Ctrl-C in the terminal must not stop it before the service has shut down.
    let child =
        postgres.process_group(0).stdout(out).stderr(err).spawn().map_err(OwnPostgresError::io(&installation.bin))?;
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(|_| OwnPostgresError::Failed { what: "a process id out of range", output: child.id().to_string() })
}

/// The file `postmaster.pid` of a running server.
struct PidFile {
    pid: Pid,
    ready: bool,
}

impl PidFile {
    fn read(directory: &Path) -> Option<Self> {
        let file = BufReader::new(File::open(directory.join("postmaster.pid")).ok()?);
        let lines: Vec<String> = file.lines().collect::<Result<_, _>>().ok()?;
        Some(Self {
            // A number below 1 would stand for a group of processes, or for all of them.
            pid: Pid::from_raw(lines.first()?.trim().parse().ok().filter(|&pid: &i32| pid > 0)?),
            // The status of a standby that accepts reads is "standby".
            ready: lines.get(7).is_some_and(|status| matches!(status.trim(), "ready" | "standby")),
        })
    }
}

/// Returns the process id of the server of this folder if it runs. After a crash, the file may name an unrelated
/// process.
fn running(directory: &Path) -> Option<Pid> {
    let pid = PidFile::read(directory)?.pid;
    (is_alive(pid) && accepts_connections(directory)).then_some(pid)
}

fn accepts_connections(directory: &Path) -> bool {
    UnixStream::connect(directory.join(format!(".s.PGSQL.{PORT}"))).is_ok()
}

/// Returns whether the process runs. If it is a child process that has ended, reaps it.
fn is_alive(pid: Pid) -> bool {
    let ended = waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some());
    !ended && kill(pid, None).is_ok()
}

fn last_log_lines(data_dir: &Path) -> String {
    const LINES: usize = 8;
    let path = data_dir.join("postgres.log");
    let log = read_private_file(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()));
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
