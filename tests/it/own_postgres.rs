//! Promise P1: the PostgreSQL that `annals serve` starts itself. Its data survives restarts and kills. Commands share
//! the server, and the last process stops it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
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
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("the mode of the folder is set");
    folder
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
