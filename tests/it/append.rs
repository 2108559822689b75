//! Promise P1, P2, P3, P9: `POST /streams/{type}/{id}` stores events as they were sent, assigns versions and positions
//! without a gap and times that never go backwards, and refuses invalid requests as a whole.

use serde_json::{Value, json};

use crate::support::{TestApp, event_with_id, events, id};

#[tokio::test]
async fn a_first_event_begins_a_stream() {
    let app = TestApp::start().await;
    let reply =
        app.post("/streams/Order/ord-1", &events(&["OrderPlaced", "OrderPaid"])).send().await.expect_status(201);
    assert_eq!(reply.header("etag"), Some("\"2\""));
    assert_eq!(reply.header("location"), Some("/streams/Order/ord-1/1"));
    let body = reply.json();
    let events = body["events"].as_array().expect("events");
    assert_eq!(body["aggregate_type"], "Order");
    assert_eq!(body["aggregate_id"], "ord-1");
    assert_eq!((&body["version"], &body["first_version"]), (&json!(2), &json!(1)));
    assert_eq!(body["global_position"], 2);
    assert_eq!((&body["snapshot_due"], &body["epoch"]), (&json!(false), &json!(1)));
    assert_eq!(events.len(), 2);
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["version"], n + 1);
        assert_eq!(event["global_position"], n + 1);
        let event_id = event["event_id"].as_str().expect("an id");
        assert_eq!(uuid::Uuid::parse_str(event_id).expect("a UUID").get_version_num(), 7);
        let occurred_at = event["occurred_at"].as_str().expect("a time");
        assert!(occurred_at.len() == 27 && occurred_at.ends_with('Z'), "{occurred_at}");
    }
}

#[tokio::test]
async fn versions_and_positions_have_no_gap_over_many_streams_and_conflicts() {
    let app = TestApp::start().await;
    for round in 0..10u64 {
        app.append("/streams/Order/a", &["One", "Two"]).await;
        app.append(&format!("/streams/Order/b{round}"), &["One"]).await;
        app.post("/streams/Order/a", &events(&["Refused"]))
            .if_match(1)
            .send()
            .await
            .expect_problem(412, "version_conflict");
    }
    let mut session = app.database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, 30);
    assert_eq!(session.number("SELECT max(global_position) - min(global_position) + 1 FROM events").await, 30);
    assert_eq!(session.number("SELECT max(version)::bigint FROM events WHERE aggregate_id = 'a'").await, 20);
    assert_eq!(
        session
            .number(
                "SELECT count(*) FROM event_ids JOIN events USING (event_id, version, global_position, occurred_at)"
            )
            .await,
        30
    );
    let disorder = "SELECT count(*) FROM (SELECT occurred_at < lag(occurred_at) OVER (ORDER BY global_position) AS back
                      FROM events) AS times WHERE back";
    assert_eq!(session.number(disorder).await, 0);
}

#[tokio::test]
async fn an_event_is_returned_as_it_was_sent() {
    let app = TestApp::start().await;
    let sent = json!({"events": [{
        "event_id": id(1),
        "event_type": "order/placed ✓",
        "event_data": {"text": "tab\t\"quoted\" \u{1F600} \u{0001}", "list": [1, 2.5, null, true], "deep": {"a": {}}},
        "metadata": {"user": "ann"},
        "correlation_id": id(2),
        "causation_id": id(3),
    }]});
    app.post("/streams/Ordre%20%C3%A9t%C3%A9/a%3Fb%23c", &sent).send().await.expect_status(201);
    let page = app.get("/streams/Ordre%20%C3%A9t%C3%A9/a%3Fb%23c").send().await.expect_status(200).json();
    let event = &page["events"][0];
    for member in ["event_id", "event_type", "event_data", "metadata", "correlation_id", "causation_id"] {
        assert_eq!(event[member], sent["events"][0][member], "{member}");
    }
    assert_eq!(event["aggregate_type"], "Ordre été");
    assert_eq!(event["aggregate_id"], "a?b#c");
}

#[tokio::test]
async fn every_digit_of_a_payload_is_preserved() {
    let app = TestApp::start().await;
    let numbers = "[9007199254740993, 9007199254740993.10, 0.1000, 12345678901234567890123456789012345678.25]";
    let body = format!(r#"{{"events": [{{"event_type": "Counted", "event_data": {numbers}}}]}}"#);
    let call =
        app.call("POST", "/streams/Count/1").header("content-type", "application/json; charset=utf-8").body(body);
    call.send().await.expect_status(201);
    let text = app.get("/streams/Count/1").send().await.text();
    assert!(text.contains(&format!("\"event_data\":{numbers}")), "{text}");
    for scalar in ["\"text\"", "0", "false", "[]"] {
        let body = format!(r#"{{"events": [{{"event_type": "Any", "event_data": {scalar}, "metadata": null}}]}}"#);
        let call = app.call("POST", "/streams/Count/1").header("content-type", "application/json").body(body);
        call.send().await.expect_status(201);
    }
}

#[tokio::test]
async fn headers_set_the_default_correlation_and_causation_ids() {
    let app = TestApp::start().await;
    let body = json!({"events": [
        {"event_type": "A", "event_data": 1},
        {"event_type": "B", "event_data": 1, "correlation_id": id(9), "causation_id": null},
    ]});
    let call = app.post("/streams/Order/1", &body).header("x-correlation-id", &id(7)).header("x-causation-id", &id(8));
    call.send().await.expect_status(201);
    let page = app.get("/streams/Order/1").send().await.json();
    assert_eq!(
        (&page["events"][0]["correlation_id"], &page["events"][0]["causation_id"]),
        (&json!(id(7)), &json!(id(8)))
    );
    assert_eq!(
        (&page["events"][1]["correlation_id"], &page["events"][1]["causation_id"]),
        (&json!(id(9)), &json!(id(8)))
    );
}

#[tokio::test]
async fn a_gateway_may_send_any_text_as_correlation_id() {
    let app = TestApp::start().await;
    let append = |name: &'static str, value: &'static str| {
        app.post("/streams/Order/1", &events(&["A"])).header(name, value).header("x-causation-id", "cause 1").send()
    };
    append("x-correlation-id", "req-77").await.expect_status(201);
    append("x-correlation-id", " req-77 ").await.expect_status(201);
    append("x-correlation-id", "").await.expect_status(201);
    append("x-correlation-id", "00000000000040008000000000000007").await.expect_status(201);
    let page = app.get("/streams/Order/1").send().await.json();
    let correlation_id = |index: usize| page["events"][index]["correlation_id"].clone();
    // The UUIDv5 of the text in the documented namespace.
    assert_eq!(correlation_id(0), "9ac9a1a6-b1a5-573d-ae63-62d18ea77e2a");
    assert_eq!((correlation_id(1), correlation_id(2)), (correlation_id(0), Value::Null));
    assert_eq!(correlation_id(3), id(7));
    assert_eq!(page["events"][0]["causation_id"], page["events"][1]["causation_id"]);
    for (value, found) in [("req-77", 2), ("9ac9a1a6-b1a5-573d-ae63-62d18ea77e2a", 2), ("req-78", 0)] {
        let page = app.get(&format!("/events?correlation_id={value}")).send().await.expect_status(200);
        assert_eq!(page.versions().len(), found, "{value}");
    }
    // In a body, an id that is not a UUID is a mistake.
    let body = json!({"events": [{"event_type": "A", "event_data": 1, "correlation_id": "req-77"}]});
    app.post("/streams/Order/1", &body).send().await.expect_invalid("pointer", "/events/0/correlation_id");
}

#[tokio::test]
async fn a_snapshot_is_due_when_an_append_crosses_a_multiple_of_the_interval() {
    let app = TestApp::start().await;
    let due = async |count: usize| {
        let reply = app.post("/streams/Order/1", &events(&vec!["E"; count])).send().await.expect_status(201);
        reply.json()["snapshot_due"] == true
    };
    assert!(!due(99).await);
    assert!(due(1).await);
    assert!(!due(98).await);
    assert!(due(5).await);
    assert!(due(300).await);
}

#[tokio::test]
async fn a_request_has_at_most_1000_events() {
    let app = TestApp::start().await;
    assert_eq!(app.append("/streams/Order/1", &["E"; 999]).await, 999);
    assert_eq!(app.append("/streams/Order/1", &["E"; 1000]).await, 1999);
    app.post("/streams/Order/1", &events(&["E"; 1001])).send().await.expect_invalid("pointer", "/events");
    assert_eq!(app.append("/streams/Order/1", &["E"]).await, 2000);
}

#[tokio::test]
async fn an_invalid_body_is_refused_with_a_pointer_to_the_fault() {
    let app = TestApp::start().await;
    let with = |member: &str, value: Value| {
        let mut event = json!({"event_type": "E", "event_data": 1});
        event[member] = value;
        json!({"events": [{"event_type": "E", "event_data": 1}, event]})
    };
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"events": []}), "/events"),
        (json!({"events": {}}), "/events"),
        (json!([]), ""),
        (json!({"events": [], "extra": 1}), "/extra"),
        (with("extra", json!(1)), "/events/1/extra"),
        (with("occurred_at", json!("2026-01-01T00:00:00Z")), "/events/1/occurred_at"),
        (with("event_type", json!(5)), "/events/1/event_type"),
        (with("event_type", json!("")), "/events/1/event_type"),
        (with("event_type", json!(" E")), "/events/1/event_type"),
        (with("event_type", json!("E\n")), "/events/1/event_type"),
        (with("event_type", json!("E".repeat(256))), "/events/1/event_type"),
        (with("event_type", json!(null)), "/events/1/event_type"),
        (with("event_data", json!(null)), "/events/1/event_data"),
        (with("event_id", json!("1")), "/events/1/event_id"),
        (with("event_id", json!(7)), "/events/1/event_id"),
        (with("metadata", json!([])), "/events/1/metadata"),
        (with("metadata", json!("m")), "/events/1/metadata"),
        (with("correlation_id", json!("c")), "/events/1/correlation_id"),
        (with("causation_id", json!("c")), "/events/1/causation_id"),
        (json!({"events": [{"event_data": 1}]}), "/events/0/event_type"),
        (json!({"events": [{"event_type": "E"}]}), "/events/0/event_data"),
    ] {
        let reply = app.post("/streams/Order/1", &body).send().await;
        assert_eq!(reply.status, 400, "{body}");
        reply.expect_invalid("pointer", pointer);
    }
    let twice = json!({"events": [
        {"event_id": id(1), "event_type": "E", "event_data": 1},
        {"event_id": id(1), "event_type": "E", "event_data": 1},
    ]});
    app.post("/streams/Order/1", &twice).send().await.expect_invalid("pointer", "/events/1/event_id");
    let raw = |body: &'static [u8]| {
        app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(body)
    };
    for body in
        [&b""[..], b"{", b"nonsense", b"{\"events\": [{\"event_type\": \"E\", \"event_data\": 1}]} x", b"\xff\xfe"]
    {
        raw(body).send().await.expect_invalid("pointer", "");
    }
    let repeated_key = br#"{"events": [{"event_type": "E", "event_type": "F", "event_data": 1}]}"#;
    raw(repeated_key).send().await.expect_problem(400, "invalid_request");
    app.get("/streams/Order/1").send().await.expect_problem(404, "stream_not_found");
}

#[tokio::test]
async fn names_that_a_path_cannot_contain_are_refused() {
    let app = TestApp::start().await;
    let long = "x".repeat(256);
    for (path, place) in [
        ("/streams/Order/a%2Fb".to_owned(), "aggregate_id"),
        ("/streams/a%2Fb/1".to_owned(), "aggregate_type"),
        ("/streams/Order/%00".to_owned(), "aggregate_id"),
        ("/streams/Order/a%0Ab".to_owned(), "aggregate_id"),
        ("/streams/Order/%20a".to_owned(), "aggregate_id"),
        (format!("/streams/Order/{long}"), "aggregate_id"),
        (format!("/streams/{long}/1"), "aggregate_type"),
        ("/streams/Order/%FF".to_owned(), "path"),
    ] {
        app.post(&path, &events(&["E"])).send().await.expect_invalid("path", place);
    }
    app.append(&format!("/streams/Order/{}", "x".repeat(255)), &["E"]).await;
    app.append("/streams/Order/%E6%97%A5%E6%9C%AC", &["E"]).await;
}

#[tokio::test]
async fn json_that_cannot_be_stored_is_refused_and_nothing_is_written() {
    let app = TestApp::start().await;
    let poison = format!("[{}]", vec!["1e131071"; 9000].join(","));
    let expands = format!("[{}]", vec!["1e308"; 8000].join(","));
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    for (data, pointer) in [
        (r#"{"a": {"b": "\u0000"}}"#, "/events/0/event_data/a/b"),
        (r#"["\ud800"]"#, "/events/0/event_data/0"),
        (r#"{"a": 1, "a": 2}"#, "/events/0/event_data/a"),
        ("1e400", "/events/0/event_data"),
        ("12345678901234567890123456789012345678901", "/events/0/event_data"),
        (poison.as_str(), "/events/0/event_data/0"),
        (expands.as_str(), "/events/0/event_data"),
        (deep.as_str(), &format!("/events/0/event_data{}", "/0".repeat(64))),
    ] {
        let body = format!(r#"{{"events": [{{"event_type": "E", "event_data": {data}}}]}}"#);
        let call = app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(body);
        let problem = call.send().await.expect_problem(422, "invalid_event_data");
        assert_eq!(problem["pointer"], pointer);
    }
    let body = r#"{"events": [{"event_type": "E", "event_data": 1, "metadata": {"x": "\u0000"}}]}"#;
    let call = app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(body);
    assert_eq!(call.send().await.expect_problem(422, "invalid_event_data")["pointer"], "/events/0/metadata/x");
    app.get("/streams/Order/1").send().await.expect_problem(404, "stream_not_found");
    let deepest = format!("{}1{}", "[".repeat(64), "]".repeat(64));
    let body = format!(r#"{{"events": [{{"event_type": "E", "event_data": {deepest}}}]}}"#);
    let call = app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(body);
    call.send().await.expect_status(201);
}

#[tokio::test]
async fn a_body_must_be_declared_as_json_and_not_exceed_the_limit() {
    let app = TestApp::start().await;
    let ok = events(&["E"]).to_string();
    app.call("POST", "/streams/Order/1").body(ok.clone()).send().await.expect_problem(415, "unsupported_media_type");
    let plain = app.call("POST", "/streams/Order/1").header("content-type", "text/plain").body(ok.clone());
    plain.send().await.expect_problem(415, "unsupported_media_type");
    let packed = app.post("/streams/Order/1", &events(&["E"])).header("content-encoding", "gzip");
    packed.send().await.expect_problem(415, "unsupported_media_type");
    let spaced = app.call("POST", "/streams/Order/0").header("content-type", "application/json ; charset=utf-8");
    spaced.body(ok.clone()).send().await.expect_status(201);
    let large = format!(r#"{{"events": [{{"event_type": "E", "event_data": "{}"}}]}}"#, "x".repeat(1024 * 1024));
    let declared = app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(large.clone());
    let problem = declared.send().await.expect_problem(413, "payload_too_large");
    assert_eq!(problem["max_bytes"], 1024 * 1024);
    let pieces: Vec<Result<String, std::io::Error>> = vec![Ok(large)];
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let chunked = app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(chunked);
    chunked.send().await.expect_problem(413, "payload_too_large");
    let full = "x".repeat(1024 * 1024 - r#"{"events": [{"event_type": "E", "event_data": ""}]}"#.len());
    let full = format!(r#"{{"events": [{{"event_type": "E", "event_data": "{full}"}}]}}"#);
    let full = app.call("POST", "/streams/Order/1").header("content-type", "application/json").body(full);
    full.send().await.expect_status(201);
}

#[tokio::test]
async fn errors_are_reported_in_the_documented_order() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["E"]).await;
    let large = "x".repeat(1024 * 1024 + 1);
    // Every part of the first request is wrong. Each following request corrects the fault that was reported.
    let call = |accept: &str, content_type: &str, body: &str, query: &str| {
        app.call("POST", &format!("/streams/Order/1{query}"))
            .header("accept", accept)
            .header("content-type", content_type)
            .header("if-match", "\"7\"")
            .body(body.to_owned())
    };
    call("text/html", "text/plain", &large, "?x=1").send().await.expect_problem(406, "not_acceptable");
    call("*/*", "text/plain", &large, "?x=1").send().await.expect_problem(415, "unsupported_media_type");
    call("*/*", "application/json", &large, "?x=1").send().await.expect_problem(413, "payload_too_large");
    let bad = r#"{"events": [{"event_type": "E", "event_data": "\u0000"}, {"event_type": "E"}]}"#;
    call("*/*", "application/json", bad, "?x=1").send().await.expect_invalid("parameter", "x");
    call("*/*", "application/json", bad, "").send().await.expect_invalid("pointer", "/events/1/event_data");
    let unstorable = r#"{"events": [{"event_type": "E", "event_data": "\u0000"}]}"#;
    call("*/*", "application/json", unstorable, "").send().await.expect_problem(422, "invalid_event_data");
    let fine = event_with_id(&id(1)).to_string();
    call("*/*", "application/json", &fine, "").send().await.expect_problem(412, "version_conflict");
    let undecodable = app.call("POST", "/streams/Order/%FF").header("accept", "text/html").body("x");
    undecodable.send().await.expect_problem(406, "not_acceptable");
    app.call("PUT", "/streams/Order/1").send().await.expect_problem(405, "method_not_allowed");
    app.call("POST", "/stream/Order/1").send().await.expect_problem(404, "route_not_found");
}
