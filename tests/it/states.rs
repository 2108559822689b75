//! Promise P7: the states after each event are those that a fold up to each version returns, with every reducer and on
//! every page.

use serde_json::{Value, json};

use crate::support::{TestApp, at};

async fn put(app: &TestApp, reducer: &Value) {
    let reply = app.call("PUT", "/reducers/Order").json(reducer).send().await;
    assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
}

/// Appends events with these data to an order.
async fn append(app: &TestApp, id: &str, data: impl IntoIterator<Item = Value>) {
    let events: Vec<_> = data.into_iter().map(|data| json!({"event_type": "Changed", "event_data": data})).collect();
    app.post(&format!("/streams/Order/{id}"), &json!({ "events": events })).send().await.expect_status(201);
}

/// Reads all pages. Returns the states, and the number of states of each page.
async fn pages(app: &TestApp, path: &str) -> (Vec<Value>, Vec<usize>) {
    let (mut states, mut sizes, mut path) = (Vec::new(), Vec::new(), path.to_owned());
    loop {
        let page = app.get(&path).send().await.expect_status(200).json();
        let of_page = page["states"].as_array().expect("states").clone();
        assert!(!of_page.is_empty(), "{path}");
        sizes.push(of_page.len());
        states.extend(of_page);
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return (states, sizes),
        }
    }
}

#[tokio::test]
async fn each_state_has_its_event() {
    let (app, clock) = TestApp::start_at("2026-03-01T00:00:00Z").await;
    put(&app, &json!({"language": "merge-patch"})).await;
    append(&app, "1", [json!({"status": "placed", "total": 12.50})]).await;
    clock.set(at("2026-03-02T00:00:00Z"));
    append(&app, "1", [json!({"status": "paid"}), json!({"total": null})]).await;
    let events = app.get("/streams/Order/1").send().await.json()["events"].clone();
    let reply = app.get("/aggregates/Order/1/states").send().await.expect_status(200);
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    let state = |n: usize, state: Value| {
        let event = &events[n];
        json!({"version": n + 1, "event_id": event["event_id"], "event_type": "Changed",
            "occurred_at": event["occurred_at"], "state": state})
    };
    let expected = [
        state(0, json!({"status": "placed", "total": 12.50})),
        state(1, json!({"status": "paid", "total": 12.50})),
        state(2, json!({"status": "paid"})),
    ];
    assert_eq!(reply.json(), json!({"aggregate_type": "Order", "aggregate_id": "1", "states": expected, "next": null}));
    for (query, versions) in [
        ("?from_version=2", 1..3),
        ("?to_version=2", 0..2),
        ("?from_version=2&to_version=2", 1..2),
        ("?from_version=3&to_version=9007199254740991", 2..3),
    ] {
        let (states, _) = pages(&app, &format!("/aggregates/Order/1/states{query}")).await;
        assert_eq!(states, expected[versions], "{query}");
    }
    let head = app.call("HEAD", "/aggregates/Order/1/states").send().await.expect_status(200);
    assert_eq!(head.body.len(), 0);
}

#[tokio::test]
async fn errors_are_those_of_a_state() {
    let app = TestApp::start().await;
    put(&app, &json!({"language": "merge-patch"})).await;
    append(&app, "1", [json!({"n": 1}), json!({"n": 2})]).await;
    app.append("/streams/Invoice/1", &["E"]).await;
    let get = |path: &'static str| app.get(path).send();
    get("/aggregates/Order/2/states").await.expect_problem(404, "stream_not_found");
    get("/aggregates/Order/1/states?from_version=3").await.expect_problem(404, "event_not_found");
    get("/aggregates/Order/1/states?from_version=9007199254740991").await.expect_problem(404, "event_not_found");
    get("/aggregates/Invoice/1/states").await.expect_problem(409, "no_reducer");
    get("/aggregates/Invoice/2/states").await.expect_problem(404, "stream_not_found");
    get("/aggregates/Order/1/states?min_position=9").await.expect_problem(503, "replica_behind");
    for (query, parameter) in [
        ("from_version=0", "from_version"),
        ("from_version=2&to_version=1", "from_version"),
        ("to_version=x", "to_version"),
        ("version=1", "version"),
        ("limit=1", "limit"),
    ] {
        app.get(&format!("/aggregates/Order/1/states?{query}")).send().await.expect_invalid("parameter", parameter);
    }
    app.get("/aggregates/Order/1/states").header("accept", "text/html").send().await.expect_status(406);

    // A reducer that fails names the event, and the states before it can be read.
    let source = "({ $any(state, event) { if (event.version === 2) throw new Error('no'); return event.event_data } })";
    put(&app, &json!({"language": "javascript", "source": source})).await;
    let failed = app.get("/aggregates/Order/1/states").send().await.expect_problem(422, "reducer_failed");
    assert_eq!(failed["version"], 2);
    let (states, _) = pages(&app, "/aggregates/Order/1/states?to_version=1").await;
    assert_eq!(states[0]["state"], json!({"n": 1}));
}

#[tokio::test]
async fn states_equal_folds_up_to_each_version() {
    let app = TestApp::start().await;
    append(&app, "1", (1..=40).map(|n| json!({"n": n, (format!("k{}", n % 3)): n}))).await;
    // The second reducer has hidden state, which is lost at each multiple of the interval.
    let hidden = "let hidden = 0;
        ({ $any(state, event) {
            hidden += event.event_data.n; return { hidden, last: state?.hidden ?? null } } })";
    for reducer in [
        json!({"language": "merge-patch", "snapshot_every": 7}),
        json!({"language": "javascript", "source": hidden, "snapshot_every": 7}),
        json!({"language": "javascript", "source": hidden, "snapshot_every": 100}),
    ] {
        put(&app, &reducer).await;
        let (all, _) = pages(&app, "/aggregates/Order/1/states").await;
        assert_eq!(all.len(), 40);
        for version in [1, 6, 7, 8, 13, 14, 15, 39, 40] {
            let one = app.get(&format!("/aggregates/Order/1/state?version={version}")).send().await;
            assert_eq!(all[version - 1]["state"], one.expect_status(200).json()["state"], "{reducer} {version}");
        }
        for (from, to) in [(1, 1), (2, 5), (7, 7), (8, 20), (15, 40), (36, 36), (40, 40)] {
            let path = format!("/aggregates/Order/1/states?from_version={from}&to_version={to}");
            assert_eq!(pages(&app, &path).await.0, all[from - 1..to], "{reducer} {from} {to}");
        }
    }
}

#[tokio::test]
async fn a_page_has_at_most_a_thousand_states() {
    let app = TestApp::start().await;
    put(&app, &json!({"language": "merge-patch", "snapshot_every": 10000})).await;
    for part in 0..3 {
        append(&app, "1", (0..700).map(|n| json!({"n": part * 700 + n + 1}))).await;
    }
    let (states, sizes) = pages(&app, "/aggregates/Order/1/states").await;
    assert_eq!(sizes, [1_000, 1_000, 100]);
    let found: Vec<_> = states.iter().map(|state| &state["state"]["n"]).collect();
    assert_eq!(found, (1..=2_100).collect::<Vec<_>>());
    let page = app.get("/aggregates/Order/1/states?to_version=1500").send().await.json();
    assert_eq!(page["next"], "/aggregates/Order/1/states?from_version=1001&to_version=1500");
    let (_, sizes) = pages(&app, "/aggregates/Order/1/states?from_version=1099&to_version=2098").await;
    assert_eq!(sizes, [1_000]);
    // The events before the range are folded, and do not count.
    let source = "({ init: () => ({ n: 0 }), $any(state) { state.n++; return state } })";
    put(&app, &json!({"language": "javascript", "source": source, "snapshot_every": 10000})).await;
    let (states, sizes) = pages(&app, "/aggregates/Order/1/states?from_version=1050").await;
    assert_eq!(sizes, [1_000, 51]);
    assert_eq!((&states[0]["state"], &states[1_050]["state"]), (&json!({"n": 1_050}), &json!({"n": 2_100})));
}

#[tokio::test]
async fn a_page_ends_at_eight_mebibytes() {
    let app = TestApp::start().await;
    let large = "x".repeat(700 * 1024);
    for n in 1..=14 {
        append(&app, "1", [json!({"n": n, "large": large})]).await;
    }
    let echo = "({ $any: (state, event) => event.event_data })";
    for reducer in [json!({"language": "merge-patch"}), json!({"language": "javascript", "source": echo})] {
        put(&app, &reducer).await;
        let (states, sizes) = pages(&app, "/aggregates/Order/1/states").await;
        let found: Vec<_> = states.iter().map(|state| &state["state"]["n"]).collect();
        assert_eq!(found, (1..=14).collect::<Vec<_>>());
        assert!(sizes.len() == 2 && (11..=13).contains(&sizes[0]), "{sizes:?}");
    }
}
