//! Months: made ahead, made when missing, rolled up when over; and streams that live on both sides of the line.

use serde_json::json;

use crate::support::{TestApp, at, event_with_id, events, id};

#[tokio::test]
async fn months_are_made_ahead_and_named_for_what_they_hold() {
    let (app, clock) = TestApp::start_at("2026-11-23T10:00:00Z").await;
    let names = "SELECT name FROM partitions ORDER BY starts_at";
    let mut session = app.database.session().await;
    assert_eq!(session.texts(names).await, ["events_2026_11", "events_2026_12", "events_2027_01", "events_2027_02"]);
    clock.set(at("2027-01-01T00:00:00Z"));
    app.app.store.keep_months().await.expect("maintenance runs");
    app.app.store.keep_months().await.expect("maintenance runs twice");
    let all = session.texts(names).await;
    assert_eq!(all.last().map(String::as_str), Some("events_2027_04"));
    let attached = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    assert_eq!(session.number(attached).await, all.len() as i64);
    let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'events_2027_04'::regclass AND indisunique";
    assert_eq!(session.number(indexes).await, 2);
}

#[tokio::test]
async fn a_month_that_is_missing_is_made_when_an_event_arrives() {
    let (app, clock) = TestApp::start_at("2026-11-23T10:00:00Z").await;
    app.append("/streams/Order/1", &["A"]).await;
    clock.set(at("2031-05-06T07:08:09.123456Z"));
    let reply = app.post("/streams/Order/1", &events(&["B"])).if_match(1).send().await.expect_status(201);
    assert_eq!(reply.json()["events"][0]["occurred_at"], "2031-05-06T07:08:09.123456Z");
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2]);
    app.get("/streams/Order/1/2").send().await.expect_status(200);
}

#[tokio::test]
async fn time_never_goes_back_along_the_log() {
    let (app, clock) = TestApp::start_at("2026-12-31T23:59:59.999999Z").await;
    app.append("/streams/Order/1", &["A"]).await;
    clock.set(at("2027-03-01T00:00:00Z"));
    app.append("/streams/Order/1", &["B"]).await;
    clock.set(at("2026-11-01T00:00:00Z"));
    app.append("/streams/Order/2", &["C"]).await;
    clock.set(at("2027-03-01T00:00:01Z"));
    app.append("/streams/Order/2", &["D"]).await;
    let mut session = app.database.session().await;
    let times =
        session.texts("SELECT (occurred_at AT TIME ZONE 'UTC')::text FROM events ORDER BY global_position").await;
    assert_eq!(
        times,
        ["2026-12-31 23:59:59.999999", "2027-03-01 00:00:00", "2027-03-01 00:00:00", "2027-03-01 00:00:01",]
    );
}

#[tokio::test]
async fn a_month_that_is_over_is_rolled_up_once_and_streams_go_on_across_it() {
    let (app, clock) = TestApp::start_at("2026-11-10T00:00:00Z").await;
    app.append("/streams/Order/old", &["A", "B", "C"]).await;
    app.append("/streams/Order/both", &["A", "B"]).await;
    app.post("/streams/Order/known", &event_with_id(&id(1))).send().await.expect_status(201);
    let rolled_up = "SELECT name FROM partitions WHERE rolled_up_at IS NOT NULL ORDER BY 1";
    let mut session = app.database.session().await;

    // Over by the clock, but nothing says so in the log: an event could still come with the last one's time.
    clock.set(at("2026-12-05T00:00:00Z"));
    app.app.store.keep_months().await.expect("maintenance runs");
    assert!(session.texts(rolled_up).await.is_empty());
    app.post("/streams/Order/both", &events(&["C"])).if_match(2).send().await.expect_status(201);
    let turns = "SELECT last_value FROM append_turns";
    let turn = session.number(turns).await;
    app.app.store.keep_months().await.expect("maintenance runs");
    assert_eq!(session.texts(rolled_up).await, ["events_2026_11"]);
    assert_eq!(session.number(turns).await, turn + 1, "who appends is to learn of it");
    let month =
        "SELECT first_position * 10000 + last_position * 100 + events FROM partitions WHERE name = 'events_2026_11'";
    assert_eq!(session.number(month).await, 10606);
    let heads = "SELECT aggregate_id || ' ' || version FROM streams ORDER BY 1";
    assert_eq!(session.texts(heads).await, ["both 2", "known 1", "old 3"]);

    // Both sides of the line: conflicts, appends, replays, reads.
    for (stream, version) in [("old", 3), ("both", 3), ("known", 1)] {
        let path = format!("/streams/Order/{stream}");
        let conflict = app.post(&path, &events(&["X"])).if_match(version - 1).send().await;
        assert_eq!(conflict.expect_problem(412, "version_conflict")["current_version"], version);
        let created = app.post(&path, &events(&["X"])).header("if-none-match", "*").send().await;
        created.expect_problem(412, "version_conflict");
        assert_eq!(app.get(&path).send().await.versions(), (1..=version).collect::<Vec<_>>());
        assert_eq!(app.call("HEAD", &path).send().await.header("etag"), Some(format!("\"{version}\"").as_str()));
        app.get(&format!("{path}/{version}")).send().await.expect_status(200);
        app.post(&path, &events(&["D"])).if_match(version).send().await.expect_status(201);
        assert_eq!(app.get(&path).send().await.versions(), (1..=version + 1).collect::<Vec<_>>());
    }
    app.post("/streams/Order/known", &event_with_id(&id(1))).send().await.expect_status(200);
    app.get(&format!("/events/{}", id(1))).send().await.expect_status(200);
    let list = app.get("/streams/Order").send().await.json();
    let versions: Vec<_> = list["streams"].as_array().expect("streams").iter().map(|s| s["version"].clone()).collect();
    assert_eq!(versions, [json!(4), json!(2), json!(4)]);
    let positions = session.number("SELECT max(global_position) - count(*) FROM events").await;
    assert_eq!(positions, 0);
    app.app.store.keep_months().await.expect("nothing is left to do");
}

#[tokio::test]
async fn a_service_that_does_not_know_of_a_roll_up_reads_right() {
    let (app, clock) = TestApp::start_at("2026-11-10T00:00:00Z").await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    clock.set(at("2026-12-05T00:00:00Z"));
    app.append("/streams/Order/2", &["A"]).await;
    // Another replica rolls November up; this one still looks there.
    let wanted = crate::support::Wanted { clock: clock.clone(), ..Default::default() };
    let other = TestApp::start_on(app.database.clone(), wanted).await;
    for replica in [&app, &other] {
        assert_eq!(replica.get("/streams/Order/1").send().await.versions(), [1, 2]);
        let conflict = replica.post("/streams/Order/1", &events(&["X"])).if_match(1).send().await;
        assert_eq!(conflict.expect_problem(412, "version_conflict")["current_version"], 2);
    }
    other.post("/streams/Order/1", &events(&["C"])).if_match(2).send().await.expect_status(201);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2, 3]);
}

#[tokio::test]
async fn history_is_not_changed_by_hand_without_saying_so() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut session = app.database.session().await;
    let month = session.texts("SELECT name FROM partitions ORDER BY starts_at LIMIT 1").await.remove(0);
    for table in ["events", "event_ids", &month] {
        for sql in
            [format!("UPDATE {table} SET version = 2"), format!("DELETE FROM {table}"), format!("TRUNCATE {table}")]
        {
            let refused = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).execute(&mut session.0).await;
            let error = refused.expect_err(&sql).to_string();
            assert!(error.contains("events are never changed"), "{sql}: {error}");
        }
    }
}

#[tokio::test]
async fn a_roll_up_that_comes_late_sets_nothing_back() {
    let (app, clock) = TestApp::start_at("2026-11-10T00:00:00Z").await;
    for (time, event_type) in [("2026-12-05T00:00:00Z", "B"), ("2027-01-05T00:00:00Z", "C")] {
        app.append("/streams/Order/1", &["A"]).await;
        clock.set(at(time));
        app.append("/streams/Order/1", &[event_type]).await;
    }
    app.app.store.keep_months().await.expect("maintenance runs");
    let mut session = app.database.session().await;
    let head = "SELECT version::bigint FROM streams";
    assert_eq!(session.number(head).await, 3);
    // Another process was stopped in the middle of November, and goes on now.
    let late = include_str!("../../src/store/sql/roll_up_streams.sql");
    sqlx::query(late)
        .bind(at("2026-11-01T00:00:00Z"))
        .bind(at("2026-12-01T00:00:00Z"))
        .bind("")
        .bind("")
        .bind(100i64)
        .fetch_all(&mut session.0)
        .await
        .expect("it runs");
    assert_eq!(session.number(head).await, 3);
    app.post("/streams/Order/1", &events(&["D"])).if_match(4).send().await.expect_status(201);
}
