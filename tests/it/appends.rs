//! Promise P2, P4: `POST /appends` writes to several streams in one atomic step. If one precondition fails, nothing is
//! written. A retry returns the first response.

use serde_json::{Value, json};

use crate::support::{TestApp, events, id};

fn append(aggregate_id: &str, expected: Value, ids: &[u32]) -> Value {
    let events: Vec<_> = ids.iter().map(|n| json!({"event_id": id(*n), "event_type": "E", "event_data": n})).collect();
    json!({"aggregate_type": "Account", "aggregate_id": aggregate_id, "expected_version": expected, "events": events})
}

#[tokio::test]
async fn several_streams_are_written_in_one_atomic_step() {
    let app = TestApp::start().await;
    app.append("/streams/Account/a", &["Opened"]).await;
    let body = json!({"appends": [
        append("a", json!(1), &[1, 2]),
        append("b", json!("none"), &[3]),
        append("c", json!(null), &[4]),
        append("d", json!(0), &[5]),
    ]});
    let first = app.post("/appends", &body).send().await.expect_status(201).json();
    let appends = first["appends"].as_array().expect("appends");
    let places: Vec<_> = appends
        .iter()
        .map(|a| {
            (
                a["aggregate_id"].as_str(),
                a["first_version"].as_u64(),
                a["version"].as_u64(),
                a["global_position"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        places,
        [
            (Some("a"), Some(2), Some(3), Some(3)),
            (Some("b"), Some(1), Some(1), Some(4)),
            (Some("c"), Some(1), Some(1), Some(5)),
            (Some("d"), Some(1), Some(1), Some(6)),
        ]
    );
    let times: std::collections::HashSet<_> = appends
        .iter()
        .flat_map(|a| a["events"].as_array().expect("events"))
        .map(|e| e["occurred_at"].to_string())
        .collect();
    assert_eq!(times.len(), 1);

    let again = app.post("/appends", &body).send().await.expect_status(200);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json(), first);
    app.post("/appends", &json!({"appends": [append("a", json!("exists"), &[9])]})).send().await.expect_status(201);
}

#[tokio::test]
async fn nothing_is_written_if_one_precondition_fails() {
    let app = TestApp::start().await;
    app.append("/streams/Account/a", &["Opened", "Used"]).await;
    let body = json!({"appends": [
        append("a", json!(0), &[1]),
        append("b", json!("none"), &[2]),
        append("c", json!("exists"), &[3]),
        append("a2", json!(0), &[4]),
    ]});
    let problem = app.post("/appends", &body).send().await.expect_problem(409, "version_conflict");
    assert_eq!(
        problem["conflicts"],
        json!([
            {"aggregate_type": "Account", "aggregate_id": "a", "expected_version": 0, "current_version": 2},
            {"aggregate_type": "Account", "aggregate_id": "c", "expected_version": "exists", "current_version": 0},
        ])
    );
    let exists = json!({"appends": [append("a", json!("none"), &[1])]});
    let problem = app.post("/appends", &exists).send().await.expect_problem(409, "version_conflict");
    assert_eq!(problem["conflicts"][0]["expected_version"], "none");
    app.get("/streams/Account/b").send().await.expect_problem(404, "stream_not_found");
    assert_eq!(app.append("/streams/Account/z", &["E"]).await, 1);
    assert_eq!(app.get("/streams/Account/z").send().await.json()["events"][0]["global_position"], 3);
}

#[tokio::test]
async fn a_replay_is_all_or_nothing() {
    let app = TestApp::start().await;
    app.post("/appends", &json!({"appends": [append("a", json!(0), &[1]), append("b", json!(0), &[2])]}))
        .send()
        .await
        .expect_status(201);
    let partly = json!({"appends": [append("a", json!(0), &[1]), append("c", json!(0), &[3])]});
    let problem = app.post("/appends", &partly).send().await.expect_problem(409, "event_partly_known");
    assert_eq!(problem["known_event_ids"], json!([id(1)]));
    let crossed = json!({"appends": [append("a", json!(0), &[2]), append("b", json!(0), &[1])]});
    app.post("/appends", &crossed).send().await.expect_problem(409, "event_id_reused");
    app.post("/appends", &json!({"appends": [append("b", json!(7), &[2])]})).send().await.expect_status(200);
}

#[tokio::test]
async fn idempotency_keys_and_default_ids_apply_to_each_stream() {
    let app = TestApp::start().await;
    let one =
        |id: &str| json!({"aggregate_type": "A", "aggregate_id": id, "events": [{"event_type": "E", "event_data": 1}]});
    let body = json!({"appends": [one("1"), one("2")]});
    let call = || app.post("/appends", &body).header("idempotency-key", "k").header("x-correlation-id", &id(4));
    let first = call().send().await.expect_status(201).json();
    assert_ne!(first["appends"][0]["events"][0]["event_id"], first["appends"][1]["events"][0]["event_id"]);
    assert_eq!(call().send().await.expect_status(200).json(), first);
    // A key is scoped to its stream, on both routes that append.
    let single = app.post("/streams/A/1", &events(&["E"])).header("idempotency-key", "k");
    single.send().await.expect_problem(409, "event_id_reused");
    assert_eq!(app.get("/streams/A/2/1").send().await.json()["correlation_id"], id(4));
}

#[tokio::test]
async fn an_invalid_request_is_refused_with_a_pointer_to_the_fault() {
    let app = TestApp::start().await;
    let many = |count: usize| -> Value {
        json!({"appends": (0..count).map(|n| append(&format!("s{n}"), json!(0), &[n as u32])).collect::<Vec<_>>()})
    };
    let mut unknown = append("a", json!(0), &[1]);
    unknown["extra"] = json!(1);
    let mut unnamed = append("a", json!(0), &[1]);
    unnamed["aggregate_id"] = json!("a/b");
    let thousand: Vec<u32> = (0..1000).collect();
    for (body, pointer) in [
        (json!({"appends": []}), "/appends"),
        (many(101), "/appends"),
        (json!({"appends": [append("a", json!(0), &[])]}), "/appends/0/events"),
        (json!({"appends": [append("a", json!(0), &thousand), append("b", json!(0), &[1000])]}), "/appends/1/events"),
        (json!({"appends": [append("a", json!(0), &[1]), append("a", json!(0), &[2])]}), "/appends/1"),
        (
            json!({"appends": [append("a", json!(0), &[1]), append("b", json!(0), &[1])]}),
            "/appends/1/events/0/event_id",
        ),
        (json!({"appends": [append("a", json!("some"), &[1])]}), "/appends/0/expected_version"),
        (json!({"appends": [append("a", json!(-1), &[1])]}), "/appends/0/expected_version"),
        (json!({"appends": [unknown]}), "/appends/0/extra"),
        (json!({"appends": [unnamed]}), "/appends/0/aggregate_id"),
        (json!({}), ""),
    ] {
        app.post("/appends", &body).send().await.expect_invalid("pointer", pointer);
    }
    app.post("/appends", &many(100)).send().await.expect_status(201);
    app.post("/appends", &many(1)).if_match(1).send().await.expect_invalid("header", "If-Match");
    app.post("/appends?x=1", &many(1)).send().await.expect_invalid("parameter", "x");
    app.post("/appends", &many(1)).header("accept", "text/html").send().await.expect_problem(406, "not_acceptable");
    app.call("POST", "/appends").body("{}").send().await.expect_problem(415, "unsupported_media_type");
    let nul = r#"{"appends": [{"aggregate_type": "A", "aggregate_id": "1", "events": [{"event_type": "E", "event_data": "\u0000"}]}]}"#;
    let call = app.call("POST", "/appends").header("content-type", "application/json").body(nul);
    assert_eq!(
        call.send().await.expect_problem(422, "invalid_event_data")["pointer"],
        "/appends/0/events/0/event_data"
    );
}
