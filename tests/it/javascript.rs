//! Promise P5, P7: reducers in JavaScript. A state does not depend on where the fold began, and a reducer that fails or
//! loops affects no other request.

use serde_json::{Value, json};

use crate::support::{TestApp, pause_between_polls, within_a_minute};

async fn test(app: &TestApp, source: &str, data: &[Value]) -> crate::support::Reply {
    let events: Vec<_> = data.iter().map(|data| json!({"event_type": "E", "event_data": data})).collect();
    app.post("/reducers/Order/test", &json!({"language": "javascript", "source": source, "events": events}))
        .send()
        .await
}

async fn states(app: &TestApp, source: &str, data: &[Value]) -> Vec<Value> {
    let reply = test(app, source, data).await.expect_status(200).json();
    reply["states"].as_array().expect("states").iter().map(|state| state["state"].clone()).collect()
}

/// A reducer with one handler for all event types.
fn any(body: &str) -> String {
    format!("({{ init: () => ({{ n: 0 }}), $any(state, event) {{ {body} }} }})")
}

#[tokio::test]
async fn handlers_fold_by_event_type() {
    let app = TestApp::start().await;
    let source = "({
        init: () => ({ items: 0, total: 0 }),
        ItemAdded(state, event) { state.items++; state.total += event.event_data.price; return state },
        OrderPaid(state, event) { return { ...state, paid: event.occurred_at, by: event.metadata?.by ?? null, v: event.version } },
        $any(state, event) { state.other = event.event_type; return state } })";
    let put = json!({"language": "javascript", "source": source, "snapshot_every": 3});
    app.call("PUT", "/reducers/Order").json(&put).send().await.expect_status(201);
    let events = json!({"events": [
        {"event_type": "ItemAdded", "event_data": {"price": 10}}, {"event_type": "ItemAdded", "event_data": {"price": 2.5}},
        {"event_type": "constructor", "event_data": 1}, {"event_type": "OrderPaid", "event_data": {}, "metadata": {"by": "ann"}}]});
    let appended = app.post("/streams/Order/1", &events).send().await.expect_status(201).json();
    let state = app.get("/aggregates/Order/1/state").send().await.expect_status(200).json();
    let paid = &appended["events"][3]["occurred_at"];
    // A property that every object inherits is not a handler.
    let expected = json!({"items": 2, "total": 12.5, "other": "constructor", "paid": paid, "by": "ann", "v": 4});
    assert_eq!(state["state"], expected);
    within_a_minute("the snapshot is stored", async {
        while app.get("/snapshots/Order/1").send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
    let state = app.get("/aggregates/Order/1/state").send().await.expect_status(200).json();
    assert_eq!(
        (&state["state"], &state["snapshot_version"], &state["events_folded"]),
        (&expected, &json!(3), &json!(1))
    );
}

#[tokio::test]
async fn a_state_does_not_depend_on_where_the_fold_began() {
    let app = TestApp::start().await;
    // The reducer has a hidden counter, and depends on the order of keys.
    let source = "let hidden = 0;
        ({ init: () => ({ zz: 1, a: 1 }), $any(state, event) {
            hidden++; state['k' + event.version] = hidden; state.first = Object.keys(state)[0]; return state } })";
    let put = json!({"language": "javascript", "source": source, "snapshot_every": 5});
    app.call("PUT", "/reducers/Order").json(&put).send().await.expect_status(201);
    app.append("/streams/Order/1", &["E"; 23]).await;
    let state = async |version: u64| {
        let state = app.get(&format!("/aggregates/Order/1/state?version={version}")).send().await.expect_status(200);
        state.json()
    };
    let mut from_the_first = Vec::new();
    for version in 1..=23 {
        from_the_first.push(state(version).await["state"].clone());
    }
    within_a_minute("the snapshot is stored", async {
        while app.get("/snapshots/Order/1").send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
    for version in 20..=23 {
        let resumed = state(version).await;
        assert_eq!(resumed["snapshot_version"], 20);
        assert_eq!(resumed["state"], from_the_first[version as usize - 1], "version {version}");
    }
}

#[tokio::test]
async fn an_invalid_source_is_refused_with_its_line() {
    let app = TestApp::start().await;
    for (source, line) in [
        ("({ E(state) { return state }", 1),
        ("({\n  E(state) {\n    return state state\n  } })", 3),
        ("42", 1),
        ("[]", 1),
        ("(() => ({}))", 1),
        ("({ E: 1 })", 1),
        ("throw new Error('no')", 1),
        ("for (;;) {}", 1),
        ("({ init() { throw new Error('no') } })", 1),
        ("require('fs')", 1),
        ("import('fs')", 1),
    ] {
        let put = json!({"language": "javascript", "source": source});
        let refused = app.call("PUT", "/reducers/Order").json(&put).send().await;
        assert_eq!(refused.status, 422, "{source}: {}", refused.text());
        if refused.json()["code"] == "invalid_reducer" {
            assert_eq!(refused.json()["line"], line, "{source}: {}", refused.text());
        }
    }
    for body in [json!({"language": "javascript"}), json!({"language": "javascript", "source": " "})] {
        app.call("PUT", "/reducers/Order").json(&body).send().await.expect_invalid("pointer", "/source");
    }
    app.get("/reducers/Order").send().await.expect_problem(404, "reducer_not_found");
}

#[tokio::test]
async fn numbers_that_would_lose_digits_are_passed_as_strings() {
    let app = TestApp::start().await;
    let body = r#"{"language": "javascript", "source": "({ E: (state, event) => event.event_data })", "events": [
        {"event_type": "E", "event_data": [9007199254740993, 0.1, 12345678901234567890.5, 1e3, 9007199254740991]}]}"#;
    let reply =
        app.call("POST", "/reducers/Order/test").header("content-type", "application/json").body(body).send().await;
    let text = reply.expect_status(200).text();
    // White space between the members does not matter.
    let body = "{\"language\": \"javascript\", \"source\": \"({ E: (state, event) => Object.keys(event.event_data) })\", \"events\":
        [{\"event_type\": \"E\", \"event_data\": {\n \"bb\": 1,\r\n \"a\": [\n] } }]}";
    let spread =
        app.call("POST", "/reducers/Order/test").header("content-type", "application/json").body(body).send().await;
    assert_eq!(spread.expect_status(200).json()["states"][0]["state"], json!(["a", "bb"]));
    assert!(text.contains(r#"["9007199254740993",0.1,"12345678901234567890.5",1000,9007199254740991]"#), "{text}");
}

#[tokio::test]
async fn the_sandbox_has_no_clock_no_randomness_and_no_io() {
    let app = TestApp::start().await;
    let names = "['Date', 'performance', 'require', 'process', 'fetch', 'setTimeout', 'WebAssembly', 'std', 'os', 'WeakRef', 'Intl', 'console', 'print']";
    let body = format!("return {{ found: {names}.filter(name => name in globalThis), random: typeof Math.random }}");
    assert_eq!(states(&app, &any(&body), &[json!(1)]).await[0], json!({"found": [], "random": "undefined"}));
    // A fold cannot change the globals of the next one.
    let poison = any("Object.prototype.poison = 1; Array.prototype.push = null; globalThis.left = 1; return state");
    states(&app, &poison, &[json!(1)]).await;
    let clean = any("return { poison: typeof ({}).poison, push: typeof [].push, left: typeof globalThis.left }");
    let expected = json!({"poison": "undefined", "push": "function", "left": "undefined"});
    assert_eq!(states(&app, &clean, &[json!(1)]).await[0], expected);
}

#[tokio::test]
async fn a_reducer_that_fails_affects_no_other_request() {
    let app = TestApp::start().await;
    for (what, body) in [
        ("an endless loop", "for (;;) {}"),
        ("an endless loop that catches every exception", "for (;;) { try { for (;;) {} } catch (e) {} }"),
        ("a loop inside a built-in function", "return Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1)"),
        ("a memory bomb", "const all = []; for (;;) all.push(new Array(1000).fill(state))"),
        ("a string bomb", "let s = 'x'; for (;;) s += s"),
        ("a deep recursion", "const f = () => f() + 1; return f()"),
        ("a regular expression that backtracks", "return /^(a+)+$/.test('a'.repeat(40) + 'b')"),
        (
            "a loop inside a built-in function, in the state",
            "return { toJSON: () => Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1) }",
        ),
        ("a loop in the state", "return { get n() { for (;;) {} } }"),
        ("a long error message", "throw new Error('x'.repeat(1000000))"),
        ("a map", "return new Map([[1, 2]])"),
        ("a throw", "throw new Error('no')"),
        ("a throw of a number", "throw 42"),
        ("nothing returned", "state.n++"),
        ("a function as state", "return () => 1"),
        ("a function in the state", "return { f() {} }"),
        ("a cyclic state", "state.self = state; return state"),
        ("not a number", "return { n: 0 / 0 }"),
        ("infinity", "return { n: 1 / 0 }"),
        ("a bigint", "return { n: 1n }"),
        ("a promise", "return Promise.resolve(1)"),
        ("a state that is too large", "return 'x'.repeat(2 * 1024 * 1024)"),
        ("a lone surrogate", "return '\\ud800'"),
        ("a zero byte", "return '\\u0000'"),
        ("too deep", "let s = 1; for (let n = 0; n < 100; n++) s = [s]; return s"),
    ] {
        let source =
            format!("({{ E: (state, event) => {{ if (event.event_data === 2) {{ {body} }} else return state }} }})");
        let failed = test(&app, &source, &[json!(1), json!(2), json!(3)]).await.expect_problem(422, "reducer_failed");
        assert_eq!((&failed["version"], &failed["global_position"]), (&json!(2), &json!(2)), "{what}: {failed}");
        assert!(failed.to_string().len() < 2_000, "{what}: the reason is short");
        // The next request is served.
        assert_eq!(states(&app, &any("state.n++; return state"), &[json!(1)]).await, [json!({"n": 1})], "{what}");
    }
}

#[tokio::test]
async fn a_test_of_a_reducer_returns_at_most_eight_mebibytes_of_states() {
    let app = TestApp::start().await;
    let data: Vec<Value> = (0..200).map(|n| json!(n)).collect();
    let tested = states(&app, &any("return 'x'.repeat(500000)"), &data).await;
    assert!((15..20).contains(&tested.len()), "{}", tested.len());
}

#[tokio::test]
async fn a_test_of_a_reducer_shows_that_a_snapshot_interval_resets_hidden_variables() {
    let app = TestApp::start().await;
    let source = "let n = 0; ({ $any: (state) => ({ n: ++n }) })";
    let events: Vec<_> = (0..3).map(|_| json!({"event_type": "E", "event_data": 1})).collect();
    let test = json!({"language": "javascript", "source": source, "events": events, "snapshot_every": 2});
    let tested = app.post("/reducers/Order/test", &test).send().await.expect_status(200).json();
    let seen: Vec<&Value> =
        tested["states"].as_array().expect("states").iter().map(|state| &state["state"]["n"]).collect();
    assert_eq!(seen, [&json!(1), &json!(2), &json!(1)]);
    let put = json!({"language": "javascript", "source": "({ init() { throw new Error('no') } })"});
    let refused = app.call("PUT", "/reducers/Order").json(&put).send().await;
    assert_eq!(refused.expect_problem(422, "invalid_reducer")["line"], 1);
}

#[tokio::test]
async fn a_slow_reducer_does_not_delay_other_types() {
    let app = TestApp::start().await;
    let slow = "({ $any(state) { let n = 0; while (n < 1e6) n++; return state } })";
    for (aggregate_type, source) in [("Slow", slow), ("Quick", "({ $any: (state) => state })")] {
        let put = json!({"language": "javascript", "source": source});
        app.call("PUT", &format!("/reducers/{aggregate_type}")).json(&put).send().await.expect_status(201);
        app.append(&format!("/streams/{aggregate_type}/1"), &["E"; 90]).await;
    }
    // The folds of the slow reducer outnumber the workers. The quick reducer is served before all of them are complete.
    let folds = (0..24).map(|_| app.get("/aggregates/Slow/1/state").send());
    let all = futures_util::future::join_all(folds);
    let quick = app.get("/aggregates/Quick/1/state").send();
    match futures_util::future::select(Box::pin(all), Box::pin(quick)).await {
        futures_util::future::Either::Left(_) => panic!("the other type waited for all folds of the slow one"),
        futures_util::future::Either::Right((quick, _)) => quick.expect_status(200),
    };
    app.get("/aggregates/Slow/none/state").send().await.expect_problem(404, "stream_not_found");
}
