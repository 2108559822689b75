//! Promise P4: a retried append returns the first response and writes nothing. An event id with other content is
//! refused.

use serde_json::{Value, json};

use crate::support::{TestApp, TestDatabase, TestOptions, event_with_id, events, id, migrate_schema};

fn two_events(first: u32) -> Value {
    json!({"events": [
        {"event_id": id(first), "event_type": "A", "event_data": {"x": 1, "y": [2.50]}},
        {"event_id": id(first + 1), "event_type": "B", "event_data": {}, "metadata": {"m": 1}, "correlation_id": id(99)},
    ]})
}

#[tokio::test]
async fn a_replay_returns_the_response_of_the_first_request() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["Before"]).await;
    let first = app.post("/streams/Order/1", &two_events(1)).if_match(1).send().await.expect_status(201);
    app.append("/streams/Order/1", &["After"]).await;
    for precondition in [("if-match", "\"1\""), ("if-match", "\"7\""), ("if-none-match", "*"), ("x-none", "")] {
        let call = app.post("/streams/Order/1", &two_events(1)).header(precondition.0, precondition.1);
        let again = call.send().await.expect_status(200);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        for header in ["etag", "location"] {
            assert_eq!(again.header(header), first.header(header));
        }
        assert_eq!(again.json(), first.json());
    }
    assert_eq!(first.header("idempotent-replayed"), None);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn events_are_compared_as_jsonb() {
    let app = TestApp::start().await;
    app.post("/streams/Order/1", &two_events(1)).send().await.expect_status(201);
    let other_text = format!(
        r#"{{"events": [
            {{"event_id": "{}", "event_type": "A", "event_data": {{"y": [25e-1], "x": 1.0}}}},
            {{"event_id": "{}", "event_type": "B", "event_data": {{ }}, "metadata": {{"m":1}}, "correlation_id": "{}"}}]}}"#,
        id(1),
        id(2),
        id(99)
    );
    let call = app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(other_text);
    call.send().await.expect_status(200);
    for (index, member, value) in [
        (0, "event_type", json!("Z")),
        (0, "event_data", json!({"x": 2, "y": [2.5]})),
        (0, "metadata", json!({})),
        (1, "metadata", json!(null)),
        (1, "correlation_id", json!(id(98))),
        (1, "causation_id", json!(id(98))),
    ] {
        let mut changed = two_events(1);
        changed["events"][index][member] = value;
        let problem = app.post("/streams/Order/1", &changed).send().await.expect_problem(409, "event_id_reused");
        assert_eq!(problem["known_event_ids"], json!([id(1), id(2)]), "{member}");
    }
}

#[tokio::test]
async fn default_ids_from_headers_are_part_of_the_content() {
    let app = TestApp::start().await;
    let call = || app.post("/streams/Order/1", &event_with_id(&id(1)));
    call().header("x-correlation-id", &id(5)).send().await.expect_status(201);
    call().header("x-correlation-id", &id(5)).send().await.expect_status(200);
    call().send().await.expect_problem(409, "event_id_reused");
}

#[tokio::test]
async fn known_event_ids_that_are_not_a_replay_are_refused() {
    let app = TestApp::start().await;
    app.post("/streams/Order/1", &two_events(1)).send().await.expect_status(201);
    app.append("/streams/Order/1", &["Between"]).await;
    app.post("/streams/Order/1", &two_events(3)).send().await.expect_status(201);
    let events_with = |ids: &[u32]| -> Value {
        let all: Vec<Value> = [two_events(1), two_events(3)]
            .iter()
            .flat_map(|body| body["events"].as_array().expect("events").clone())
            .collect();
        let pick = |n: &u32| match all.get(*n as usize - 1) {
            Some(event) => event.clone(),
            None => json!({"event_id": id(*n), "event_type": "New", "event_data": 1}),
        };
        json!({"events": ids.iter().map(pick).collect::<Vec<_>>()})
    };
    // The ids belong to another stream.
    app.post("/streams/Order/2", &events_with(&[1, 2])).send().await.expect_problem(409, "event_id_reused");
    // The last event alone is a replay. Another order, a gap or a new event is not.
    app.post("/streams/Order/1", &events_with(&[2])).send().await.expect_status(200);
    for ids in [&[2, 1][..], &[2, 3], &[1, 3], &[1, 2, 7], &[7, 1]] {
        let problem = app
            .post("/streams/Order/1", &events_with(ids))
            .if_match(99)
            .send()
            .await
            .expect_problem(409, "event_partly_known");
        let known: Vec<_> = ids.iter().filter(|n| **n != 7).map(|n| id(*n)).collect();
        assert_eq!(problem["known_event_ids"], json!(known));
        assert_eq!(problem["expected_version"], 99);
    }
    assert_eq!(app.get("/streams/Order/1").send().await.versions().len(), 5);
    app.get("/streams/Order/2").send().await.expect_problem(404, "stream_not_found");
}

#[tokio::test]
async fn the_event_id_of_a_refused_request_can_be_used_again() {
    let app = TestApp::start().await;
    app.post("/streams/Order/1", &event_with_id(&id(1)))
        .if_match(4)
        .send()
        .await
        .expect_problem(412, "version_conflict");
    app.post("/streams/Order/1", &event_with_id(&id(1))).if_match(0).send().await.expect_status(201);
}

#[tokio::test]
async fn an_idempotency_key_determines_the_event_ids() {
    let app = TestApp::start().await;
    let call = |stream: &str, key: &str| {
        app.post(&format!("/streams/Order/{stream}"), &events(&["A", "B"])).header("idempotency-key", key)
    };
    let first = call("1", "\"key 1\"").send().await.expect_status(201).json();
    let again = call("1", "key 1").send().await.expect_status(200);
    assert_eq!(again.json(), first);
    assert_eq!(
        uuid::Uuid::parse_str(first["events"][0]["event_id"].as_str().expect("an id"))
            .expect("a UUID")
            .get_version_num(),
        5
    );
    call("2", "key 1").send().await.expect_status(201);
    call("1", "\"key \\\"2\\\"\"").send().await.expect_status(201);
    let other = app.post("/streams/Order/1", &events(&["A", "C"])).header("idempotency-key", "key 1");
    other.send().await.expect_problem(409, "event_id_reused");
    let longer = app.post("/streams/Order/1", &events(&["A", "B", "C"])).header("idempotency-key", "key 1");
    longer.send().await.expect_problem(409, "event_partly_known");
    for key in ["\"\"", "\"open", "in\"side", "\"bad \\escape\"", &"k".repeat(256)] {
        call("1", key).send().await.expect_invalid("header", "Idempotency-Key");
    }
    call("3", &"k".repeat(255)).send().await.expect_status(201);
}

#[tokio::test]
async fn derived_ids_depend_on_a_secret_that_no_client_and_no_reader_can_see() {
    let derived = async |app: &TestApp| {
        let call = app.post("/streams/Order/1", &events(&["A"])).header("idempotency-key", "key");
        call.send().await.expect_status(201).json()["events"][0]["event_id"].clone()
    };
    let one = TestApp::start().await;
    let first = derived(&one).await;
    // Other tests copy a database, with its secret. This store makes a secret of its own.
    let empty = TestDatabase::create_empty().await;
    migrate_schema(&empty.config()).await;
    let other = TestApp::start_on(empty, TestOptions::default()).await;
    assert_ne!(first, derived(&other).await, "two stores have two secrets");

    // Every process of one store derives the same id.
    let second_process = TestApp::start_on(one.database.clone(), TestOptions::default()).await;
    let call = second_process.post("/streams/Order/1", &events(&["A"])).header("idempotency-key", "key");
    assert_eq!(call.send().await.expect_status(200).json()["events"][0]["event_id"], first);

    let mut session = one.database.session().await;
    session.run("SET ROLE annals_reader").await;
    sqlx::query("SELECT id_namespace FROM store_secrets").fetch_all(&mut session.0).await.expect_err("it is a secret");
}
