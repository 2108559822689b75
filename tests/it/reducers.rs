//! Promise P7: reducers. The current state and the states at a version and at a time equal a full replay of the events,
//! even if snapshots are damaged or deleted. Snapshots are created automatically.

use serde_json::{Value, json};

use crate::support::{Call, TestApp, TestDatabase, TestOptions, at, pause_between_polls, within_a_minute};

fn put(app: &TestApp, body: &Value) -> Call {
    app.call("PUT", "/reducers/Order").json(body)
}

async fn with_reducer(every: u32) -> TestApp {
    let app = TestApp::start().await;
    put(&app, &json!({"language": "merge-patch", "snapshot_every": every})).send().await.expect_status(201);
    app
}

/// Appends events with these data to an order.
async fn append(app: &TestApp, id: &str, data: &[Value]) -> Value {
    let events: Vec<_> = data.iter().map(|data| json!({"event_type": "Changed", "event_data": data})).collect();
    app.post(&format!("/streams/Order/{id}"), &json!({ "events": events })).send().await.expect_status(201).json()
}

async fn state(app: &TestApp, path: &str) -> Value {
    app.get(&format!("/aggregates/Order/{path}")).send().await.expect_status(200).json()
}

/// Waits until a snapshot of this version is stored.
async fn snapshot_of(app: &TestApp, id: &str, version: u64) -> Value {
    within_a_minute("the snapshot is stored", async {
        loop {
            let reply = app.get(&format!("/snapshots/Order/{id}")).send().await;
            if reply.status == 200 && reply.json()["version"] == version {
                return reply.json();
            }
            pause_between_polls().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_reducer_is_registered_listed_replaced_and_deleted() {
    let app = TestApp::start().await;
    app.get("/reducers/Order").send().await.expect_problem(404, "reducer_not_found");
    let made = put(&app, &json!({"language": "merge-patch"})).send().await.expect_status(201).json();
    assert_eq!(
        (&made["language"], &made["snapshot_every"], &made["source"]),
        (&json!("merge-patch"), &json!(100), &json!(""))
    );
    // A second request with the same reducer changes nothing. Another reducer gets an unused revision.
    let same =
        put(&app, &json!({"language": "merge-patch", "snapshot_every": 100})).send().await.expect_status(200).json();
    assert_eq!(same, made);
    let other =
        put(&app, &json!({"language": "merge-patch", "snapshot_every": 50})).send().await.expect_status(200).json();
    assert!(other["revision"].as_i64() > made["revision"].as_i64());
    assert_eq!(app.get("/reducers/Order").send().await.json(), other);
    assert_eq!(app.get("/reducers").send().await.json(), json!({"reducers": [other]}));
    app.call("DELETE", "/reducers/Order").send().await.expect_status(204);
    app.call("DELETE", "/reducers/Order").send().await.expect_problem(404, "reducer_not_found");
    let again = put(&app, &json!({"language": "merge-patch"})).send().await.expect_status(201).json();
    assert!(again["revision"].as_i64() > other["revision"].as_i64());

    for (body, pointer) in [
        (json!({"language": "cobol"}), "/language"),
        (json!({}), ""),
        (json!({"language": "merge-patch", "snapshot_every": 0}), "/snapshot_every"),
        (json!({"language": "merge-patch", "snapshot_every": 10001}), "/snapshot_every"),
        (json!({"language": "merge-patch", "x": 1}), "/x"),
    ] {
        put(&app, &body).send().await.expect_invalid("pointer", pointer);
    }
    let sourced = put(&app, &json!({"language": "merge-patch", "source": "x"})).send().await;
    assert_eq!(sourced.expect_problem(422, "invalid_reducer")["line"], 1);
}

#[tokio::test]
async fn the_current_state_and_states_at_a_version_and_at_a_time_are_returned() {
    let (app, clock) = TestApp::start_at("2026-03-01T00:00:00Z").await;
    put(&app, &json!({"language": "merge-patch"})).send().await.expect_status(201);
    append(&app, "1", &[json!({"status": "placed", "total": 12345678901234567890123_u128.to_string()})]).await;
    clock.set(at("2026-03-02T00:00:00Z"));
    append(&app, "1", &[json!({"status": "paid", "by": {"card": 1}}), json!({"by": {"card": null, "bank": 2}})]).await;
    let now = state(&app, "1/state").await;
    assert_eq!(now["state"], json!({"status": "paid", "total": "12345678901234567890123", "by": {"bank": 2}}));
    assert_eq!((&now["version"], &now["occurred_at"]), (&json!(3), &json!("2026-03-02T00:00:00.000000Z")));
    assert_eq!((&now["snapshot_version"], &now["events_folded"]), (&Value::Null, &json!(3)));
    assert_eq!(state(&app, "1/state?version=2").await["state"]["by"], json!({"card": 1}));
    for (time, version) in [
        ("2026-03-01T00:00:00Z", 1),
        ("2026-03-01T23:59:59.999999Z", 1),
        ("2026-03-02T00:00:00Z", 3),
        ("2030-01-01T00:00:00Z", 3),
    ] {
        assert_eq!(state(&app, &format!("1/state?at={time}")).await["version"], version, "{time}");
    }
    let get = |path: &'static str| app.get(path).send();
    get("/aggregates/Order/1/state?at=2026-02-28T00:00:00Z").await.expect_problem(404, "event_not_found");
    get("/aggregates/Order/1/state?version=4").await.expect_problem(404, "event_not_found");
    get("/aggregates/Order/2/state").await.expect_problem(404, "stream_not_found");
    get("/aggregates/Order/1/state?version=1&at=2026-03-01T00:00:00Z").await.expect_invalid("parameter", "at");
    get("/aggregates/Order/1/state?version=0").await.expect_invalid("parameter", "version");
    get("/aggregates/Order/1/state?at=now").await.expect_invalid("parameter", "at");
    app.append("/streams/Invoice/1", &["E"]).await;
    get("/aggregates/Invoice/1/state").await.expect_problem(409, "no_reducer");
    get("/aggregates/Invoice/2/state").await.expect_problem(404, "stream_not_found");
}

#[tokio::test]
async fn a_snapshot_is_stored_when_an_append_crosses_the_interval() {
    let app = with_reducer(50).await;
    let patches = |from: usize, to: usize| (from..=to).map(|n| json!({"n": n})).collect::<Vec<_>>();
    let appended = append(&app, "1", &patches(1, 48)).await;
    assert_eq!(appended["snapshot_due"], false);
    // From 48 to 53 events the append crosses 50. The client need not store a snapshot.
    let appended = append(&app, "1", &patches(49, 53)).await;
    assert_eq!(appended["snapshot_due"], false);
    let snapshot = snapshot_of(&app, "1", 50).await;
    assert_eq!(snapshot["state"], json!({"n": 50}));
    let now = state(&app, "1/state").await;
    assert_eq!(
        (&now["snapshot_version"], &now["events_folded"], &now["state"]),
        (&json!(50), &json!(3), &json!({"n": 53}))
    );
    // A load uses the snapshot. The state at an earlier version does not use it.
    assert_eq!(state(&app, "1").await["snapshot"]["version"], 50);
    let before = state(&app, "1/state?version=49").await;
    assert_eq!((&before["snapshot_version"], &before["state"]), (&Value::Null, &json!({"n": 49})));
    // A client may not store a snapshot. Without the reducer, clients store snapshots again, and the snapshot of the
    // reducer is ignored.
    let of_client = app.call("PUT", "/snapshots/Order/1").json(&json!({"version": 1, "state": 1}));
    of_client.send().await.expect_problem(409, "reducer_exists");
    app.call("DELETE", "/reducers/Order").send().await.expect_status(204);
    assert_eq!(state(&app, "1").await["snapshot"], Value::Null);
    assert_eq!(append(&app, "1", &patches(54, 110)).await["snapshot_due"], true);
    assert_eq!(app.metric("annals_snapshots_written_total").await, 1.0);
}

#[tokio::test]
async fn a_load_of_many_events_triggers_a_snapshot() {
    let app = TestApp::start().await;
    let patches: Vec<_> = (1..=120).map(|n| json!({"n": n})).collect();
    append(&app, "1", &patches).await;
    append(&app, "2", &patches).await;
    put(&app, &json!({"language": "merge-patch", "snapshot_every": 50})).send().await.expect_status(201);
    assert_eq!(state(&app, "1/state").await["snapshot_version"], Value::Null);
    assert_eq!(snapshot_of(&app, "1", 100).await["state"], json!({"n": 100}));
    assert_eq!(state(&app, "2").await["snapshot"], Value::Null);
    snapshot_of(&app, "2", 100).await;
    assert_eq!(state(&app, "2").await["snapshot"]["version"], 100);
    // Snapshots of a replaced reducer are ignored at once, and stored again.
    put(&app, &json!({"language": "merge-patch", "snapshot_every": 60})).send().await.expect_status(200);
    assert_eq!(state(&app, "1/state").await["snapshot_version"], Value::Null);
    snapshot_of(&app, "1", 120).await;
    assert_eq!(state(&app, "1/state").await["events_folded"], 0);
}

#[tokio::test]
async fn a_failed_reducer_is_reported_with_the_event_and_affects_no_append() {
    let app = with_reducer(2).await;
    let large = "x".repeat(600 * 1024);
    append(&app, "1", &[json!({"a": large})]).await;
    append(&app, "1", &[json!({"b": large})]).await;
    append(&app, "1", &[json!({"b": null})]).await;
    let failed = app.get("/aggregates/Order/1/state").send().await.expect_problem(422, "reducer_failed");
    assert_eq!((&failed["version"], &failed["global_position"]), (&json!(2), &json!(2)));
    assert_eq!(state(&app, "1/state?version=1").await["version"], 1);
    within_a_minute("the snapshotter has also failed", async {
        while app.metric("annals_reducer_failures_total").await < 2.0 {
            pause_between_polls().await;
        }
    })
    .await;
    app.get("/snapshots/Order/1").send().await.expect_problem(404, "snapshot_not_found");
}

#[tokio::test]
async fn a_reducer_test_stores_nothing() {
    let app = TestApp::start().await;
    let test = |body: Value| app.post("/reducers/Order/test", &body).send();
    append(&app, "1", &[json!({"a": 1}), json!({"a": null, "b": 2})]).await;
    let on_stream = test(json!({"language": "merge-patch", "aggregate_id": "1"})).await.expect_status(200).json();
    assert_eq!(
        on_stream["states"],
        json!([{"version": 1, "event_type": "Changed", "state": {"a": 1}}, {"version": 2, "event_type": "Changed", "state": {"b": 2}}])
    );
    let events = json!([{"event_type": "X", "event_data": {"n": 1}}, {"event_type": "Y", "event_data": [1]}]);
    let sent = test(json!({"language": "merge-patch", "events": events})).await.expect_status(200).json();
    assert_eq!((&sent["states"][0]["state"], &sent["states"][1]["state"]), (&json!({"n": 1}), &json!([1])));
    test(json!({"language": "merge-patch", "aggregate_id": "2"})).await.expect_problem(404, "stream_not_found");
    test(json!({"language": "merge-patch"})).await.expect_invalid("pointer", "/events");
    test(json!({"language": "merge-patch", "events": []})).await.expect_invalid("pointer", "/events");
    test(json!({"language": "merge-patch", "events": [{"event_type": "X"}]}))
        .await
        .expect_invalid("pointer", "/events/0/event_data");
    app.get("/reducers/Order").send().await.expect_problem(404, "reducer_not_found");
}

#[tokio::test]
async fn two_replicas_with_one_reducer_return_the_same_states() {
    let database = TestDatabase::create().await;
    let replicas = [
        TestApp::start_on(database.clone(), TestOptions::default()).await,
        TestApp::start_on(database, TestOptions::default()).await,
    ];
    let put_on =
        |n: usize, every: u32| put(&replicas[n], &json!({"language": "merge-patch", "snapshot_every": every})).send();
    put_on(0, 5).await.expect_status(201);
    // The other replica reads the reducer within its refresh interval.
    within_a_minute("the other replica has the reducer", async {
        while replicas[1].app.snapshotter.reducer("Order").is_none() {
            pause_between_polls().await;
        }
    })
    .await;
    for n in 1..=60_usize {
        append(&replicas[n % 2], "1", &[json!({"n": n}), json!({format!("k{}", n % 3): n})]).await;
        if n % 20 == 0 {
            put_on(n / 20 % 2, 5 + n as u32 / 20).await.expect_status(200);
        }
        let states = [state(&replicas[0], "1/state").await, state(&replicas[1], "1/state").await];
        assert_eq!(states[0]["state"], states[1]["state"]);
        assert_eq!(states[0]["state"]["n"], n);
    }
    // The last interval is 8.
    snapshot_of(&replicas[0], "1", 120).await;
}

/// A simple implementation of RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let members = target.as_object_mut().expect("an object");
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[tokio::test]
async fn every_load_and_state_equals_a_full_replay_even_if_snapshots_are_damaged() {
    let app = with_reducer(7).await;
    let mut session = app.database.session().await;
    let mut state_of_random = 11_u64;
    let mut random = move |below: u64| {
        state_of_random =
            state_of_random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state_of_random >> 33) % below
    };
    let mut histories: Vec<Vec<Value>> = vec![Vec::new(); 4];
    let mut hits = 0;
    for round in 0..150_u64 {
        let n = random(4) as usize;
        let patches: Vec<Value> = (0..1 + random(6))
            .map(|_| match random(8) {
                0 => json!(random(100)),
                1 => json!({format!("k{}", random(4)): null}),
                2 => json!([random(3)]),
                _ => json!({format!("k{}", random(4)): {format!("m{}", random(3)): random(1_000), "gone": null}}),
            })
            .collect();
        append(&app, &n.to_string(), &patches).await;
        histories[n].extend(patches);
        // Sometimes the snapshots are damaged or deleted, or the reducer is replaced.
        match random(16) {
            0 => session.run("UPDATE snapshots SET state = '{\"wrong\": true}'").await,
            1 => session.run("UPDATE snapshots SET version = version + 3").await,
            2 => session.run("UPDATE snapshots SET reducer = reducer + 1").await,
            3 => session.run("DELETE FROM snapshots").await,
            4 => {
                let every = 3 + round % 5;
                put(&app, &json!({"language": "merge-patch", "snapshot_every": every})).send().await.expect_status(200);
            }
            _ => {}
        }
        let n = random(4) as usize;
        if histories[n].is_empty() {
            continue;
        }
        // Most rounds read the current version, for which a snapshot can be used.
        let length = histories[n].len();
        let version = if random(3) > 0 { length } else { 1 + random(length as u64) as usize };
        let mut expected = json!({});
        histories[n][..version].iter().for_each(|patch| merge(&mut expected, patch));
        let folded = state(&app, &format!("{n}/state?version={version}")).await;
        assert_eq!(folded["state"], expected, "order {n} at version {version}");
        hits += u32::from(folded["snapshot_version"].is_number());
        // The events of a load are folded onto its snapshot.
        let load = state(&app, &n.to_string()).await;
        let mut loaded = if load["snapshot"].is_null() { json!({}) } else { load["snapshot"]["state"].clone() };
        load["events"].as_array().expect("events").iter().for_each(|event| merge(&mut loaded, &event["event_data"]));
        let mut all = json!({});
        histories[n].iter().for_each(|patch| merge(&mut all, patch));
        assert_eq!(loaded, all, "order {n}");
    }
    assert!(hits > 10, "only {hits} states used a snapshot");
    assert!(app.metric("annals_snapshots_ignored_total").await > 0.0);
}
