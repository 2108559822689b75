//! Promise P8, P9: the number of events between two times is a difference of positions, over all months, archived ones
//! too, and over the gaps at the starts of epochs.

use annals::clock::Clock;
use annals::store::partitions::archiver::Include;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::archive::{History, config};
use crate::backward::{pages_backward, position};
use crate::epochs::lose_events_after;
use crate::keys;
use crate::support::{TestApp, TestDatabase, TestOptions, at, events};

/// Returns the times of all events.
async fn times(app: &TestApp) -> Vec<DateTime<Utc>> {
    let lines = app.get("/events").header("accept", "application/x-ndjson").send().await.expect_status(200).lines();
    let (_, events) = lines.split_last().expect("an end line");
    events.iter().map(|event| at(event["occurred_at"].as_str().expect("a time"))).collect()
}

/// Returns the number of events before each border. It compares every event.
fn expected(times: &[DateTime<Utc>], from: &str, to: &str, buckets: i64) -> Vec<usize> {
    let (from, to) = (at(from), at(to));
    let span = (to - from).num_microseconds().expect("a span");
    let border = |n: i64| from + TimeDelta::microseconds(span * n / buckets);
    (0..=buckets).map(|n| times.iter().filter(|time| **time < border(n)).count()).collect()
}

async fn rates(app: &TestApp, query: &str) -> Value {
    app.get(&format!("/stats/rates{query}")).send().await.expect_status(200).json()
}

#[tokio::test]
async fn an_empty_store_has_no_events_at_any_time() {
    let (app, _) = TestApp::start_at("2026-03-10T12:00:00Z").await;
    let found = rates(&app, "").await;
    assert_eq!(
        (&found["from"], &found["to"]),
        (&json!("2026-03-09T12:00:00.000000Z"), &json!("2026-03-10T12:00:00.000000Z"))
    );
    assert_eq!(found["positions"], json!(vec![0; 61]));
}

#[tokio::test]
async fn the_default_span_ends_after_the_last_event_and_an_event_at_a_border_is_in_the_later_bucket() {
    let (app, clock) = TestApp::start_at("2026-03-10T12:00:00Z").await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    clock.set(at("2026-03-10T18:00:00Z"));
    app.append("/streams/Order/1", &["C"]).await;
    let found = rates(&app, "?buckets=1").await;
    assert_eq!(
        found,
        json!({"from": "2026-03-09T18:00:00.000001Z", "to": "2026-03-10T18:00:00.000001Z", "positions": [0, 3]})
    );
    let hours = "?from=2026-03-10T11:00:00Z&to=2026-03-10T19:00:00Z&buckets=8";
    assert_eq!(rates(&app, hours).await["positions"], json!([0, 0, 2, 2, 2, 2, 2, 2, 3]));
    // The same bounds as those of the log.
    let of_log = app.get("/events?occurred_from=2026-03-10T12:00:00Z&occurred_to=2026-03-10T18:00:00Z").send().await;
    assert_eq!(of_log.versions(), [1, 2]);
    // `from` alone has its default `to`, and the other way round.
    assert_eq!(rates(&app, "?from=2026-03-10T12:00:00.0000001Z&buckets=1").await["positions"], json!([2, 3]));
    assert_eq!(rates(&app, "?to=2026-03-10T12:00:00Z&buckets=1").await["from"], "2026-03-09T12:00:00.000000Z");
    let head = app.call("HEAD", "/stats/rates").send().await.expect_status(200);
    assert_eq!(head.body.len(), 0);
}

#[tokio::test]
async fn invalid_parameters_are_refused() {
    let (app, _) = TestApp::start_at("2026-03-10T12:00:00Z").await;
    for (query, parameter) in [
        ("from=2026-03-10T12:00:00Z&to=2026-03-10T12:00:00Z", "from"),
        ("from=2026-03-11T00:00:00Z&to=2026-03-10T00:00:00Z", "from"),
        ("from=2026-03-10T12:00:00Z", "from"),
        ("from=yesterday", "from"),
        ("to=", "to"),
        ("buckets=0", "buckets"),
        ("buckets=1001", "buckets"),
        ("aggregate_type=Order", "aggregate_type"),
    ] {
        app.get(&format!("/stats/rates?{query}")).send().await.expect_invalid("parameter", parameter);
    }
    app.get("/stats/rates").header("accept", "text/csv").send().await.expect_problem(406, "not_acceptable");
    assert_eq!(rates(&app, "?buckets=1000").await["positions"].as_array().map(Vec::len), Some(1001));
}

#[tokio::test]
async fn positions_are_exact_in_open_sealed_and_archived_months() {
    let history = History::create().await;
    let times = times(&history.app).await;
    let queries = [
        ("2026-10-01T00:00:00Z", "2027-03-01T00:00:00Z", 151),
        ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", 30),
        ("2026-11-03T08:00:00Z", "2026-11-05T08:00:00Z", 4),
        ("2026-11-03T08:00:00.000003Z", "2026-11-03T08:00:00.000004Z", 1),
        ("2026-11-09T00:00:00Z", "2026-12-02T00:00:00Z", 1000),
        ("2026-12-09T00:00:00Z", "2027-01-09T20:00:00Z", 7),
        ("2027-01-05T00:00:00Z", "2027-01-06T00:00:00Z", 24),
        ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z", 2),
        ("2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z", 2),
    ];
    let check = async |app: &TestApp| {
        for (from, to, buckets) in queries {
            let found = rates(app, &format!("?from={from}&to={to}&buckets={buckets}")).await;
            assert_eq!(found["positions"], json!(expected(&times, from, to, buckets)), "{from} {to} {buckets}");
        }
    };
    check(&history.app).await;
    history.archive().await;
    check(&history.app).await;
    check(&history.replica().await).await;
    history.restore("events_2026_12").await;
    check(&history.app).await;
}

#[tokio::test]
async fn the_gap_at_the_start_of_an_epoch_is_not_counted() {
    let clock = Clock::fixed(at("2026-03-10T00:00:00Z"));
    let (database, folder) = (TestDatabase::create().await, TempDir::new().expect("a folder"));
    let options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
    let app = TestApp::start_with_config(config(&database, &folder), database, options).await;
    app.append("/streams/Order/1", &["E"; 10]).await;
    // The positions 6 to 10 are lost.
    lose_events_after(&app, 5).await;
    clock.set(at("2026-03-11T00:00:00Z"));
    app.append("/streams/Order/2", &["E"; 3]).await;
    // An epoch without a gap, and two that begin at the same position.
    for _ in 0..2 {
        app.app.primary.begin_epoch("a test").await.expect("the epoch begins");
    }
    clock.set(at("2026-04-12T00:00:00Z"));
    app.append("/streams/Order/2", &["E"]).await;
    app.app.primary.begin_epoch("a test").await.expect("the epoch begins");
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    let check = async || {
        let newest_first: Vec<_> = pages_backward(&app, "limit=4").await.iter().map(position).collect();
        assert_eq!(newest_first, [14, 13, 12, 11, 5, 4, 3, 2, 1]);
        let found = rates(&app, "?from=2026-03-10T00:00:00Z&to=2026-03-13T00:00:00Z&buckets=3").await;
        assert_eq!(found["positions"], json!([0, 5, 8, 8]));
        let found = rates(&app, "?from=2026-03-01T00:00:00Z&to=2026-05-01T00:00:00Z&buckets=1").await;
        assert_eq!(found["positions"], json!([0, 9]));
    };
    check().await;
    // The partition with the gap is archived.
    app.app.primary.count_all_events().await.expect("the events are counted");
    let mut archiver = app.archiver().await;
    let plan = archiver.plan(at("2026-05-01T00:00:00Z"), Include::All).await.expect("a plan");
    assert_eq!(plan.partitions.len(), 1);
    for partition in &plan.partitions {
        archiver.archive(partition, &|_| {}).await.expect("the partition is archived");
    }
    archiver.close().await.expect("the archiver ends");
    check().await;
}

#[tokio::test]
async fn every_key_that_may_read_something_gets_the_positions_of_the_whole_log() {
    let app = keys::start().await;
    let all = app.key(&["admin:*"]).await;
    for stream in ["Order/1", "Cart/1"] {
        let call = app.post(&format!("/streams/{stream}"), &events(&["E"]));
        call.header("authorization", &format!("Bearer {all}")).send().await.expect_status(201);
    }
    let reader = app.key(&["read:Order"]).await;
    let found = app.get_as(&reader, "/stats/rates?buckets=1").await.expect_status(200).json();
    assert_eq!(found["positions"], json!([0, 2]));
    let writer = app.key(&["append:*"]).await;
    app.get_as(&writer, "/stats/rates").await.expect_problem(403, "forbidden");
}
