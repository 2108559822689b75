//! No promise: `annals serve` as a process, whose log the tests read.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{http_client, pause_between_polls, within_a_minute};

/// `annals serve` with its log in a file.
pub struct LoggedService {
    pub base: String,
    child: Child,
    log: tempfile::NamedTempFile,
}

impl LoggedService {
    /// Starts a command that serves with the log format `json` and at least the level `info`, on a free port. Waits
    /// until the service listens.
    pub async fn start(mut command: Command) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        command.env("ANNALS_LISTEN", "127.0.0.1:0").stdin(Stdio::null());
        command.stderr(File::create(log.path()).expect("the log file is created"));
        let mut service = Self { base: String::new(), child: command.spawn().expect("the binary runs"), log };
        within_a_minute("the service listens", async {
            while service.base.is_empty() {
                let text = service.text();
                if let Some((address, _)) = text.split_once("listening on ").and_then(|(_, rest)| rest.split_once('"'))
                {
                    service.base = address.to_owned();
                }
                let ended = service.child.try_wait().expect("the state of the process");
                assert!(ended.is_none(), "the service has ended: {text}");
                pause_between_polls().await;
            }
        })
        .await;
        service
    }

    /// Returns the log.
    pub fn text(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("a log")
    }

    /// Returns the lines of the log.
    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Returns the lines about requests. The line of a request is written before its response is sent.
    pub fn requests(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["message"] == "request").collect()
    }

    /// Requests a path. Returns the status.
    pub async fn get(&self, path: &str, request_id: &str) -> u16 {
        let client = http_client().build().expect("a client");
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = client.get(format!("{}{path}", self.base)).header("traceparent", traceparent);
        request.header("x-request-id", request_id).send().await.expect("a response").status().as_u16()
    }
}

impl Drop for LoggedService {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
