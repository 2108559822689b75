//! Promise P3, P6: a position beyond the head of the log is refused in every representation, so that a reader never
//! skips the events that will get the positions up to it. The ids that the service itself hands out are accepted.

use serde_json::json;

use crate::support::{EventStream, TestApp, within_a_minute};

const REPRESENTATIONS: [&str; 4] =
    ["application/json", "application/x-ndjson", "text/event-stream", "application/cloudevents-batch+json"];

#[tokio::test]
async fn a_cursor_beyond_the_head_is_refused_in_every_representation() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    for accept in REPRESENTATIONS {
        let get = |path: &str| app.get(path).header("accept", accept).send();
        for path in ["/events?after=1:4", "/events?after=1:1000000", "/events?after=1:4&event_type=A"] {
            let problem = get(path).await.expect_problem(409, "epoch_changed");
            assert_eq!((&problem["rewind_to"], &problem["epoch"]), (&json!(3), &json!(1)), "{accept} {path}");
        }
        for path in ["/events?after=4", "/events?after=9007199254740991"] {
            let problem = get(path).await.expect_problem(422, "position_beyond_head");
            assert_eq!(problem["head"], 3, "{accept} {path}");
        }
        // An epoch that this log never had is another history.
        get("/events?after=7:1").await.expect_problem(409, "epoch_changed");
    }
    app.get("/events?after=1:4&wait=20").send().await.expect_problem(409, "epoch_changed");
    app.get("/events?after=4&wait=20").send().await.expect_problem(422, "position_beyond_head");
    let resume = |name: &'static str, cursor: &'static str| {
        app.get("/events?after=0").header(name, cursor).header("accept", "text/event-stream").send()
    };
    resume("last-event-id", "1:4").await.expect_problem(409, "epoch_changed");
    resume("last-event-id", "4").await.expect_problem(422, "position_beyond_head");
    for cursor in ["1:3", "3", "0", "1:0", "head"] {
        app.get(&format!("/events?after={cursor}")).send().await.expect_status(200);
    }
}

#[tokio::test]
async fn a_cursor_of_an_earlier_epoch_is_valid_up_to_the_change_and_to_the_head() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    let epoch = app.app.primary.begin_epoch("a test").await.expect("the epoch begins");
    app.get("/events?after=1:3").send().await.expect_status(200);
    let problem = app.get("/events?after=1:4").send().await.expect_problem(409, "epoch_changed");
    assert_eq!((&problem["rewind_to"], &problem["epoch"]), (&json!(3), &json!(epoch)));
    app.get(&format!("/events?after={epoch}:4")).send().await.expect_problem(409, "epoch_changed");
}

/// The database of the service is replaced by an older copy, and no epoch begins.
#[tokio::test]
async fn a_reader_whose_log_was_put_back_is_rewound_to_the_head() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C", "D", "E"]).await;
    let page = app.get("/events").send().await.json();
    let next = page["next"].as_str().expect("a link").to_owned();
    let mut follower = app.subscribe("/events").await;
    let caught_up = follower.until("caught-up").await.1;
    assert_eq!(caught_up.id, "1:5");

    let mut session = app.database.session().await;
    for statement in [
        "SET session_replication_role = replica",
        "DELETE FROM events WHERE global_position > 2",
        "DELETE FROM event_ids WHERE global_position > 2",
    ] {
        session.run(statement).await;
    }
    let problem = app.get(&next).send().await.expect_problem(409, "epoch_changed");
    assert_eq!(problem["rewind_to"], 2);
    // The open event stream ends, and its last id is refused.
    within_a_minute("the event stream ends", async { while follower.frame().await.is_some() {} }).await;
    let resumed = app.get("/events").header("last-event-id", &caught_up.id).header("accept", "text/event-stream");
    assert_eq!(resumed.send().await.expect_problem(409, "epoch_changed")["rewind_to"], 2);
}

#[tokio::test]
async fn every_id_of_an_event_stream_is_accepted_again() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    app.append("/streams/Order/2", &["A"]).await;
    for path in ["/events", "/events?event_type=none", "/events?after=head", "/streams/Order/1?from_version=9"] {
        let mut stream = app.subscribe(path).await;
        let (events, caught_up) = stream.until("caught-up").await;
        for frame in events.iter().chain([&caught_up]) {
            let resumed = app.get(path).header("last-event-id", &frame.id);
            EventStream::open(resumed).await.until("caught-up").await;
        }
    }
}

/// Scripts that replace the event source of browsers send the last id as a parameter.
#[tokio::test]
async fn the_last_event_id_may_be_a_parameter() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    let mut stream = app.subscribe("/events?after=0&lastEventId=1%3A2").await;
    assert_eq!(stream.event().await.id, "1:3");
    let mut stream = app.subscribe("/streams/Order/1?lastEventId=1").await;
    assert_eq!(stream.event().await.id, "2");
    // The header has precedence, and an empty parameter counts as absent.
    let both = app.get("/events?lastEventId=1:1").header("last-event-id", "1:2");
    assert_eq!(EventStream::open(both).await.event().await.id, "1:3");
    let mut stream = app.subscribe("/events?lastEventId=").await;
    assert_eq!(stream.event().await.id, "1:1");
    let subscribe = |path: &str| app.get(path).header("accept", "text/event-stream").send();
    subscribe("/events?lastEventId=x").await.expect_invalid("parameter", "lastEventId");
    subscribe("/streams/Order/1?lastEventId=1:1").await.expect_invalid("parameter", "lastEventId");
    subscribe("/events?lastEventId=1:9").await.expect_problem(409, "epoch_changed");
    // A page has no last event.
    app.get("/events?lastEventId=1:1").send().await.expect_invalid("parameter", "lastEventId");
}

#[tokio::test]
async fn a_wait_for_a_position_beyond_the_head_is_refused() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let body = json!({"last_processed_position": 1});
    app.call("PUT", "/projections/p").json(&body).send().await.expect_status(201);
    let reply = app.get("/projections/p?wait_for=2&timeout=60").send().await;
    assert_eq!(reply.expect_problem(422, "position_beyond_head")["head"], 1);
    app.get("/projections/p?wait_for=1").send().await.expect_status(200);
}
