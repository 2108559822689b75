//! Promise P4, P6: the commands that call a service, as processes. `annals append` can be repeated, and `annals tail
//! -f` misses no event when its connection is lost. The exit status tells the kinds of problems apart.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use annals::domain::access::Grant;
use annals::domain::quota::Quotas;
use annals::keyring;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout};
use tokio::task::JoinHandle;

use crate::cli::{annals, output};
use crate::support::{TestApp, TestOptions, at, id, within_a_minute};

/// Returns a command that calls a service.
pub fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = annals(None);
    command.env("ANNALS_URL", url).args(arguments);
    command
}

/// Runs a command. Returns its exit status, and what it printed to standard output and to standard error.
pub async fn call(url: &str, arguments: &[&str]) -> (i32, String, String) {
    finish(command(url, arguments)).await
}

pub async fn finish(command: Command) -> (i32, String, String) {
    let output = output(command).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit status"), text(output.stdout), text(output.stderr))
}

/// Runs a command that succeeds. Returns what it printed.
pub async fn printed(app: &TestApp, arguments: &[&str]) -> String {
    let (status, printed, error) = call(&app.base, arguments).await;
    assert_eq!((status, error.as_str()), (0, ""), "{arguments:?}: {printed}");
    printed
}

/// Expects a command to fail with this status, and a part of its message.
pub async fn expect_failure(url: &str, arguments: &[&str], status: i32, message: &str) {
    let (found, printed, error) = call(url, arguments).await;
    assert_eq!((found, printed.as_str()), (status, ""), "{arguments:?}: {error}");
    assert!(error.contains(message), "{arguments:?}: {error}");
}

pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[tokio::test]
async fn an_event_is_appended_once_and_shown_by_each_of_its_names() {
    let app = TestApp::start().await;
    let append = ["append", "Order/ord 1", "OrderPlaced", r#"{"total": 42.50}"#, "--expect", "none"];
    let line = printed(&app, &append).await;
    let event_id = line.strip_prefix("1  Order/ord 1@1  OrderPlaced  ").expect(&line).trim().to_owned();
    expect_failure(&app.base, &append, 4, "version_conflict").await;

    // The same event id: the event is not appended again, although the stream has moved on.
    let paid = ["append", "Order/ord 1", "OrderPaid", "-5", "--expect", "1", "--metadata", r#"{"by": null}"#];
    assert!(printed(&app, &paid).await.starts_with("2  Order/ord 1@2  OrderPaid  "));
    let event_id = event_id.as_str();
    let again = [&append[..], &["--event-id", event_id][..]].concat();
    let expected = format!("1  Order/ord 1@1  OrderPlaced  {event_id}  (it was appended before)\n");
    assert_eq!(printed(&app, &again).await, expected);
    let response = printed(&app, &[&again[..], &["--json"][..]].concat()).await;
    assert_eq!(json_lines(&response)[0]["version"], 1);

    let event = app.get("/streams/Order/ord%201/1").send().await.expect_status(200).text();
    for name in ["Order/ord 1@1", event_id, "1"] {
        assert_eq!(printed(&app, &["show", name, "--json"]).await, format!("{event}\n"), "{name}");
        let shown = printed(&app, &["show", name]).await;
        for part in ["OrderPlaced", "Order/ord 1@1", event_id, "\"total\": 42.50", "metadata         none"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    let stream = printed(&app, &["show", "Order/ord 1"]).await;
    let types: Vec<_> = stream.lines().map(|line| line.split("  ").nth(3).expect("an event type")).collect();
    assert_eq!(types, ["OrderPlaced", "OrderPaid"], "{stream}");
    let unknown = id(1);
    for missing in ["Order/none", "Order/ord 1@3", "3", "99", unknown.as_str()] {
        expect_failure(&app.base, &["show", missing], 3, "annals: ").await;
    }
    let reused = ["append", "Order/ord 1", "OrderPaid", "1", "--event-id", event_id];
    expect_failure(&app.base, &reused, 4, "event_id_reused").await;
}

#[tokio::test]
async fn a_payload_is_read_from_standard_input() {
    let app = TestApp::start().await;
    let mut command = Command::new("sh");
    command.args(["-c", "printf '{\"n\": 12345678901234567890.50}\\n' | \"$ANNALS\" append Order/1 Sent -"]);
    command.env("ANNALS", env!("CARGO_BIN_EXE_annals")).env("ANNALS_URL", &app.base);
    let (status, printed, error) = finish(command).await;
    assert_eq!((status, error.as_str()), (0, ""), "{printed}");
    let event = app.get("/streams/Order/1/1").send().await.text();
    assert!(event.contains("12345678901234567890.50"), "{event}");
}

#[tokio::test]
async fn the_newest_events_are_printed_and_filtered() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    app.append("/streams/Cart/1", &["A", "D"]).await;
    let types = async |arguments: &[&str]| -> Vec<String> {
        let text = printed(&app, &[&["tail", "--json"][..], arguments].concat()).await;
        json_lines(&text).iter().map(|event| event["event_type"].as_str().expect("a type").to_owned()).collect()
    };
    assert_eq!(types(&[]).await, ["A", "B", "C", "A", "D"]);
    assert_eq!(types(&["-n", "2"]).await, ["A", "D"]);
    assert_eq!(types(&["-n", "0"]).await, [""; 0]);
    assert_eq!(types(&["--type", "Order", "-n", "2"]).await, ["B", "C"]);
    assert_eq!(types(&["--type", "Cart", "--id", "1", "--event", "A"]).await, ["A"]);
    assert_eq!(types(&["--event", "A", "--event", "D"]).await, ["A", "A", "D"]);
    assert_eq!(types(&["--since", "1h"]).await, ["A", "B", "C", "A", "D"]);
    assert_eq!(types(&["--since", "2999-01-01T00:00:00Z"]).await, [""; 0]);
    assert_eq!(types(&["--since", "1h", "-n", "1"]).await, ["D"]);
    expect_failure(&app.base, &["tail", "--since", "yesterday"], 2, "like 15m").await;
    expect_failure(&app.base, &["tail", "--id", "1"], 2, "--type").await;
}

#[tokio::test]
async fn stored_text_cannot_control_the_terminal() {
    let app = TestApp::start().await;
    let event = json!({"events": [{"event_type": "Noted", "event_data": "\u{9b}31m\u{202e}"}]});
    app.post("/streams/Order/1", &event).send().await.expect_status(201);
    let line = printed(&app, &["tail"]).await;
    assert!(line.ends_with("  Noted  \"\\u009b31m\\u202e\"\n"), "{line:?}");
    let shown = printed(&app, &["show", "1"]).await;
    assert!(shown.contains("\"\\u009b31m\\u202e\""), "{shown:?}");
}

/// A relay in front of a service, which can close all connections.
struct Relay {
    url: String,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Relay {
    async fn start(app: &TestApp) -> Self {
        let target = app.base.strip_prefix("http://").expect("a URL").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let opened = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                let relayed = tokio::spawn(async move {
                    let mut service = TcpStream::connect(target).await.expect("the service accepts");
                    // A connection that is closed is what the test wants.
                    drop(copy_bidirectional(&mut client, &mut service).await);
                });
                opened.lock().expect("the lock").push(relayed);
            }
        });
        Self { url, connections }
    }

    fn cut(&self) {
        for connection in self.connections.lock().expect("the lock").drain(..) {
            connection.abort();
        }
    }
}

/// `annals tail -f --json` in a process.
struct Tail {
    lines: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Tail {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let mut command = command(url, &[&["tail", "-f", "--json"][..], arguments].concat());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("the binary runs");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Self { lines, _process: process }
    }

    async fn position(&mut self) -> i64 {
        let line = within_a_minute("the command prints an event", self.lines.next_line()).await;
        let line = line.expect("UTF-8").expect("a line");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        event["global_position"].as_i64().expect("a position")
    }
}

#[tokio::test]
async fn a_lost_connection_is_replaced_and_no_event_is_missing_or_printed_twice() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    let relay = Relay::start(&app).await;
    let mut last = Tail::start(&relay.url, &["-n", "1", "--type", "Order"]);
    let mut all = Tail::start(&relay.url, &["--since", "1h"]);
    assert_eq!(last.position().await, 2);
    assert_eq!([all.position().await, all.position().await], [1, 2]);
    for round in 0..2_i64 {
        app.append("/streams/Cart/1", &["Other"]).await;
        app.append("/streams/Order/1", &["C"]).await;
        let position = 4 + 2 * round;
        assert_eq!(last.position().await, position);
        assert_eq!([all.position().await, all.position().await], [position - 1, position]);
        relay.cut();
    }
    app.append("/streams/Order/1", &["D"]).await;
    assert_eq!((last.position().await, all.position().await), (7, 7));
}

#[tokio::test]
async fn a_command_ends_quietly_when_the_reader_of_its_output_does() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["AnEventOfManyThatDoNotFitIntoAPipe"; 1_000]).await;
    let mut command = Command::new("sh");
    command.args(["-c", "{ \"$ANNALS\" show Order/1 --json; echo \"status $?\" >&2; } | head -n 1"]);
    command.env("ANNALS", env!("CARGO_BIN_EXE_annals")).env("ANNALS_URL", &app.base);
    let (_, printed, error) = finish(command).await;
    assert_eq!((printed.lines().count(), error.as_str()), (1, "status 0\n"));
}

#[tokio::test]
async fn a_correlation_id_is_printed_as_a_tree_of_causes() {
    let (app, clock) = TestApp::start_at("2026-11-23T05:56:44Z").await;
    for (n, stream, event_type, cause, time) in [
        (1, "Order/1", "OrderPlaced", Some(9), "2026-11-23T05:56:44Z"),
        (2, "Payment/1", "PaymentRequested", Some(1), "2026-11-23T05:56:44.012Z"),
        (3, "Payment/1", "PaymentReceived", Some(2), "2026-11-23T05:56:45.222Z"),
        (4, "Stock/1", "StockReserved", Some(1), "2026-11-23T05:56:45.222Z"),
        (5, "Order/2", "OrderPlaced", None, "2026-11-23T06:58:45.222Z"),
    ] {
        clock.set(at(time));
        let event =
            json!({"event_id": id(n), "event_type": event_type, "event_data": n, "causation_id": cause.map(id)});
        app.post(&format!("/streams/{stream}"), &json!({"events": [event]}))
            .header("x-correlation-id", "req 77")
            .send()
            .await
            .expect_status(201);
    }
    let tree = format!(
        "2026-11-23T05:56:44.000000Z  Order/1@1  OrderPlaced  caused by {}
├─ +12 ms  Payment/1@1  PaymentRequested
│  └─ +1.21 s  Payment/1@2  PaymentReceived
└─ +1.22 s  Stock/1@1  StockReserved
2026-11-23T06:58:45.222000Z  Order/2@1  OrderPlaced
",
        id(9)
    );
    assert_eq!(printed(&app, &["trace", "req 77"]).await, tree);
    let events = json_lines(&printed(&app, &["trace", "req 77", "--json"]).await);
    assert_eq!(events.iter().map(|event| &event["event_data"]).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    expect_failure(&app.base, &["trace", "req 78"], 3, "req 78").await;
}

#[tokio::test]
async fn the_state_and_its_differences_are_printed() {
    let app = TestApp::start().await;
    let patches = json!({"events": [{"event_type": "Opened", "event_data": {"status": "open", "lines": [1.50]}},
                          {"event_type": "Paid", "event_data": {"status": "paid", "lines": [1.50, 2], "by": "card"}}]});
    app.post("/streams/Order/1", &patches).send().await.expect_status(201);
    expect_failure(&app.base, &["state", "Order/1"], 3, "no_reducer").await;
    app.call("PUT", "/reducers/Order").json(&json!({"language": "merge-patch"})).send().await.expect_status(201);
    let state = async |arguments: &[&str]| -> Value {
        let text = printed(&app, &[&["state", "Order/1"][..], arguments].concat()).await;
        serde_json::from_str(&text).expect("JSON")
    };
    let paid = json!({"status": "paid", "lines": [1.5, 2], "by": "card"});
    assert_eq!(state(&[]).await, paid);
    assert_eq!(state(&["--at", "1"]).await, json!({"status": "open", "lines": [1.5]}));
    assert_eq!(state(&["--at", "2999-01-01T00:00:00Z"]).await, paid);
    assert_eq!(state(&["--json"]).await["version"], 2);
    for versions in ["1..2", "1.."] {
        let difference = printed(&app, &["state", "Order/1", "--diff", versions]).await;
        let mut lines: Vec<_> = difference.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["+ /by: \"card\"", "+ /lines/1: 2", "~ /status: \"open\" → \"paid\""]);
    }
    let differences = json_lines(&printed(&app, &["state", "Order/1", "--diff", "1..2", "--json"]).await);
    assert!(differences.contains(&json!({"pointer": "/by", "after": "card"})), "{differences:?}");
    expect_failure(&app.base, &["state", "Order/1", "--at", "3"], 3, "event_not_found").await;
    expect_failure(&app.base, &["state", "Order/1", "--diff", "2"], 2, "2..3").await;
}

#[tokio::test]
async fn streams_and_projections_are_listed() {
    let app = TestApp::start().await;
    for (id, event_types) in [("a-1", &["A", "B"][..]), ("a-2", &["A"][..]), ("b-1", &["A"][..])] {
        app.append(&format!("/streams/Order/{id}"), event_types).await;
    }
    let list = async |arguments: &[&str]| -> Vec<(u64, String)> {
        let text = printed(&app, &[&["streams", "Order"][..], arguments].concat()).await;
        let columns = text.lines().map(|line| line.split_whitespace().collect::<VecDeque<_>>());
        columns
            .map(|mut columns| {
                let version = columns.pop_front().expect("a version").parse().expect("a number");
                (version, columns.pop_back().expect("an id").to_owned())
            })
            .collect()
    };
    let named = |streams: &[(u64, &str)]| -> Vec<(u64, String)> {
        streams.iter().map(|(version, id)| (*version, (*id).to_owned())).collect()
    };
    assert_eq!(list(&[]).await, named(&[(2, "a-1"), (1, "a-2"), (1, "b-1")]));
    assert_eq!(list(&["a-"]).await, named(&[(2, "a-1"), (1, "a-2")]));
    let streams = json_lines(&printed(&app, &["streams", "Order", "b", "--json"]).await);
    assert_eq!(streams[0]["aggregate_id"], "b-1");

    app.call("PUT", "/projections/orders").json(&json!({"last_processed_position": 1})).send().await.expect_status(201);
    let table = printed(&app, &["projections"]).await;
    let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!((row[0], row[2], row[4]), ("3", "1", "orders"), "{table}");
    let rows = json_lines(&printed(&app, &["projections", "--json"]).await);
    assert_eq!((rows.len(), &rows[0]["lag"]), (1, &json!(3)));
}

#[tokio::test]
async fn consumer_groups_are_listed() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    let group = json!({"partitions": 1, "retry_after": []});
    app.call("PUT", "/groups/mailer").json(&group).send().await.expect_status(201);
    let claim = app.call("POST", "/groups/mailer/claims?limit=1").send().await.expect_status(201).json();
    let path = format!("/groups/mailer/claims/{}", claim["claim_id"].as_str().expect("an id"));
    let failed = json!({"last_processed_position": 1, "failed": [{"global_position": 1, "reason": "it failed"}]});
    app.call("PUT", &path).json(&failed).send().await.expect_status(200);
    app.append("/streams/Order/2", &["A"]).await;
    let table = printed(&app, &["groups"]).await;
    let row: Vec<_> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    // The events of the parked stream count as processed.
    assert_eq!((row[0], row[2], &row[3..]), ("1", "3", &["0", "1", "1", "mailer"][..]), "{table}");
    let rows = json_lines(&printed(&app, &["groups", "--json"]).await);
    assert_eq!((rows.len(), &rows[0]["parked_for_good"]), (1, &json!(1)));
}

/// Responds to every request with a page of HTML, as another web server does.
async fn another_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = client.read(&mut request).await.expect("a request");
            assert!(read > 0);
            let response =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
            client.write_all(response).await.expect("the client reads");
        }
    });
    url
}

#[tokio::test]
async fn the_exit_status_tells_the_kinds_of_problems_apart() {
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let down = format!("http://{}", unused.local_addr().expect("an address"));
    drop(unused);
    expect_failure(&down, &["tail"], 6, "ANNALS_URL").await;
    expect_failure(&down, &["tail", "-f"], 6, "ANNALS_URL").await;
    expect_failure(&down, &["append", "Order/1", "A", "1", "--patience", "1ms"], 6, "--event-id").await;
    expect_failure(&another_server().await, &["show", "1"], 1, "text/html").await;
    for url in ["localhost:8080", "http://user:secret@localhost", "ftp://localhost"] {
        let (status, _, error) = call(url, &["tail"]).await;
        assert!(status == 2 && error.contains("ANNALS_URL") && !error.contains("secret"), "{url}: {error}");
    }

    let mut options = TestOptions::default();
    options.settings.needs_keys = true;
    let app = TestApp::start_with(options).await;
    expect_failure(&app.base, &["show", "Order/1"], 5, "ANNALS_KEY").await;
    let grants: Vec<Grant> =
        ["read:Order", "append:Order"].iter().map(|grant| grant.parse().expect("a grant")).collect();
    let (key, new) = keyring::generate("a test".to_owned(), &grants, Quotas::default(), None).expect("randomness");
    app.app.primary.create_key(&new).await.expect("the key is stored");
    app.app.keyring.refresh(&app.app.primary).await.expect("the keys are read");
    let as_client = |arguments: &[&str]| {
        let mut command = command(&app.base, arguments);
        command.env("ANNALS_KEY", format!("{key}\n"));
        finish(command)
    };
    let (status, _, error) = as_client(&["append", "Order/1", "A", "{}"]).await;
    assert_eq!((status, error.as_str()), (0, ""));
    for (arguments, expected) in [
        (&["show", "Cart/1"][..], 5),
        (&["show", "Order/2"][..], 3),
        (&["append", "Order/1", "$reserved", "{}"][..], 2),
        (&["append", "Order/1", "A", "null"][..], 2),
        (&["append", "Order/1", "A", "{"][..], 2),
        (&["append", "Order/1", "A", "{}", "--expect", "7"][..], 4),
        (&["append", "Order", "A", "{}"][..], 2),
    ] {
        let (status, _, error) = as_client(arguments).await;
        assert!(status == expected && !error.is_empty(), "{arguments:?}: {status} {error}");
        assert!(!error.contains(&key), "{error}");
    }
}

#[tokio::test]
async fn completions_and_manual_pages_are_printed() {
    let run = |arguments: &[&str]| {
        let mut command = annals(None);
        command.args(arguments);
        finish(command)
    };
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (status, script, error) = run(&["completions", shell]).await;
        assert!(status == 0 && script.contains("projections"), "{shell}: {error}");
    }
    let (status, page, error) = run(&["man"]).await;
    assert!(status == 0 && page.contains(".TH annals 1"), "{page}{error}");
    let (status, page, error) = run(&["man", "tail"]).await;
    assert!(status == 0 && page.contains(".TH annals-tail 1") && page.contains("Examples:"), "{page}{error}");
    let (status, _, error) = run(&["man", "nothing"]).await;
    assert!(status == 2 && error.contains("nothing"), "{error}");
    let folder = tempfile::tempdir().expect("a folder");
    let (status, _, error) = run(&["man", "--folder", folder.path().to_str().expect("a path")]).await;
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(folder.path().join("annals-trace.1").is_file());
    assert!(!folder.path().join("annals-reducer-worker.1").exists());
}
