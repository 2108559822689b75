//! No promise: `annals demo` as a process. It fills an empty store with events of several types that have causes, a
//! reducer and projections that lag. It refuses a store that has events.

use std::collections::{BTreeSet, HashMap};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::client_commands::{command, expect_failure, finish, json_lines, printed};
use crate::keys;
use crate::support::{TestApp, within_a_minute};

async fn head(app: &TestApp) -> u64 {
    app.get("/stats").send().await.expect_status(200).json()["head"].as_u64().expect("a position")
}

#[tokio::test]
async fn an_empty_store_is_filled_and_a_store_with_events_is_refused() {
    let app = TestApp::start().await;
    let summary = printed(&app, &["demo"]).await;
    assert!(summary.contains(&format!("{}/console/", app.base)), "{summary}");

    // Every cause is an earlier event of the same correlation.
    let events = json_lines(&printed(&app, &["tail", "-n", "100000", "--json"]).await);
    assert!((2_500..3_500).contains(&events.len()), "{}", events.len());
    let mut correlations: HashMap<&str, &str> = HashMap::new();
    let mut types_of_correlation: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for event in &events {
        let correlation = event["correlation_id"].as_str().expect("a correlation");
        if let Some(cause) = event["causation_id"].as_str() {
            assert_eq!(correlations.get(cause), Some(&correlation), "{event}");
        }
        correlations.insert(event["event_id"].as_str().expect("an id"), correlation);
        let aggregate_type = event["aggregate_type"].as_str().expect("a type");
        types_of_correlation.entry(correlation).or_default().insert(aggregate_type);
    }
    let all = BTreeSet::from(["Customer", "Order", "Payment", "Product", "Shipment"]);
    let complete = types_of_correlation.values().filter(|types| **types == all).count();
    assert!(complete > 100, "{complete} orders have events of all types");

    // The state of each order is what its events add up to.
    let order = events.iter().find(|event| event["event_type"] == "OrderDelivered").expect("a delivered order");
    let id = order["aggregate_id"].as_str().expect("an id");
    let total: i64 = events
        .iter()
        .filter(|event| event["aggregate_id"] == id)
        .map(|event| {
            let data = &event["event_data"];
            let number = |name: &str| data[name].as_i64().expect("a number");
            match event["event_type"].as_str().expect("a type") {
                "ItemAdded" => number("quantity") * number("price_cents"),
                "ItemRemoved" => -number("quantity") * number("price_cents"),
                _ => 0,
            }
        })
        .sum();
    let state: Value = serde_json::from_str(&printed(&app, &["state", &format!("Order/{id}")]).await).expect("JSON");
    assert_eq!((&state["status"], &state["total_cents"]), (&json!("delivered"), &json!(total)), "{state}");

    let projections = json_lines(&printed(&app, &["projections", "--json"]).await);
    let lags: Vec<_> = projections.iter().map(|projection| projection["lag"].as_i64().expect("a lag")).collect();
    assert_eq!((lags.len(), lags.iter().filter(|lag| **lag == 0).count()), (5, 1), "{lags:?}");
    let group = app.get("/groups/demo-mailer").send().await.expect_status(200).json();
    let shown = (&group["open_claims"], &group["parked_streams"], &group["parked_for_good"]);
    assert_eq!(shown, (&json!(1), &json!(2), &json!(1)), "{group}");

    let before = head(&app).await;
    assert_eq!(before, events.len() as u64);
    expect_failure(&app.base, &["demo"], 4, "--into-existing").await;
    assert_eq!(head(&app).await, before);
    printed(&app, &["demo", "--into-existing"]).await;
    assert!(head(&app).await > before + 2_500);
}

#[tokio::test]
async fn a_key_that_may_not_register_a_reducer_gets_the_events_and_a_message() {
    let app = keys::start().await;
    let key = app.key(&["read:*", "append:*", "project:demo-*"]).await;
    let mut demo = command(&app.base, &["demo"]);
    demo.env("ANNALS_KEY", &key);
    let (status, summary, error) = finish(demo).await;
    assert_eq!(status, 0, "{error}");
    assert!(error.contains("the reducer of Order is not registered") && error.contains("forbidden"), "{error}");
    assert!(summary.contains("demo-order-list") && !summary.contains("annals state"), "{summary}");
    let reader = app.key(&["read:*"]).await;
    let mut demo = command(&app.base, &["demo", "--into-existing"]);
    demo.env("ANNALS_KEY", reader);
    let (status, _, error) = finish(demo).await;
    assert_eq!(status, 5, "{error}");
}

#[tokio::test]
async fn a_demo_that_follows_appends_and_moves_the_current_projection() {
    let app = TestApp::start().await;
    let mut demo = command(&app.base, &["demo", "--follow"]);
    demo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = tokio::process::Command::from(demo).kill_on_drop(true).spawn().expect("the binary runs");
    let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
    let mut filled_to = None;
    let mut appended = 0;
    while appended < 3 {
        let line = within_a_minute("the command prints a line", lines.next_line()).await;
        let line = line.expect("UTF-8").expect("a line");
        if line.starts_with("Appended ") {
            let position = line.trim_end_matches(':').rsplit(' ').next().expect("a position");
            filled_to = Some(position.parse::<u64>().expect("a number"));
        } else if line.starts_with("Order/") {
            appended += 1;
        }
    }
    let projection = app.get("/projections/demo-order-list").send().await.expect_status(200).json();
    let processed = projection["last_processed_position"].as_u64().expect("a position");
    assert!(processed >= filled_to.expect("a summary") + 3, "{projection}");
}
