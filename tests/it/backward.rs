//! Promise P3, P6: reads of the log backward return the newest events first and miss none, over all months and epochs.
//! `log.rs` compares them with a simple model of the filters, and `archive.rs` before and after archiving.

use std::time::Duration;

use annals::store::log::scan::ScanLimits;
use annals::subscriptions::feed::FeedLimits;
use serde_json::{Value, json};

use crate::epochs::lose_events_after;
use crate::support::{TestApp, TestOptions, at};

pub fn position(event: &Value) -> i64 {
    event["global_position"].as_i64().expect("a position")
}

fn positions(page: &Value) -> Vec<i64> {
    page["events"].as_array().expect("events").iter().map(position).collect()
}

/// Reads all pages backward. Returns their events, the newest first.
pub async fn pages_backward(app: &TestApp, query: &str) -> Vec<Value> {
    let mut path = format!("/events?direction=backward&{query}");
    let (mut events, mut before) = (Vec::new(), i64::MAX);
    loop {
        let page = app.get(&path).send().await.expect_status(200).json();
        events.extend(page["events"].as_array().expect("events").iter().cloned());
        let next_before = page["next_before"].as_i64().expect("a position");
        assert!(next_before < before, "the cursor does not move: {path}");
        before = next_before;
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(before, 1, "the last page ends at the beginning");
    events
}

#[tokio::test]
async fn pages_lead_from_the_head_to_the_first_event() {
    let app = TestApp::start().await;
    let empty = app.get("/events?direction=backward").send().await.expect_status(200);
    assert_eq!(empty.header("link"), None);
    assert_eq!(empty.json(), json!({"events": [], "next_before": 1, "head": 0, "epoch": 1, "next": null}));
    app.append("/streams/Order/1", &["A", "B", "C", "D", "E"]).await;
    app.append("/streams/Order/2", &["A", "B"]).await;

    let first = app.get("/events?direction=backward&limit=3").send().await.expect_status(200);
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    let next = "/events?direction=backward&before=1:5&limit=3";
    assert_eq!(first.header("link"), Some(format!("<{next}>; rel=\"next\"").as_str()));
    let page = first.json();
    assert_eq!(positions(&page), [7, 6, 5]);
    assert_eq!(
        (&page["next_before"], &page["head"], &page["epoch"], &page["next"]),
        (&json!(5), &json!(7), &json!(1), &json!(next))
    );
    // Events that were appended meanwhile do not move a page.
    app.append("/streams/Order/2", &["C"]).await;
    let second = app.get(next).send().await.expect_status(200).json();
    assert_eq!((positions(&second), &second["head"]), (vec![4, 3, 2], &json!(8)));
    let last = app.get(second["next"].as_str().expect("a link")).send().await.expect_status(200).json();
    assert_eq!((positions(&last), &last["next_before"], &last["next"]), (vec![1], &json!(1), &json!(null)));
    // An event is the same on every route.
    assert_eq!(last["events"][0], app.get("/streams/Order/1/1").send().await.json());
    // `before` is exclusive, and the filters are part of the links.
    for (before, seen) in [("8", vec![7, 6]), ("1:8", vec![7, 6]), ("2", vec![1]), ("1", vec![]), ("0", vec![])] {
        let path = format!("/events?direction=backward&limit=2&before={before}");
        assert_eq!(positions(&app.get(&path).send().await.expect_status(200).json()), seen, "{before}");
    }
    let filtered = app.get("/events?direction=backward&limit=1&event_type=A").send().await.json();
    assert_eq!(filtered["next"], "/events?direction=backward&before=1:6&limit=1&event_type=A");
    let rest = app.get("/events?direction=backward&before=1:6&limit=1&event_type=A").send().await.json();
    assert_eq!(positions(&rest), [1]);
    let head = app.call("HEAD", "/events?direction=backward").send().await.expect_status(200);
    assert_eq!((head.header("content-type"), head.body.len()), (Some("application/json"), 0));
    app.get("/events?direction=backward&min_position=9").send().await.expect_problem(503, "replica_behind");
}

#[tokio::test]
async fn invalid_combinations_are_refused() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    for (query, parameter) in [
        ("direction=up", "direction"),
        ("direction=", "direction"),
        ("before=2", "before"),
        ("direction=forward&before=2", "before"),
        ("direction=backward&before=", "before"),
        ("direction=backward&before=head", "before"),
        ("direction=backward&before=-1", "before"),
        ("direction=backward&before=1&before=2", "before"),
        ("direction=backward&after=1", "after"),
        ("direction=backward&after=head", "after"),
        ("direction=backward&wait=1", "wait"),
        ("direction=backward&limit=1001", "limit"),
        ("direction=backward&lastEventId=1:1", "lastEventId"),
        ("direction=backward&aggregate_id=1", "aggregate_id"),
    ] {
        app.get(&format!("/events?{query}")).send().await.expect_invalid("parameter", parameter);
    }
    for accept in ["application/x-ndjson", "text/event-stream", "application/cloudevents-batch+json"] {
        let reply = app.get("/events?direction=backward").header("accept", accept).send().await;
        reply.expect_invalid("parameter", "direction");
        app.call("HEAD", "/events?direction=forward").header("accept", accept).send().await.expect_status(200);
    }
    app.get("/events?direction=backward").header("accept", "text/html").send().await.expect_status(406);
    for (before, status, code) in [
        ("4", 422, "position_beyond_head"),
        ("9007199254740991", 422, "position_beyond_head"),
        ("1:4", 409, "epoch_changed"),
        ("7:1", 409, "epoch_changed"),
    ] {
        let reply = app.get(&format!("/events?direction=backward&before={before}")).send().await;
        reply.expect_problem(status, code);
    }
    assert_eq!(positions(&app.get("/events?direction=forward&after=1").send().await.json()), [2, 3]);
}

#[tokio::test]
async fn a_filtered_page_ends_after_a_bounded_scan_with_its_position() {
    let mut options = TestOptions::default();
    let scan = ScanLimits { first_window: 10, time: Duration::ZERO };
    options.settings.feed = FeedLimits { scan, ..FeedLimits::default() };
    let app = TestApp::start_with(options).await;
    app.append("/streams/Order/1", &["Rare"]).await;
    app.append("/streams/Order/1", &vec!["E"; 94]).await;
    let mut path = "/events?direction=backward&event_type=Rare".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = app.get(&path).send().await.expect_status(200).json();
        pages.push((page["next_before"].as_i64().expect("a position"), positions(&page)));
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    let mut expected: Vec<_> = (1..10).map(|n| (96 - n * 10, vec![])).collect();
    expected.push((1, vec![1]));
    assert_eq!(pages, expected);
}

#[tokio::test]
async fn the_gap_at_the_start_of_an_epoch_is_passed_and_lost_cursors_are_refused() {
    let (app, clock) = TestApp::start_at("2026-03-10T00:00:00Z").await;
    app.append("/streams/Order/1", &["E"; 4]).await;
    clock.set(at("2026-04-10T00:00:00Z"));
    app.append("/streams/Order/1", &["E"; 6]).await;
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    // The positions 6 to 10 are lost, and the next event has position 11.
    let second = lose_events_after(&app, 5).await;
    app.append("/streams/Order/2", &["New"; 2]).await;
    let expected = [12, 11, 5, 4, 3, 2, 1];
    for query in ["limit=100", "limit=1", "limit=2&occurred_from=2026-01-01T00:00:00Z"] {
        let found: Vec<_> = pages_backward(&app, query).await.iter().map(position).collect();
        assert_eq!(found, expected, "{query}");
    }
    let found: Vec<_> = pages_backward(&app, "limit=2&event_type=E").await.iter().map(position).collect();
    assert_eq!(found, [5, 4, 3, 2, 1]);
    // A position without an epoch may be in the gap.
    let page = app.get("/events?direction=backward&before=8&limit=2").send().await.expect_status(200).json();
    assert_eq!(
        (positions(&page), &page["next"]),
        (vec![5, 4], &json!(format!("/events?direction=backward&before={second}:4&limit=2")))
    );
    let lost = app.get("/events?direction=backward&before=1:8").send().await.expect_problem(409, "epoch_changed");
    assert_eq!((&lost["rewind_to"], &lost["epoch"]), (&json!(5), &json!(second)));
    let common = app.get("/events?direction=backward&before=1:5").send().await.expect_status(200).json();
    assert_eq!((positions(&common), &common["epoch"]), (vec![4, 3, 2, 1], &json!(second)));
}

/// The database of the service is replaced by an older copy, and no epoch begins.
#[tokio::test]
async fn a_cursor_beyond_the_head_of_a_log_that_was_put_back_is_refused() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["E"; 6]).await;
    let page = app.get("/events?direction=backward&limit=1").send().await.expect_status(200).json();
    let next = page["next"].as_str().expect("a link").to_owned();
    let mut session = app.database.session().await;
    for statement in [
        "SET session_replication_role = replica",
        "DELETE FROM events WHERE global_position > 2",
        "DELETE FROM event_ids WHERE global_position > 2",
    ] {
        session.run(statement).await;
    }
    assert_eq!(app.get(&next).send().await.expect_problem(409, "epoch_changed")["rewind_to"], 2);
    let reply = app.get("/events?direction=backward&before=3").send().await;
    assert_eq!(reply.expect_problem(422, "position_beyond_head")["head"], 2);
    assert_eq!(positions(&app.get("/events?direction=backward").send().await.expect_status(200).json()), [2, 1]);
}

#[tokio::test]
async fn a_page_of_large_events_ends_at_eight_mebibytes() {
    let app = TestApp::start().await;
    let large = "x".repeat(900 * 1024);
    for _ in 0..12 {
        let body = json!({"events": [{"event_type": "Large", "event_data": large}]});
        app.post("/streams/Order/1", &body).send().await.expect_status(201);
    }
    for filter in ["", "&event_type=Large"] {
        let page = app.get(&format!("/events?direction=backward&limit=1000{filter}")).send().await.expect_status(200);
        assert!(page.body.len() < 9 * 1024 * 1024 + 4096, "{}", page.body.len());
        let first = positions(&page.json());
        assert!((9..12).contains(&first.len()), "{}", first.len());
        let next = page.json()["next"].as_str().expect("a link").to_owned();
        let rest = positions(&app.get(&next).send().await.expect_status(200).json());
        assert_eq!([first, rest].concat(), (1..=12).rev().collect::<Vec<_>>());
    }
}
