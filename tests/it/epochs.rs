//! Epochs: a log that may have lost its end says so to every cursor that leads beyond.

use serde_json::json;

use crate::support::{TestApp, Wanted};

async fn with_events(count: usize) -> TestApp {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &vec!["E"; count]).await;
    app
}

#[tokio::test]
async fn a_cursor_of_an_older_epoch_is_good_up_to_the_point_of_change() {
    let app = with_events(10).await;
    assert_eq!(app.app.store.begin_epoch("a restore").await.expect("it begins"), 2);
    app.append("/streams/Order/1", &["After"]).await;
    let page = app.get("/events?after=1:10").send().await.expect_status(200).json();
    assert_eq!((&page["epoch"], &page["events"][0]["global_position"]), (&json!(2), &json!(11)));
    assert_eq!(page["next"], "/events?after=2:11");
    for accept in
        ["application/json", "application/x-ndjson", "text/event-stream", "application/cloudevents-batch+json"]
    {
        let refused = app.get("/events?after=1:11").header("accept", accept).send().await;
        let refused = refused.expect_problem(409, "epoch_changed");
        assert_eq!((&refused["rewind_to"], &refused["epoch"]), (&json!(10), &json!(2)));
    }
    // Who does not say an epoch takes the risk; who says one that is not known is told so.
    app.get("/events?after=11").send().await.expect_status(200);
    app.get("/events?after=3:1").send().await.expect_invalid("parameter", "after");
    // A third one begins further back than the second: what counts is the earliest change since.
    app.app.store.begin_epoch("another").await.expect("it begins");
    app.get("/events?after=1:11").send().await.expect_problem(409, "epoch_changed");
    app.get("/events?after=2:11").send().await.expect_status(200);
    app.get("/events?after=2:12").send().await.expect_problem(409, "epoch_changed");
}

#[tokio::test]
async fn another_timeline_or_cluster_begins_an_epoch_before_the_first_append() {
    let app = with_events(5).await;
    assert_eq!(app.get("/events?after=head").send().await.json()["epoch"], 1);
    let mut session = app.database.session().await;
    // As a standby that was promoted, or a restored dump, finds the table: the last epoch is of another origin.
    session.run("UPDATE epochs SET origin = '1/00000001'").await;
    let second = TestApp::start_on(app.database.clone(), Wanted::default()).await;
    second.append("/streams/Order/1", &["OnTheNewTimeline"]).await;
    let page = second.get("/events?after=1:5").send().await.expect_status(200).json();
    assert_eq!((&page["epoch"], &page["events"][0]["global_position"]), (&json!(2), &json!(6)));
    second.get("/events?after=1:6").send().await.expect_problem(409, "epoch_changed");
    let reason = session.texts("SELECT reason FROM epochs WHERE epoch = 2").await;
    assert!(reason[0].starts_with("the log has moved from 1/00000001 to "), "{reason:?}");
    // The next connection finds nothing to do.
    let third = TestApp::start_on(app.database.clone(), Wanted::default()).await;
    third.append("/streams/Order/1", &["E"]).await;
    assert_eq!(session.number("SELECT count(*) FROM epochs").await, 2);
}

#[tokio::test]
async fn who_follows_is_taken_into_a_new_epoch_or_sent_away_from_a_lost_end() {
    let app = with_events(5).await;
    let mut stream = app.follow("/events?after=0").await;
    let (events, _) = stream.until("caught-up").await;
    assert_eq!(events.last().map(|event| event.id.clone()), Some("1:5".to_owned()));
    app.app.store.begin_epoch("nothing was lost").await.expect("it begins");
    app.append("/streams/Order/1", &["E"]).await;
    assert_eq!(stream.event().await.id, "2:6");
    // The log is cut behind what was handed out: as after a failover to a standby that had not got the last event.
    app.database.session().await.run("INSERT INTO epochs (epoch, first_position, reason) VALUES (3, 6, 'lost')").await;
    app.append("/streams/Order/2", &["E"]).await;
    while let Some(frame) = stream.frame().await {
        assert!(!frame.event.is_empty() || frame.data.is_empty(), "{frame:?}");
    }
    let again = app.get("/events").header("accept", "text/event-stream").header("last-event-id", "2:6").send().await;
    assert_eq!(again.expect_problem(409, "epoch_changed")["rewind_to"], 5);
    let mut rewound = app.follow("/events?after=3:5").await;
    assert_eq!(rewound.event().await.id, "3:6");
}
