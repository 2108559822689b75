//! Promise P1: the PostgreSQL that `annals serve` starts itself. Its data survives restarts and kills. Commands share
//! the server, and the last process stops it. Other users can neither read its files nor change what root runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// `annals serve` with its own PostgreSQL, on a free port.
struct Served {
    child: Child,
    address: String,
    logged: Vec<String>,
}

impl Served {
    fn start(data_dir: &Path) -> Self {
        let mut command = command(data_dir);
        let child = command.env("ANNALS_LISTEN", "127.0.0.1:0").stderr(Stdio::piped()).spawn();
        let mut served = Self { child: child.expect("the binary runs"), address: String::new(), logged: Vec::new() };
        let log = served.child.stderr.take().expect("a pipe");
        for line in BufReader::new(log).lines() {
            let line = line.expect("UTF-8");
            let address = line.split_once("listening on http://").map(|(_, address)| address.to_owned());
            served.logged.push(line);
            if let Some(address) = address {
                served.address = address;
                return served;
            }
        }
        panic!("the service does not listen: {:#?}", served.logged);
    }

    fn request(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).expect("the service listens");
        connection.write_all(request.as_bytes()).expect("the service reads the request");
        let mut response = String::new();
        connection.read_to_string(&mut response).expect("the service responds");
        response
    }

    fn append(&self) -> String {
        let body = r#"{"events": [{"event_type": "E", "event_data": 1}]}"#;
        self.request(&format!(
            "POST /streams/Order/1 HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn terminate(mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        self.child.wait().expect("the service ends")
    }

    fn kill(mut self) {
        signal(self.child.id(), "KILL");
        self.child.wait().expect("the service ends");
    }
}

/// Kills the process, so that no process remains after a failed test.
impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("ANNALS_DATA_DIR", data_dir).env("ANNALS_LOG", "human");
    if let Some(bin) = std::env::var_os("ANNALS_PG_BIN") {
        command.env("ANNALS_PG_BIN", bin);
    }
    command
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success());
}

fn postmaster(data_dir: &Path) -> Option<u32> {
    let file = std::fs::read_to_string(data_dir.join("pg/postmaster.pid")).ok()?;
    file.lines().next()?.parse().ok()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("annals-own-").tempdir().expect("a folder");
    set_mode(folder.path(), 0o755);
    folder
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the mode is set");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("the path exists").permissions().mode() & 0o7777
}

/// A user other than root and those that run PostgreSQL.
const OTHER_USER: u32 = 54321;

/// Gives a path to another user, which only root can do.
fn give_away(path: &Path) {
    chown(path, Some(OTHER_USER), Some(OTHER_USER)).expect("root can change the owner");
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs a command that uses PostgreSQL and ends, and returns its errors.
fn errors(mut command: Command) -> String {
    let output = command.arg("export").output().expect("the binary runs");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{printed}");
    printed
}

#[track_caller]
fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn data_survives_a_restart_and_the_server_stops_with_the_service() {
    let folder = folder();
    for version in 1..=2 {
        let served = Served::start(folder.path());
        assert!(served.logged.iter().any(|line| line.contains("the data is in")), "{:#?}", served.logged);
        assert!(served.logged.iter().any(|line| line.contains("curl -i http://")), "{:#?}", served.logged);
        let response = served.append();
        assert!(response.contains("201 Created") && response.contains(&format!("etag: \"{version}\"")), "{response}");
        assert!(postmaster(folder.path()).is_some());
        assert!(served.terminate().success());
        assert_eq!(postmaster(folder.path()), None);
    }
}

#[test]
fn after_a_kill_of_the_service_the_next_one_uses_the_running_server() {
    let folder = folder();
    let served = Served::start(folder.path());
    assert!(served.append().contains("201 Created"));
    let before = postmaster(folder.path()).expect("the server runs");
    served.kill();
    assert_eq!(postmaster(folder.path()), Some(before));
    let served = Served::start(folder.path());
    assert_eq!(postmaster(folder.path()), Some(before));
    assert!(served.append().contains("etag: \"2\""));
    assert!(served.terminate().success());
    assert_eq!(postmaster(folder.path()), None);
}

#[test]
fn a_killed_server_recovers() {
    let folder = folder();
    let served = Served::start(folder.path());
    assert!(served.append().contains("201 Created"));
    signal(postmaster(folder.path()).expect("the server runs"), "KILL");
    served.kill();
    let served = Served::start(folder.path());
    assert!(served.append().contains("etag: \"2\""));
    assert!(served.terminate().success());
}

#[test]
fn commands_share_the_server_and_the_last_one_stops_it() {
    let folder = folder();
    let served = Served::start(folder.path());
    assert!(served.append().contains("201 Created"));
    let export = || {
        let output = command(folder.path()).args(["export"]).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(export().lines().count(), 2);
    assert!(served.append().contains("etag: \"2\""), "the server runs after the export");
    assert!(served.terminate().success());
    assert_eq!(export().lines().count(), 3);
    assert_eq!(postmaster(folder.path()), None);
}

#[test]
fn data_of_another_major_version_is_refused_with_a_remedy() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("pg")).expect("a folder");
    std::fs::write(folder.path().join("pg/PG_VERSION"), "9\n").expect("a file");
    let output = command(folder.path()).output().expect("the binary runs");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && printed.contains("PostgreSQL 9") && printed.contains("ANNALS_PG_BIN"),
        "{printed}"
    );
}

#[test]
fn a_data_folder_that_other_users_can_write_to_is_refused() {
    let folder = folder();
    let path = folder.path().canonicalize().expect("a path");
    for mode in [0o777, 0o1777, 0o757] {
        set_mode(&path, mode);
        let printed = errors(command(&path));
        assert_contains(&printed, &["ANNALS_DATA_DIR: ", path.to_str().expect("UTF-8"), &format!("mode {mode:04o}")]);
        assert_contains(&printed, &["can write to it", "`chmod ", " choose another ANNALS_DATA_DIR"]);
        assert_eq!(std::fs::read_dir(&path).expect("a folder").count(), 0, "nothing is created in it");
    }
}

/// Without root, the folders above the data are not checked.
#[test]
fn root_refuses_a_data_folder_below_a_folder_of_another_user() {
    let folder = folder();
    let above = folder.path().canonicalize().expect("a path").join("above");
    std::fs::create_dir(&above).expect("a folder");
    let data_dir = above.join("data");
    if is_root() {
        give_away(&above);
        let printed = errors(command(&data_dir));
        assert_contains(&printed, &["ANNALS_DATA_DIR: ", above.to_str().expect("UTF-8"), "(uid 0)", "`chown root "]);
        assert_contains(&printed, &[&format!("belongs to uid {OTHER_USER}")]);
        chown(&above, Some(0), Some(0)).expect("root can change the owner");
    }
    set_mode(&above, 0o777);
    if is_root() {
        let printed = errors(command(&data_dir));
        assert_contains(&printed, &["ANNALS_DATA_DIR: ", above.to_str().expect("UTF-8"), "mode 0777", "`chmod go-w "]);
        assert!(!data_dir.exists(), "root creates nothing in such a folder");
        // In a sticky folder, no other user can replace the folder of the data.
        set_mode(&above, 0o1777);
    }
    assert!(Served::start(&data_dir).terminate().success());
}

#[test]
fn the_files_beside_the_cluster_are_private() {
    let folder = folder();
    let data_dir = folder.path().join("data");
    let served = Served::start(&data_dir);
    for file in ["start.lock", "use.lock", "postgres.log"] {
        assert_eq!(mode(&data_dir.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&data_dir.join("pg")), 0o700);
    // The unprivileged user enters the cluster through the folder of root.
    assert_eq!(mode(&data_dir), if is_root() { 0o711 } else { 0o700 });
    assert_eq!(mode(&data_dir.join("pg/.s.PGSQL.5432")), 0o700);
    assert!(served.terminate().success());

    set_mode(&data_dir.join("postgres.log"), 0o644);
    assert!(Served::start(&data_dir).terminate().success());
    assert_eq!(mode(&data_dir.join("postgres.log")), 0o600, "an existing file becomes private");
}

#[test]
fn a_link_in_the_place_of_a_lock_or_of_the_log_is_refused() {
    for name in ["start.lock", "use.lock", "postgres.log"] {
        let folder = folder();
        let data_dir = folder.path().join("data");
        std::fs::create_dir(&data_dir).expect("a folder");
        let (link, target) = (data_dir.join(name), folder.path().join("target"));

        symlink(&target, &link).expect("a link");
        assert_contains(&errors(command(&data_dir)), &[link.to_str().expect("UTF-8"), "a symbolic link"]);
        assert!(!target.exists(), "{name}: the target of the link is not created");

        std::fs::remove_file(&link).expect("the link is removed");
        std::fs::write(&target, "text").expect("a file");
        std::fs::hard_link(&target, &link).expect("a link");
        assert_contains(&errors(command(&data_dir)), &[link.to_str().expect("UTF-8"), "several hard links"]);
        assert_eq!(std::fs::read_to_string(&target).expect("a file"), "text", "{name}");
    }
}

/// Creates `<folder>/programs/bin` with imitations of the programs, which say that they are PostgreSQL 12.
fn imitate_programs(folder: &Path) -> PathBuf {
    // Another process writes them. A program that is open for writing cannot be run, and a process that another test
    // starts at this moment would hold the file open.
    let script = r#"umask 022; mkdir -p "$0"; for program in postgres initdb; do
        printf '#!/bin/sh\necho "postgres (PostgreSQL) 12.1"\n' >"$0/$program"; chmod 755 "$0/$program"; done"#;
    let bin = folder.canonicalize().expect("a path").join("programs/bin");
    let written = Command::new("/bin/sh").args(["-c", script]).arg(&bin).status().expect("a shell");
    assert!(written.success());
    bin
}

/// Starts Annals with the imitations in `bin`, and expects the error of a program that has run.
#[track_caller]
fn assert_run(data_dir: &Path, bin: &Path) {
    let mut command = command(data_dir);
    command.env("ANNALS_PG_BIN", bin);
    assert_contains(&errors(command), &["ANNALS_PG_BIN=", "it has PostgreSQL 12"]);
}

/// Starts Annals with the imitations in `bin`. Root refuses them, and does not run them, because of `path`.
#[track_caller]
fn assert_refused_by_root(data_dir: &Path, bin: &Path, path: &Path, parts: &[&str]) {
    if !is_root() {
        return assert_run(data_dir, bin);
    }
    let mut command = command(data_dir);
    command.env("ANNALS_PG_BIN", bin);
    let printed = errors(command);
    assert_contains(&printed, &["ANNALS_PG_BIN: ", &format!("{} belongs to ", path.display())]);
    assert_contains(&printed, parts);
    assert!(!printed.contains("PostgreSQL 12"), "the program has run: {printed}");
}

#[test]
fn root_refuses_programs_that_other_users_can_write_to() {
    let folder = folder();
    let bin = imitate_programs(folder.path());
    let data_dir = folder.path().join("data");
    assert_run(&data_dir, &bin);

    for (path, bad) in [
        (bin.clone(), 0o775),
        (bin.clone(), 0o1777),
        (bin.join("postgres"), 0o757),
        (bin.join("initdb"), 0o775),
        (bin.parent().expect("a folder").to_owned(), 0o777),
    ] {
        set_mode(&path, bad);
        let bad = format!("mode {bad:04o}: other users can write to it");
        assert_refused_by_root(&data_dir, &bin, &path, &[&bad, "`chmod go-w ", "another ANNALS_PG_BIN"]);
        set_mode(&path, 0o755);
    }

    // The check is of the place that a link leads to.
    let link = folder.path().join("link");
    symlink(&bin, &link).expect("a link");
    assert_run(&data_dir, &link);
    set_mode(&bin, 0o777);
    assert_refused_by_root(&data_dir, &link, &bin, &["mode 0777"]);
}

#[test]
fn root_refuses_programs_of_another_user() {
    let folder = folder();
    let bin = imitate_programs(folder.path());
    let data_dir = folder.path().join("data");
    for path in [bin.join("postgres"), bin.join("initdb"), bin.clone(), bin.parent().expect("a folder").to_owned()] {
        if is_root() {
            give_away(&path);
        }
        let owner = format!("belongs to uid {OTHER_USER}");
        assert_refused_by_root(&data_dir, &bin, &path, &[&owner, "only paths of root", "`chown root "]);
        if is_root() {
            chown(&path, Some(0), Some(0)).expect("root can change the owner");
        }
        assert_run(&data_dir, &bin);
    }
}
