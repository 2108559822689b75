//! Promise P2: preconditions of an append. Of several appends with one expected version, one succeeds. Every other
//! append gets the current version and, on request, the events that its client missed.

use serde_json::json;

use crate::support::{TestApp, events};

#[tokio::test]
async fn an_expected_version_is_accepted_once() {
    let app = TestApp::start().await;
    app.post("/streams/Order/1", &events(&["A"])).if_match(0).send().await.expect_status(201);
    let reply = app.post("/streams/Order/1", &events(&["B"])).if_match(1).send().await.expect_status(201);
    assert_eq!(reply.header("etag"), Some("\"2\""));
    let weak = app.post("/streams/Order/1", &events(&["C"])).header("if-match", "W/\"2\"");
    weak.send().await.expect_status(201);
    let reply = app.post("/streams/Order/1", &events(&["D"])).if_match(2).send().await;
    assert_eq!(reply.header("etag"), Some("\"3\""));
    let problem = reply.expect_problem(412, "version_conflict");
    assert_eq!(problem["title"], "Optimistic concurrency check failed");
    assert_eq!((&problem["expected_version"], &problem["current_version"]), (&json!(2), &json!(3)));
    assert!(problem.get("missed_events").is_none());
}

#[tokio::test]
async fn a_stream_can_be_expected_to_exist_or_not() {
    let app = TestApp::start().await;
    let reply = app.post("/streams/Order/1", &events(&["A"])).header("if-match", "*").send().await;
    assert_eq!(reply.header("etag"), Some("\"0\""));
    let problem = reply.expect_problem(412, "version_conflict");
    assert_eq!((&problem["expected_version"], &problem["current_version"]), (&json!("exists"), &json!(0)));
    app.post("/streams/Order/1", &events(&["A"])).header("if-none-match", "*").send().await.expect_status(201);
    app.post("/streams/Order/1", &events(&["B"])).header("if-match", "*").send().await.expect_status(201);
    let problem = app.post("/streams/Order/1", &events(&["C"])).header("if-none-match", "*").send().await;
    let problem = problem.expect_problem(412, "version_conflict");
    assert_eq!((&problem["expected_version"], &problem["current_version"]), (&json!("none"), &json!(2)));
    let never = app.post("/streams/Order/1", &events(&["C"])).header("if-match", "\"9007199254740991\"");
    assert_eq!(
        never.send().await.expect_problem(412, "version_conflict")["expected_version"],
        9_007_199_254_740_991u64
    );
    assert_eq!(app.append("/streams/Order/1", &["C"]).await, 3);
}

#[tokio::test]
async fn malformed_preconditions_are_refused() {
    let app = TestApp::start().await;
    for value in ["1", "\"x\"", "\"1\", \"2\"", "\"1\"x", "\"\"", "\"-1\""] {
        let reply = app.post("/streams/Order/1", &events(&["A"])).header("if-match", value).send().await;
        reply.expect_invalid("header", "If-Match");
    }
    let tag = app.post("/streams/Order/1", &events(&["A"])).header("if-none-match", "\"1\"");
    tag.send().await.expect_invalid("header", "If-None-Match");
    let both = app.post("/streams/Order/1", &events(&["A"])).if_match(1).header("if-none-match", "*");
    both.send().await.expect_invalid("header", "If-None-Match");
}

#[tokio::test]
async fn a_client_that_prefers_representation_gets_the_missed_events() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    let conflict = |version: u64| {
        app.post("/streams/Order/1", &events(&["X"]))
            .if_match(version)
            .header("prefer", "wait=1, return=representation")
    };
    let reply = conflict(1).send().await;
    assert_eq!(reply.header("preference-applied"), Some("return=representation"));
    let problem = reply.expect_problem(412, "version_conflict");
    let types = |problem: &serde_json::Value| -> Vec<String> {
        let missed = problem["missed_events"].as_array().expect("missed events");
        missed.iter().map(|event| event["event_type"].as_str().expect("a type").to_owned()).collect()
    };
    assert_eq!(types(&problem), ["B", "C"]);
    assert_eq!(problem["missed_events_truncated"], false);
    let beyond = conflict(9).send().await.expect_problem(412, "version_conflict");
    assert_eq!((types(&beyond), &beyond["missed_events_truncated"]), (vec![], &json!(false)));

    app.append("/streams/Order/1", &["E"; 120]).await;
    let problem = conflict(0).send().await.expect_problem(412, "version_conflict");
    assert_eq!((types(&problem).len(), &problem["missed_events_truncated"]), (100, &json!(true)));
    let none = app.post("/streams/Order/1", &events(&["X"])).header("if-none-match", "*");
    let problem = none.header("prefer", "return=representation").send().await.expect_problem(412, "version_conflict");
    assert_eq!(types(&problem).len(), 100);
    let exists = app.post("/streams/Order/2", &events(&["X"])).header("if-match", "*");
    let problem = exists.header("prefer", "return=representation").send().await.expect_problem(412, "version_conflict");
    assert_eq!(types(&problem).len(), 0);
}
