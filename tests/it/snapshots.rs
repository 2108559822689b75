//! Promise P7: snapshots that clients store, and loads. A load returns the same aggregate with a snapshot, without a
//! snapshot, and with a damaged or outdated snapshot.

use serde_json::{Value, json};

use crate::support::{Call, TestApp, at, events};

async fn with_stream(count: usize) -> TestApp {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &vec!["E"; count]).await;
    app
}

fn put(app: &TestApp, body: &Value) -> Call {
    app.call("PUT", "/snapshots/Order/1").json(body)
}

fn versions(load: &Value) -> Vec<u64> {
    let events = load["events"].as_array().expect("events");
    events.iter().map(|event| event["version"].as_u64().expect("a version")).collect()
}

#[tokio::test]
async fn a_load_returns_the_snapshot_and_the_events_after_it() {
    let app = with_stream(10).await;
    let all = app.get("/aggregates/Order/1").send().await.expect_status(200);
    assert_eq!((all.header("etag"), all.header("cache-control")), (Some("\"10\""), Some("no-cache")));
    let load = all.json();
    assert_eq!((&load["aggregate_type"], &load["aggregate_id"]), (&json!("Order"), &json!("1")));
    assert_eq!((&load["version"], &load["snapshot"], &load["next"]), (&json!(10), &Value::Null, &Value::Null));
    assert_eq!(versions(&load), (1..=10).collect::<Vec<_>>());
    assert_eq!(load["events"][2], app.get("/streams/Order/1/3").send().await.json());

    let stored = put(&app, &json!({"version": 7, "state": {"n": 12345678901234567890_u64}})).send().await;
    assert_eq!(stored.header("etag"), Some("\"7\""));
    let stored = stored.expect_status(201).json();
    assert_eq!((&stored["version"], &stored["revision"], stored.get("state")), (&json!(7), &Value::Null, None));
    let load = app.get("/aggregates/Order/1").send().await.expect_status(200);
    assert!(load.text().contains("{\"n\": 12345678901234567890}"), "every digit is returned: {}", load.text());
    let load = load.json();
    assert_eq!((&load["snapshot"]["version"], &load["snapshot"]["created_at"]), (&json!(7), &stored["created_at"]));
    assert_eq!(versions(&load), [8, 9, 10]);
    assert_eq!(versions(&app.get("/aggregates/Order/1?snapshot=ignore").send().await.json()).len(), 10);
    // After a snapshot of the head, a load has no events.
    put(&app, &json!({"version": 10, "state": null})).send().await.expect_status(200);
    let load = app.get("/aggregates/Order/1").send().await.json();
    assert_eq!((versions(&load), &load["snapshot"]["state"]), (vec![], &Value::Null));
    for (series, value) in [
        ("annals_aggregate_loads_total{snapshot=\"hit\"}", 2.0),
        ("annals_aggregate_loads_total{snapshot=\"miss\"}", 2.0),
        ("annals_aggregate_load_duration_seconds_count{snapshot=\"hit\"}", 2.0),
        ("annals_snapshots_written_total", 2.0),
        ("annals_snapshots_ignored_total", 0.0),
    ] {
        assert_eq!(app.metric(series).await, value, "{series}");
    }
}

#[tokio::test]
async fn a_load_returns_304_404_and_errors() {
    let app = with_stream(3).await;
    let load = |path: &'static str| app.get(path);
    load("/aggregates/Order/1").header("if-none-match", "\"3\"").send().await.expect_status(304);
    load("/aggregates/Order/1").header("if-none-match", "\"2\"").send().await.expect_status(200);
    let head = app.call("HEAD", "/aggregates/Order/1").send().await.expect_status(200);
    assert_eq!((head.header("etag"), head.body.len()), (Some("\"3\""), 0));
    load("/aggregates/Order/2").send().await.expect_problem(404, "stream_not_found");
    load("/aggregates/Order/2").header("if-none-match", "\"3\"").send().await.expect_problem(404, "stream_not_found");
    load("/aggregates/Order/1?snapshot=no").send().await.expect_invalid("parameter", "snapshot");
    load("/aggregates/Order/1?revision=").send().await.expect_invalid("parameter", "revision");
    load("/aggregates/Order/1?x=1").send().await.expect_invalid("parameter", "x");
    load("/aggregates/Order/1?min_position=9").send().await.expect_problem(503, "replica_behind");
    load("/aggregates/Order/1").header("accept", "text/csv").send().await.expect_problem(406, "not_acceptable");
}

#[tokio::test]
async fn a_snapshot_is_stored_read_replaced_and_deleted() {
    let app = with_stream(10).await;
    app.get("/snapshots/Order/1").send().await.expect_problem(404, "snapshot_not_found");
    put(&app, &json!({"version": 5, "state": [1], "revision": "a"})).send().await.expect_status(201);
    let read = app.get("/snapshots/Order/1").send().await.expect_status(200);
    assert_eq!(read.header("etag"), Some("\"5\""));
    assert_eq!((&read.json()["state"], &read.json()["revision"]), (&json!([1]), &json!("a")));
    // Within a revision, only the same or a later version replaces the stored snapshot. A snapshot of another revision
    // always replaces it.
    let stale = put(&app, &json!({"version": 4, "state": 1, "revision": "a"})).send().await;
    assert_eq!(stale.expect_problem(409, "snapshot_stale")["snapshot_version"], 5);
    put(&app, &json!({"version": 5, "state": [1], "revision": "a"})).send().await.expect_status(200);
    put(&app, &json!({"version": 3, "state": 3, "revision": "b"})).send().await.expect_status(200);
    for (query, hit) in [("", true), ("?revision=b", true), ("?revision=a", false)] {
        let load = app.get(&format!("/aggregates/Order/1{query}")).send().await.json();
        assert_eq!(load["snapshot"] != Value::Null, hit, "{query}");
        assert_eq!(versions(&load).len(), if hit { 7 } else { 10 });
    }
    assert_eq!(app.metric("annals_snapshots_ignored_total").await, 1.0);
    let beyond = put(&app, &json!({"version": 11, "state": 1})).send().await;
    assert_eq!(beyond.expect_problem(422, "version_beyond_head")["current_version"], 10);
    for (body, pointer) in [
        (json!({"version": 0, "state": 1}), "/version"),
        (json!({"version": "1", "state": 1}), "/version"),
        (json!({"state": 1}), ""),
        (json!({"version": 1}), ""),
        (json!({"version": 1, "state": 1, "revision": ""}), "/revision"),
        (json!({"version": 1, "state": 1, "x": 1}), "/x"),
    ] {
        put(&app, &body).send().await.expect_invalid("pointer", pointer);
    }
    let nul = app.call("PUT", "/snapshots/Order/1").header("content-type", "application/json");
    let nul = nul.body(r#"{"version": 1, "state": {"a": "\u0000"}}"#).send().await;
    assert_eq!(nul.expect_problem(422, "invalid_event_data")["pointer"], "/state/a");
    let missing = app.call("PUT", "/snapshots/Order/2").json(&json!({"version": 1, "state": 1}));
    missing.send().await.expect_problem(404, "stream_not_found");
    app.call("DELETE", "/snapshots/Order/1").send().await.expect_status(204);
    app.call("DELETE", "/snapshots/Order/1").send().await.expect_problem(404, "snapshot_not_found");
}

#[tokio::test]
async fn a_damaged_snapshot_is_ignored() {
    let app = with_stream(10).await;
    let plain = app.get("/aggregates/Order/1").send().await.json();
    let mut session = app.database.session().await;
    for damage in [
        "UPDATE snapshots SET version = 11",
        "UPDATE snapshots SET version = 4",
        "UPDATE snapshots SET state = '2'",
        "UPDATE snapshots SET checksum = ''",
        "UPDATE snapshots SET occurred_at = occurred_at + interval '1 second'",
        "UPDATE snapshots SET revision = 'x'",
        "UPDATE snapshots SET aggregate_id = '1', checksum = sha256('x')",
    ] {
        put(&app, &json!({"version": 5, "state": 1})).send().await;
        session.run(damage).await;
        assert_eq!(app.get("/aggregates/Order/1").send().await.expect_status(200).json(), plain, "{damage}");
        // A new snapshot replaces the damaged one, even if the damaged one has a higher version.
        put(&app, &json!({"version": 3, "state": 3})).send().await.expect_status(200);
        assert_eq!(versions(&app.get("/aggregates/Order/1").send().await.json()), (4..=10).collect::<Vec<_>>());
        app.call("DELETE", "/snapshots/Order/1").send().await.expect_status(204);
    }
    assert_eq!(app.metric("annals_snapshots_ignored_total").await, 7.0);
}

#[tokio::test]
async fn a_load_reads_several_partitions_and_links_to_the_rest() {
    let (app, clock) = TestApp::start_at("2026-01-10T00:00:00Z").await;
    for month in 1..=10 {
        clock.set(at(&format!("2026-{month:02}-10T00:00:00Z")));
        app.append("/streams/Order/1", &["E"; 20]).await;
    }
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    put(&app, &json!({"version": 30, "state": 1})).send().await.expect_status(201);
    let load = app.get("/aggregates/Order/1").send().await.json();
    assert_eq!(versions(&load), (31..=200).collect::<Vec<_>>());
    app.append("/streams/Order/1", &vec!["E"; 900]).await;
    let load = app.get("/aggregates/Order/1?snapshot=ignore").send().await.json();
    assert_eq!(versions(&load), (1..=1_100).collect::<Vec<_>>());

    // The stream has more events than one load returns.
    for _ in 0..10 {
        app.append("/streams/Order/1", &vec!["E"; 1_000]).await;
    }
    let reply = app.get("/aggregates/Order/1?snapshot=ignore").send().await;
    let load = reply.json();
    assert_eq!((versions(&load).len(), &load["version"]), (10_000, &json!(11_100)));
    assert_eq!(load["next"], "/streams/Order/1?from_version=10001&limit=1000");
    assert!(reply.header("link").is_some_and(|link| link.contains("rel=\"next\"")));
    let rest = app.get(load["next"].as_str().expect("next")).send().await.expect_status(200);
    assert_eq!(rest.versions()[0], 10_001);
    // A load of large events ends earlier.
    let large = "x".repeat(900 * 1024);
    for _ in 0..12 {
        let body = json!({"events": [{"event_type": "Large", "event_data": large}]});
        app.post("/streams/Order/2", &body).send().await.expect_status(201);
    }
    let load = app.get("/aggregates/Order/2").send().await.json();
    assert!((9..12).contains(&versions(&load).len()));
    assert!(load["next"].is_string());
    app.post("/streams/Order/2", &events(&["E"])).send().await.expect_status(201);
}
