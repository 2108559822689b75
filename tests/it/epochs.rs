//! Promise P3, P6: epochs. If the log may have lost its end, every cursor beyond the loss gets an error, and no
//! position is reused within an epoch.

use serde_json::{Value, json};

use crate::support::{Session, TestApp, TestOptions, at, events, within_a_minute};

async fn with_events(count: usize) -> TestApp {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &vec!["E"; count]).await;
    app
}

/// Begins an epoch after the last event. Returns the number of the epoch.
async fn begin(app: &TestApp) -> i32 {
    app.app.primary.begin_epoch("a test").await.expect("the epoch begins")
}

/// Deletes the events after a position, like a failover to a standby without the end of the log. Returns the epoch that
/// begins after that position.
pub async fn lose_events_after(app: &TestApp, last: i64) -> i64 {
    let mut session = app.database.session().await;
    session.run("BEGIN").await;
    delete_events_after(&mut session, last).await;
    let epoch = session.number("SELECT begin_epoch('the end was lost')::bigint").await;
    session.run("COMMIT").await;
    epoch
}

/// Deletes the events after a position. No epoch begins, but the caches of writers become invalid.
async fn lose_events_without_an_epoch(app: &TestApp, last: i64) {
    let mut session = app.database.session().await;
    session.run("BEGIN").await;
    delete_events_after(&mut session, last).await;
    session.run("SELECT nextval('append_generation')").await;
    session.run("COMMIT").await;
}

async fn delete_events_after(session: &mut Session, last: i64) {
    let partitions = session.texts("SELECT name FROM partitions ORDER BY starts_at").await;
    for table in partitions.iter().map(String::as_str).chain(["event_ids"]) {
        session.run(&format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await;
        session.run(&format!("DELETE FROM {table} WHERE global_position > {last}")).await;
        session.run(&format!("ALTER TABLE {table} ENABLE TRIGGER USER")).await;
    }
    session
        .run(&format!("UPDATE partitions SET sealed_at = NULL, last_position = NULL WHERE last_position >= {last}"))
        .await;
    session.run("UPDATE streams SET version = 0, last_occurred_at = NULL").await;
}

#[tokio::test]
async fn a_cursor_of_an_older_epoch_is_valid_up_to_the_start_of_the_next_one() {
    let app = with_events(10).await;
    let second = begin(&app).await;
    assert!(second > 100_000_000, "another copy of the log could use the same epoch number: {second}");
    app.append("/streams/Order/1", &["After"]).await;
    let page = app.get("/events?after=1:10").send().await.expect_status(200).json();
    assert_eq!((&page["epoch"], &page["events"][0]["global_position"]), (&json!(second), &json!(11)));
    assert_eq!(page["next"], format!("/events?after={second}:11"));
    for accept in
        ["application/json", "application/x-ndjson", "text/event-stream", "application/cloudevents-batch+json"]
    {
        let refused = app.get("/events?after=1:11").header("accept", accept).send().await;
        let refused = refused.expect_problem(409, "epoch_changed");
        assert_eq!((&refused["rewind_to"], &refused["epoch"]), (&json!(10), &json!(second)));
    }
    // A position without an epoch is not checked. A cursor of an unknown epoch belongs to another history.
    app.get("/events?after=11").send().await.expect_status(200);
    for cursor in ["2000000000:5", "100:5"] {
        let unknown = app.get(&format!("/events?after={cursor}")).send().await.expect_problem(409, "epoch_changed");
        assert_eq!((&unknown["rewind_to"], &unknown["epoch"]), (&json!(0), &json!(second)), "{cursor}");
    }
    // A cursor is valid up to the earliest epoch that began after its own.
    let third = begin(&app).await;
    assert!(third > second);
    app.get("/events?after=1:11").send().await.expect_problem(409, "epoch_changed");
    app.get(&format!("/events?after={second}:11")).send().await.expect_status(200);
    app.get(&format!("/events?after={second}:12")).send().await.expect_problem(409, "epoch_changed");
}

#[tokio::test]
async fn an_append_names_the_epoch_of_its_position() {
    let app = with_events(1).await;
    let append = async || {
        let reply = app.post("/streams/Order/1", &events(&["E", "E"])).send().await.expect_status(201);
        reply.json()["epoch"].as_i64().expect("an epoch")
    };
    assert_eq!(append().await, 1);
    let second = i64::from(begin(&app).await);
    for _ in 0..2 {
        assert_eq!(append().await, second);
        let single = app.post("/streams/Order/2", &events(&["E"])).send().await.expect_status(201).json();
        assert_eq!(single["epoch"], second);
    }
    let body =
        json!({"appends": [{"aggregate_type": "Order", "aggregate_id": "3", "events": events(&["E"])["events"]}]});
    let several = app.post("/appends", &body).send().await.expect_status(201).json();
    assert_eq!(several["appends"][0]["epoch"], second);
    // The writer has served a position that the log has lost: an epoch begins with the next append.
    let last = app.get("/events?after=head").send().await.json()["head"].as_i64().expect("a position");
    lose_events_without_an_epoch(&app, last - 1).await;
    let third = append().await;
    assert!(third > second);
    assert_eq!(app.get("/events?after=head").send().await.json()["epoch"], third);
}

#[tokio::test]
async fn another_timeline_cluster_or_table_begins_an_epoch_before_requests_are_served() {
    let app = with_events(5).await;
    let mut session = app.database.session().await;
    // The last epoch gets another origin, as after a promotion or after a dump was loaded.
    session.run("UPDATE epochs SET origin = '1/00000001/1'").await;
    let second = TestApp::start_on(app.database.clone(), TestOptions::default()).await;
    second.get("/events?after=1:6").send().await.expect_problem(409, "epoch_changed");
    second.append("/streams/Order/1", &["OnTheNewTimeline"]).await;
    let page = second.get("/events?after=1:5").send().await.expect_status(200).json();
    assert_eq!(page["events"][0]["global_position"], 6);
    let reason = session.texts("SELECT reason FROM epochs ORDER BY epoch DESC LIMIT 1").await;
    assert!(reason[0].starts_with("the log has moved from 1/00000001/1 to "), "{reason:?}");
    // The next service begins no epoch.
    let third = TestApp::start_on(app.database.clone(), TestOptions::default()).await;
    third.append("/streams/Order/1", &["E"]).await;
    assert_eq!(session.number("SELECT count(*) FROM epochs").await, 2);
}

#[tokio::test]
async fn an_event_stream_continues_in_a_new_epoch_and_ends_if_its_events_were_lost() {
    let app = with_events(5).await;
    let mut stream = app.subscribe("/events?after=0").await;
    let (events, _) = stream.until("caught-up").await;
    assert_eq!(events.last().map(|event| event.id.clone()), Some("1:5".to_owned()));
    let second = begin(&app).await;
    app.append("/streams/Order/1", &["E"]).await;
    assert_eq!(stream.event().await.id, format!("{second}:6"));
    let third = lose_events_after(&app, 5).await;
    app.append("/streams/Order/2", &["Other"]).await;
    while let Some(frame) = stream.frame().await {
        assert!(!frame.event.is_empty() || frame.data.is_empty(), "{frame:?}");
    }
    let last = format!("{second}:6");
    let again = app.get("/events").header("accept", "text/event-stream").header("last-event-id", &last).send().await;
    assert_eq!(again.expect_problem(409, "epoch_changed")["rewind_to"], 5);
    let mut rewound = app.subscribe(&format!("/events?after={third}:5")).await;
    assert_eq!(rewound.event().await.json()["event_type"], "Other");
}

/// The events before the epoch are still in the ring, which is of the epoch before until the tailer has seen the new one.
#[tokio::test]
async fn an_event_stream_catches_up_in_an_epoch_without_events() {
    let app = with_events(5).await;
    let mut first = app.subscribe("/events?after=0").await;
    first.until("caught-up").await;
    app.append("/streams/Order/1", &["E"]).await;
    first.event().await;
    let second = begin(&app).await;
    let mut late = app.subscribe("/events?after=1:5").await;
    assert_eq!(late.event().await.position(), 6);
    let (events, caught_up) = late.until("caught-up").await;
    assert!(events.is_empty());
    assert_eq!(caught_up.id, format!("{second}:6"));
}

#[tokio::test]
async fn an_event_stream_of_one_stream_ends_if_its_events_were_lost() {
    let app = with_events(20).await;
    let mut stream = app.subscribe("/streams/Order/1").await;
    stream.until("caught-up").await;
    lose_events_after(&app, 15).await;
    app.append("/streams/Order/2", &["E"]).await;
    while stream.frame().await.is_some() {}
    let again = app.get("/streams/Order/1").header("accept", "text/event-stream").header("last-event-id", "20");
    assert_eq!(again.send().await.expect_problem(409, "epoch_changed")["rewind_to"], 15);
}

#[tokio::test]
async fn a_cursor_is_checked_again_if_the_epoch_changes_during_a_long_poll() {
    let app = with_events(20).await;
    // A long poll waits for events after a position that is lost meanwhile.
    let poll = app.get("/events?after=1:20&wait=60").send();
    let lost = async {
        app.wait_for_subscribers(0, 1).await;
        lose_events_after(&app, 10).await;
        // The service never assigns a position that it has served, so the next position is above the cursor.
        app.append("/streams/Order/2", &["E"]).await;
    };
    let (reply, ()) = tokio::join!(poll, lost);
    assert_eq!(reply.expect_problem(409, "epoch_changed")["rewind_to"], 10);
}

#[tokio::test]
async fn ndjson_of_lost_events_ends_with_an_error_line() {
    let app = TestApp::start().await;
    let filler = "x".repeat(8_000);
    let many: Vec<Value> = (0..100).map(|_| json!({"event_type": "E", "event_data": filler})).collect();
    for _ in 0..120 {
        app.post("/streams/Order/1", &json!({ "events": many })).send().await.expect_status(201);
    }
    // The response is larger than all buffers on its way, so the server has not sent all of it.
    let mut response = app.get("/events").header("accept", "application/x-ndjson").open().await;
    let mut text = response.chunk().await.expect("a chunk").expect("the beginning").to_vec();
    lose_events_after(&app, 50).await;
    while let Some(chunk) = within_a_minute("the rest of the response", response.chunk()).await.expect("a chunk") {
        text.extend_from_slice(&chunk);
    }
    let last = String::from_utf8(text).expect("UTF-8").lines().last().expect("a line").to_owned();
    assert!(last.starts_with("{\"error\":") && last.contains("\"code\":\"epoch_changed\""), "{last}");
}

#[tokio::test]
async fn a_cached_catalogue_is_discarded_in_another_epoch() {
    let (app, clock) = TestApp::start_at("2026-03-10T00:00:00Z").await;
    for month in 3..=6 {
        clock.set(at(&format!("2026-{month:02}-10T00:00:00Z")));
        app.append("/streams/Order/1", &["E"; 10]).await;
    }
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    assert_eq!(app.get("/events?after=5&limit=100").send().await.json()["events"].as_array().map(Vec::len), Some(35));
    // The events of sealed partitions are lost, and another service appends events with other times.
    lose_events_after(&app, 5).await;
    let other_clock = annals::clock::Clock::fixed(at("2026-03-11T00:00:00Z"));
    let other =
        TestApp::start_on(app.database.clone(), TestOptions { clock: other_clock, ..TestOptions::default() }).await;
    other.append("/streams/Order/2", &["New"; 12]).await;
    let page = app.get("/events?after=5&limit=100").send().await.expect_status(200).json();
    let types: Vec<&Value> =
        page["events"].as_array().expect("events").iter().map(|event| &event["event_type"]).collect();
    assert_eq!(types, vec![&json!("New"); 12]);
    assert_eq!(page["next_after"], 17);
}
