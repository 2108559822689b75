//! Promise P6: the worked examples of docs/tutorial/first-projection.md and docs/how-to/process-managers.md resume
//! after a SIGKILL, without missing an event and without counting an event twice. These tests run `python3`, `sh`,
//! `bash` and `curl`.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{TestApp, TestDatabase, TestOptions, events, within_a_minute};

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
            tokio::task::yield_now().await;
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
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_process_manager_sends_each_command_once_although_it_is_killed() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let kill = |mut running: Child| {
        running.kill().expect("the example is killed");
        running.wait().expect("the example has ended");
    };
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
