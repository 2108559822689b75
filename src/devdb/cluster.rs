//! One cluster: made by `initdb`, run by `postgres`, found again by its `postmaster.pid`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::user::RunAs;
use super::{DevDbError, Installation, SUPERUSER};

/// Only the name of the socket; nothing listens on TCP.
pub(super) const PORT: u16 = 5432;

/// Recovery after a crash can take its time.
const START_MAX: Duration = Duration::from_secs(60);
/// After this time of an orderly ("fast") shutdown comes an immediate one.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long what is left of a killed server is waited for, and the pause between two tries.
const LEFTOVERS_MAX: Duration = Duration::from_secs(10);
const LEFTOVERS_PAUSE: Duration = Duration::from_millis(300);
const POLL: Duration = Duration::from_millis(10);
/// What `sockaddr_un` takes, less the name of the socket file.
const SOCKET_DIR_BYTES_MAX: usize = 90;

pub(super) struct Cluster {
    directory: PathBuf,
    major: u32,
    pid: Pid,
}

impl Cluster {
    /// Finds the server of `<data_dir>/pg` running, or starts it, after `initdb` where there is no data yet.
    pub(super) fn run(
        data_dir: &Path,
        bin: Option<PathBuf>,
        user: Option<RunAs>,
        settings: &[String],
    ) -> Result<Self, DevDbError> {
        let directory = data_dir.join("pg");
        if directory.as_os_str().len() > SOCKET_DIR_BYTES_MAX {
            return Err(DevDbError::PathTooLong(data_dir.to_owned()));
        }
        let found = major_of_data(&directory)?;
        if let (Some(major), Some(pid)) = (found, running(&directory)) {
            tracing::info!(pid = pid.as_raw(), "the PostgreSQL of Annals' own is running already");
            let cluster = Self { directory, major, pid };
            cluster.wait_until_ready(data_dir)?;
            return Ok(cluster);
        }

        let installation = Installation::find(bin.as_deref(), data_dir, found)?;
        if found.is_none() {
            init(&installation, data_dir, &directory, user)?;
        }
        let started = Instant::now();
        loop {
            let pid = spawn(&installation, data_dir, &directory, user, settings)?;
            let cluster = Self { directory: directory.clone(), major: installation.major, pid };
            match cluster.wait_until_ready(data_dir) {
                // The processes of a server that was killed take a moment to go, and until then no other one starts.
                Err(DevDbError::Failed { .. }) if started.elapsed() < LEFTOVERS_MAX => {
                    std::thread::sleep(LEFTOVERS_PAUSE)
                }
                waited => return waited.map(|()| cluster),
            }
        }
    }

    /// Where its socket is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Fast shutdown: running statements are cancelled, everything is written.
    pub(super) fn stop(self) -> Result<(), DevDbError> {
        self.signal(Signal::SIGINT)?;
        if !self.gone_within(STOP_MAX) {
            tracing::warn!("PostgreSQL does not stop; stopping it at once (it recovers at the next start)");
            self.signal(Signal::SIGQUIT)?;
            if !self.gone_within(STOP_MAX) {
                return Err(DevDbError::Failed {
                    what: "PostgreSQL does not stop",
                    output: format!("process {}", self.pid),
                });
            }
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), DevDbError> {
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(DevDbError::Io { path: self.directory.clone(), error: errno.into() }),
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

    /// Waits until the last line of `postmaster.pid` says so.
    fn wait_until_ready(&self, data_dir: &Path) -> Result<(), DevDbError> {
        let started = Instant::now();
        loop {
            let file = PidFile::read(&self.directory);
            if file.as_ref().is_some_and(|file| file.pid == self.pid && file.ready) {
                return Ok(());
            }
            if !is_alive(self.pid) {
                return Err(DevDbError::Failed {
                    what: "PostgreSQL ended while it started",
                    output: last_log_lines(data_dir),
                });
            }
            if started.elapsed() > START_MAX {
                return Err(DevDbError::Failed {
                    what: "PostgreSQL is not ready after a minute",
                    output: last_log_lines(data_dir),
                });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The version that the data are of; `None` where there are none.
fn major_of_data(directory: &Path) -> Result<Option<u32>, DevDbError> {
    let path = directory.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(version) => version.trim().parse().map(Some).map_err(|_| DevDbError::Failed {
            what: "the data folder does not say its version",
            output: path.display().to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DevDbError::Io { path, error }),
    }
}

/// Makes the cluster under another name first: an interrupted `initdb` leaves no half of one.
fn init(installation: &Installation, data_dir: &Path, directory: &Path, user: Option<RunAs>) -> Result<(), DevDbError> {
    tracing::info!(directory = %directory.display(), major = installation.major, "making a PostgreSQL cluster");
    let unfinished = data_dir.join("pg.unfinished");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(DevDbError::Io { path: unfinished, error });
        }
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(DevDbError::io(&unfinished))?;
    if let Some(user) = user {
        chown(&unfinished, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(DevDbError::io(&unfinished))?;
    }
    let output = command(installation, "initdb", user)
        .arg("-D")
        .arg(&unfinished)
        .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums"])
        .output()
        .map_err(DevDbError::io(&installation.bin))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(DevDbError::Failed { what: "initdb failed", output });
    }
    fs::rename(&unfinished, directory).map_err(DevDbError::io(directory))
}

fn spawn(
    installation: &Installation,
    data_dir: &Path,
    directory: &Path,
    user: Option<RunAs>,
    settings: &[String],
) -> Result<Pid, DevDbError> {
    let log = data_dir.join("postgres.log");
    let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
    let out = open(&log).map_err(DevDbError::io(&log))?;
    let err = out.try_clone().map_err(DevDbError::io(&log))?;
    let mut postgres = command(installation, "postgres", user);
    postgres.arg("-D").arg(directory);
    let socket = format!("unix_socket_directories={}", directory.display());
    // Every month is a table with its indexes, and a statement that is planned locks them all.
    for setting in ["listen_addresses=", &socket, &format!("port={PORT}"), "max_locks_per_transaction=256"] {
        postgres.args(["-c", setting]);
    }
    for setting in settings {
        postgres.args(["-c", setting]);
    }
    // A group of its own: Ctrl-C in the terminal must not stop it before the service has drained.
    let child = postgres.process_group(0).stdout(out).stderr(err).spawn().map_err(DevDbError::io(&installation.bin))?;
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(|_| DevDbError::Failed { what: "a process id out of range", output: child.id().to_string() })
}

/// A program of the installation, with nothing of our environment.
fn command(installation: &Installation, program: &str, user: Option<RunAs>) -> Command {
    let mut command = Command::new(installation.bin.join(program));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// What a running server says of itself in its folder (the manual, "postmaster.pid").
struct PidFile {
    pid: Pid,
    ready: bool,
}

impl PidFile {
    fn read(directory: &Path) -> Option<Self> {
        let file = BufReader::new(File::open(directory.join("postmaster.pid")).ok()?);
        let lines: Vec<String> = file.lines().collect::<Result<_, _>>().ok()?;
        Some(Self {
            pid: Pid::from_raw(lines.first()?.trim().parse().ok()?),
            // A standby that answers reads calls itself "standby".
            ready: lines.get(7).is_some_and(|status| matches!(status.trim(), "ready" | "standby")),
        })
    }
}

/// The server of this folder, if it runs. A file that a crash left behind may name a process that is something else.
fn running(directory: &Path) -> Option<Pid> {
    let pid = PidFile::read(directory)?.pid;
    let socket = directory.join(format!(".s.PGSQL.{PORT}"));
    let answers = std::os::unix::net::UnixStream::connect(socket).is_ok();
    (is_alive(pid) && answers).then_some(pid)
}

/// Whether the process runs; one of our own that has ended is reaped.
fn is_alive(pid: Pid) -> bool {
    let ended = waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some());
    !ended && kill(pid, None).is_ok()
}

fn last_log_lines(data_dir: &Path) -> String {
    const LINES: usize = 8;
    let path = data_dir.join("postgres.log");
    let log = fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()));
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
