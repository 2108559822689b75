//! No promise: the request log. Refused and failed requests have a line with their cause.

use std::fs::File;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::cli::annals;
use crate::support::{TestDatabase, http_client, within_a_minute};

/// `annals serve` with its log in a file.
struct LoggedService {
    child: Child,
    log: tempfile::NamedTempFile,
    base: String,
}

impl LoggedService {
    async fn start(database: &TestDatabase, level: &str) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut command = annals(Some(database));
        command.env("ANNALS_LOG_LEVEL", level).env("ANNALS_LISTEN", "127.0.0.1:0").stdin(Stdio::null());
        command.stderr(File::create(log.path()).expect("the log file is created"));
        let mut logged = Self { child: command.spawn().expect("the binary runs"), log, base: String::new() };
        within_a_minute("the service listens", async {
            while logged.base.is_empty() {
                let text = logged.text();
                if let Some((address, _)) = text.split_once("listening on ").and_then(|(_, rest)| rest.split_once('"'))
                {
                    logged.base = address.to_owned();
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        logged
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("a log")
    }

    async fn get(&self, path: &str, request_id: &str) -> u16 {
        let client = http_client().build().expect("a client");
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = client.get(format!("{}{path}", self.base)).header("traceparent", traceparent);
        request.header("x-request-id", request_id).send().await.expect("a response").status().as_u16()
    }

    /// Returns the lines about requests. The line of a request is written before its response is sent.
    fn requests(&self) -> Vec<Value> {
        let lines = self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>();
        lines.into_iter().filter(|line| line["message"] == "request").collect()
    }
}

impl Drop for LoggedService {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn each_refused_or_failed_request_has_a_line_with_its_cause() {
    let database = TestDatabase::create().await;
    let served = LoggedService::start(&database, "info").await;
    assert_eq!(served.get("/livez", "r1").await, 200);
    assert_eq!(served.get("/streams/No/1", "r2").await, 404);
    database.session().await.run("ALTER TABLE projection_positions RENAME TO elsewhere").await;
    assert_eq!(served.get("/projections", "r3").await, 500);
    let lines = served.requests();
    assert_eq!(lines.len(), 2, "a successful request has no line: {lines:#?}");
    let (refused, failed) = (&lines[0], &lines[1]);
    assert_eq!((&refused["level"], &refused["status"]), (&"INFO".into(), &404.into()), "{refused}");
    assert_eq!(
        (&refused["code"], &refused["path"]),
        (&"stream_not_found".into(), &"/streams/No/1".into()),
        "{refused}"
    );
    assert_eq!(refused["request_id"], "r2");
    assert_eq!(refused["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(failed["request_id"], "r3");
    assert!(failed["cause"].as_str().is_some_and(|cause| cause.contains("projection_positions")), "{failed}");
    assert_eq!((&failed["level"], &failed["status"]), (&"ERROR".into(), &500.into()), "{failed}");
    assert_eq!(failed["code"], "internal", "{failed}");
}

#[tokio::test]
async fn at_the_level_debug_every_request_has_a_line() {
    let database = TestDatabase::create().await;
    let served = LoggedService::start(&database, "debug").await;
    assert_eq!(served.get("/livez", "r1").await, 200);
    let lines = served.requests();
    let line = lines.iter().find(|line| line["request_id"] == "r1").expect("a line");
    assert_eq!(
        (&line["level"], &line["status"], &line["method"]),
        (&"DEBUG".into(), &200.into(), &"GET".into()),
        "{line}"
    );
}

#[tokio::test]
async fn the_line_of_a_refused_request_has_the_detail_and_a_flood_is_limited() {
    let database = TestDatabase::create().await;
    let served = LoggedService::start(&database, "info").await;
    assert_eq!(served.get("/events?nonsense=1", "r1").await, 400);
    let lines = served.requests();
    let detail = lines[0]["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("parameter nonsense: is unknown"), "{detail}");
    for n in 0..200 {
        assert_eq!(served.get("/nowhere", &format!("flood-{n}")).await, 404);
    }
    let lines = served.requests();
    // A line is left out only within the second of 20 others, so the number of lines depends on the speed.
    let left_out: u64 = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum();
    let last = lines.iter().rposition(|line| line["request_id"].as_str().is_some_and(|id| id.starts_with("flood-")));
    let after_last = 200
        - lines[last.expect("a line")]["request_id"].as_str().expect("an id")[6..].parse::<u64>().expect("a number")
        - 1;
    assert_eq!(lines.len() as u64 - 1 + left_out + after_last, 200, "each request has a line or is counted");
}
