//! Promise P6: the worked examples of docs/tutorial/first-projection.md, docs/how-to/process-managers.md and
//! docs/how-to/share-work-among-workers.md resume after a SIGKILL, without missing an event and without counting an event
//! twice. These tests run `python3`, `sh`, `bash`, `curl` and `jq`.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{TestApp, TestDatabase, TestOptions, events, pause_between_polls, within_a_minute};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Starts a service with the example data. Also returns the number of packages by status, counted from the file.
async fn with_real_data() -> (TestApp, BTreeMap<String, usize>) {
    let data = format!("{ROOT}/examples/package-events.ndjson");
    let database = TestDatabase::create().await;
    let url = {
        let folder = database.socket().parent().expect("a folder").display().to_string();
        format!("postgres://annals@localhost/{}?host={folder}", database.name)
    };
    let mut import = Command::new(env!("CARGO_BIN_EXE_annals"));
    import.env_clear().env("DATABASE_URL", url).args(["import", &data]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(blocking(move || import.status().expect("the binary runs")).await.success());

    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for line in std::fs::read_to_string(data).expect("the data").lines() {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        if let Some(status) = event["event_data"]["status"].as_str() {
            last.insert(event["aggregate_id"].as_str().expect("an id").to_owned(), status.to_owned());
        }
    }
    let mut counts = BTreeMap::new();
    last.into_values().for_each(|status| *counts.entry(status).or_default() += 1);
    (TestApp::start_on(database, TestOptions::default()).await, counts)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the task ends")
}

/// Runs an example, kills it with SIGKILL once it has reported a position, and runs it again until it has caught up.
async fn kill_and_run_again(app: &TestApp, name: &str, slow: Command, to_the_end: Command) {
    let (mut slow, mut to_the_end) = (slow, to_the_end);
    let mut running = slow.stdout(Stdio::null()).spawn().expect("the example starts");
    within_a_minute("the example has reported a position", async {
        let path = format!("/projections/{name}");
        while app.get(&path).send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
    running.kill().expect("the example is killed");
    running.wait().expect("the example has ended");
    let ended = blocking(move || to_the_end.output().expect("the example runs")).await;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let projection = app.get(&format!("/projections/{name}")).send().await.expect_status(200).json();
    assert_eq!((&projection["last_processed_position"], &projection["lag"]), (&json!(5286), &json!(0)));
}

fn counted<'s>(states: impl Iterator<Item = &'s str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    states.for_each(|status| *counts.entry(status.to_owned()).or_default() += 1);
    counts
}

fn text(folder: &TempDir, file: &str) -> String {
    std::fs::read_to_string(folder.path().join(file)).expect("the state")
}

#[tokio::test]
async fn the_projection_in_python_resumes_after_a_kill_without_missing_an_event() {
    let (app, expected) = with_real_data().await;
    let folder = tempfile::tempdir().expect("a folder");
    let python = |arguments: &[&str]| {
        let mut python = Command::new("python3");
        python.arg(Path::new(ROOT).join("examples/projection.py")).args(["--url", &app.base, "--name", "states"]);
        python.arg("--state").arg(folder.path().join("states.json")).args(arguments);
        python
    };
    let (slow, to_the_end) = (python(&["--slow", "0.002"]), python(&["--until-caught-up"]));
    kill_and_run_again(&app, "states", slow, to_the_end).await;
    let state: Value = serde_json::from_str(&text(&folder, "states.json")).expect("the state is JSON");
    assert_eq!((&state["events"], &state["cursor"]), (&json!(5286), &json!("1:5286")));
    let states = state["status"].as_object().expect("an object").values();
    assert_eq!(counted(states.map(|status| status.as_str().expect("text"))), expected);
}

#[tokio::test]
async fn the_projection_in_shell_resumes_after_a_kill_without_missing_an_event() {
    let (app, expected) = with_real_data().await;
    let folder = tempfile::tempdir().expect("a folder");
    let shell = || {
        let mut shell = Command::new("sh");
        shell.arg(Path::new(ROOT).join("examples/projection.sh")).args(["--once", &app.base]);
        shell.arg(folder.path().join("states.tsv")).env("ANNALS_PROJECTION", "states-sh");
        shell
    };
    kill_and_run_again(&app, "states-sh", shell(), shell()).await;
    let state = text(&folder, "states.tsv");
    let (cursor, states) = state.split_once('\n').expect("lines");
    assert_eq!(cursor, "#\t1:5286\t5286");
    assert_eq!(counted(states.lines().map(|line| line.split_once('\t').expect("two columns").1)), expected);
}

fn kill(mut running: Child) {
    running.kill().expect("the example is killed");
    running.wait().expect("the example has ended");
}

/// Kills an example with the processes that it has started.
fn kill_group(mut running: Child) {
    let group = nix::unistd::Pid::from_raw(running.id().try_into().expect("a process id"));
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).expect("the example is killed");
    running.wait().expect("the example has ended");
}

fn process_manager(app: &TestApp, folder: &TempDir, arguments: &[&str]) -> Child {
    let mut python = Command::new("python3");
    python.arg(Path::new(ROOT).join("examples/process_manager.py")).args(["--url", &app.base]).args(arguments);
    python.arg("--state").arg(folder.path().join("payments.json")).spawn().expect("the example starts")
}

/// Places orders, each in a stream of its own.
async fn place_orders(app: &TestApp, prefix: &str, count: usize) {
    let order = |n: usize| {
        let events = json!([{"event_type": "OrderPlaced", "event_data": {"total": n}}]);
        json!({"aggregate_type": "Order", "aggregate_id": format!("{prefix}-{n}"), "events": events})
    };
    let appends: Vec<_> = (0..count).map(order).collect();
    app.post("/appends", &json!({ "appends": appends })).send().await.expect_status(201);
}

/// Returns the number of the events of a type.
async fn count(app: &TestApp, event_type: &str) -> usize {
    let call = app.get(&format!("/events?event_type={event_type}")).header("accept", "application/x-ndjson");
    // The last line is the end of the response.
    call.send().await.expect_status(200).lines().len() - 1
}

async fn wait_for_events(app: &TestApp, event_type: &str, least: usize) {
    within_a_minute(&format!("{least} events {event_type} exist"), async {
        while count(app, event_type).await < least {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_process_manager_sends_each_command_once_although_it_is_killed() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    for batch in ["a", "b"] {
        place_orders(&app, batch, 100).await;
    }
    // A page has 100 events. The first kill is within a page, the second one after a page was stored.
    let slow = process_manager(&app, &folder, &["--slow", "0.01"]);
    wait_for_events(&app, "PaymentRequested", 10).await;
    kill(slow);
    let slow = process_manager(&app, &folder, &["--slow", "0.01"]);
    wait_for_events(&app, "PaymentRequested", 110).await;
    kill(slow);

    let running = process_manager(&app, &folder, &[]);
    wait_for_events(&app, "PaymentRequested", 200).await;
    for n in 0..100 {
        let paid = app.post(&format!("/streams/Payment/a-{n}"), &events(&["PaymentReceived"])).if_match(1);
        paid.send().await.expect_status(201);
    }
    wait_for_events(&app, "OrderConfirmed", 100).await;
    kill(running);

    place_orders(&app, "c", 10).await;
    let running = process_manager(&app, &folder, &["--due", "0"]);
    wait_for_events(&app, "OrderCancelled", 10).await;
    kill(running);

    let expected = [("PaymentRequested", 210), ("OrderConfirmed", 100), ("PaymentExpired", 10), ("OrderCancelled", 10)];
    for (event_type, expected) in expected {
        assert_eq!(count(&app, event_type).await, expected, "{event_type}");
    }
}

/// The streams and the events of each stream for the workers of a group.
const STREAMS: usize = 10;
const EVENTS: usize = 10;

/// Appends an event to each of the streams, again and again, and creates the group `mailer`. Returns the lines
/// `<stream> <version> <address>` that the workers write, in the order of the streams.
async fn with_mails(app: &TestApp) -> Vec<String> {
    for version in 1..=EVENTS {
        let event = json!({"event_type": "OrderPlaced", "event_data": {"email": format!("{version}@example.org")}});
        let append =
            |n: usize| json!({"aggregate_type": "Order", "aggregate_id": format!("{n:02}"), "events": [event]});
        let appends: Vec<_> = (0..STREAMS).map(append).collect();
        app.post("/appends", &json!({ "appends": appends })).send().await.expect_status(201);
    }
    let settings = json!({"partitions": 4, "lease_seconds": 2, "retry_after": [0, 0, 0, 0]});
    app.call("PUT", "/groups/mailer").json(&settings).send().await.expect_status(201);
    let mails = |stream| (1..=EVENTS).map(move |n| format!("Order/{stream:02} {n} {n}@example.org"));
    (0..STREAMS).flat_map(mails).collect()
}

/// Waits until the group has processed every event, and has no open claim.
async fn wait_for_the_group(app: &TestApp) {
    within_a_minute("the group has processed the log", async {
        loop {
            let group = app.get("/groups/mailer").send().await.expect_status(200).json();
            if [&group["lag"], &group["parked_streams"], &group["open_claims"]].iter().all(|n| **n == json!(0)) {
                return;
            }
            pause_between_polls().await;
        }
    })
    .await;
}

/// Starts two workers, kills them once `has_begun`, and starts two others, which work until the group has processed the
/// log.
async fn kill_two_workers_and_start_two(
    app: &TestApp,
    worker: impl Fn() -> Command,
    has_begun: impl Fn() -> bool,
) -> [Child; 2] {
    let start = || [(); 2].map(|()| worker().process_group(0).spawn().expect("the example starts"));
    let killed = start();
    within_a_minute("a worker has handled an event", async {
        while !has_begun() {
            pause_between_polls().await;
        }
    })
    .await;
    killed.into_iter().for_each(kill_group);
    let others = start();
    wait_for_the_group(app).await;
    others
}

#[tokio::test]
async fn the_workers_in_python_store_each_mail_once_and_in_order() {
    let app = TestApp::start().await;
    let expected = with_mails(&app).await;
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("mails.sqlite");
    let worker = || {
        let mut python = Command::new("python3");
        python.arg(Path::new(ROOT).join("examples/group_worker.py")).args([&app.base, "mailer"]).arg(&database);
        python
    };
    // A mail that is committed is in the file, or in its journal.
    let mails = || {
        let print = "import sqlite3, sys\n\
            for row in sqlite3.connect(sys.argv[1], timeout=60).execute('SELECT * FROM mails ORDER BY rowid'): print(*row)";
        let printed = Command::new("python3").args(["-c", print]).arg(&database).output().expect("python3 runs");
        String::from_utf8(printed.stdout).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let workers = kill_two_workers_and_start_two(&app, worker, || !mails().is_empty()).await;
    for mut running in workers {
        let pid = nix::unistd::Pid::from_raw(running.id().try_into().expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the example is stopped");
        let ended = blocking(move || running.wait().expect("the example has ended")).await;
        assert!(ended.success(), "{ended}");
    }
    let mut stored = mails();
    // A stable sort: the mails of a stream stay in the order in which they were stored.
    stored.sort_by_key(|mail| mail.split_once(' ').expect("a stream").0.to_owned());
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn the_workers_in_shell_miss_no_event_and_repeat_only_those_of_a_killed_worker() {
    let app = TestApp::start().await;
    let expected = with_mails(&app).await;
    let folder = tempfile::tempdir().expect("a folder");
    let written = folder.path().join("mails.txt");
    let worker = || {
        let mut shell = Command::new("sh");
        shell.arg(Path::new(ROOT).join("examples/group-worker.sh")).args([&app.base, "mailer"]);
        // The first event of stream 07 fails once: the mark is the folder that the first try makes.
        shell.args([
            "sh",
            "-c",
            r#"
            line=$(jq -r '"\(.aggregate_type)/\(.aggregate_id) \(.version) \(.event_data.email)"')
            case $line in 'Order/07 1 '*) mkdir "$1.failed" 2> "$1.errors" && echo 'no connection' >&2 && exit 1 ;; esac
            echo "$line" >> "$1""#,
            "handler",
        ]);
        shell.arg(&written);
        shell
    };
    let lines = || {
        let text = std::fs::read_to_string(&written).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    kill_two_workers_and_start_two(&app, worker, || !lines().is_empty()).await.into_iter().for_each(kill_group);
    assert!(folder.path().join("mails.txt.failed").exists());
    let mut stored = lines();
    stored.sort_by_key(|mail| mail.split_once(' ').expect("a stream").0.to_owned());
    let all = stored.len();
    stored.dedup();
    assert_eq!(stored, expected);
    assert!(all - stored.len() <= 2, "a killed worker had one event");
}

#[tokio::test]
async fn a_command_runs_with_a_service_of_its_own_which_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    // If the test runs as root, PostgreSQL runs as another user.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).expect("the mode is set");
    let mut bash = Command::new("bash");
    bash.arg(Path::new(ROOT).join("examples/with-annals.sh"));
    bash.args(["sh", "-c", "curl -sf \"$ANNALS_URL/readyz\" && exit 7"]);
    bash.env("ANNALS_BIN", env!("CARGO_BIN_EXE_annals")).env("TMPDIR", folder.path());
    let ended = blocking(move || bash.output().expect("the example runs")).await;
    let (printed, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(7), "{errors}");
    assert!(printed.contains("\"status\":\"ok\""), "{printed}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn the_workers_without_arguments_print_their_usage() {
    for (program, script) in [("python3", "group_worker.py"), ("sh", "group-worker.sh")] {
        let mut worker = Command::new(program);
        let ended = worker.arg(Path::new(ROOT).join("examples").join(script)).output().expect("the example ends");
        assert!(!ended.status.success(), "{script}");
        let printed = String::from_utf8(ended.stderr).expect("text");
        assert!(printed.starts_with(&format!("usage: {script} ")), "{printed}");
        assert_eq!(printed.lines().count(), 1, "{printed}");
    }
}
