//! Promise P1, P2, P9: partitions are created in advance or when an event needs one. They are sealed when their month
//! is over. Streams continue across sealed partitions, and times never go backwards.

use serde_json::json;

use crate::support::{TestApp, TestOptions, at, event_with_id, events, id};

#[tokio::test]
async fn partitions_are_created_ahead_and_named_by_their_month() {
    let (app, clock) = TestApp::start_at("2026-11-23T10:00:00Z").await;
    let names = "SELECT name FROM partitions ORDER BY starts_at";
    let mut session = app.database.session().await;
    assert_eq!(session.texts(names).await, ["events_2026_11", "events_2026_12", "events_2027_01", "events_2027_02"]);
    clock.set(at("2027-01-01T00:00:00Z"));
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    app.app.primary.maintain_partitions().await.expect("maintenance runs twice");
    let all = session.texts(names).await;
    assert_eq!(all.last().map(String::as_str), Some("events_2027_04"));
    let attached = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass";
    assert_eq!(session.number(attached).await, all.len() as i64);
    let indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'events_2027_04'::regclass AND indisunique";
    assert_eq!(session.number(indexes).await, 2);
}

#[tokio::test]
async fn a_missing_partition_is_created_by_the_append_that_needs_it() {
    let (app, clock) = TestApp::start_at("2026-11-23T10:00:00Z").await;
    app.append("/streams/Order/1", &["A"]).await;
    clock.set(at("2031-05-06T07:08:09.123456Z"));
    let reply = app.post("/streams/Order/1", &events(&["B"])).if_match(1).send().await.expect_status(201);
    assert_eq!(reply.json()["events"][0]["occurred_at"], "2031-05-06T07:08:09.123456Z");
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2]);
    app.get("/streams/Order/1/2").send().await.expect_status(200);
}

#[tokio::test]
async fn times_never_go_backwards_along_the_log() {
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
async fn a_partition_is_sealed_once_and_streams_continue_across_it() {
    let (app, clock) = TestApp::start_at("2026-11-10T00:00:00Z").await;
    app.append("/streams/Order/old", &["A", "B", "C"]).await;
    app.append("/streams/Order/both", &["A", "B"]).await;
    app.post("/streams/Order/known", &event_with_id(&id(1))).send().await.expect_status(201);
    let sealed = "SELECT name FROM partitions WHERE sealed_at IS NOT NULL ORDER BY 1";
    let mut session = app.database.session().await;

    // By the clock, November is over. The log has no later event, so another event could still have a time in November.
    clock.set(at("2026-12-05T00:00:00Z"));
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    assert!(session.texts(sealed).await.is_empty());
    app.post("/streams/Order/both", &events(&["C"])).if_match(2).send().await.expect_status(201);
    let generation = "SELECT last_value FROM append_generation";
    let before = session.number(generation).await;
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    assert_eq!(session.texts(sealed).await, ["events_2026_11"]);
    assert_eq!(session.number(generation).await, before + 1, "sealing invalidates the caches of writers");
    for (column, value) in [("first_position", 1), ("last_position", 6), ("events", 6)] {
        let of_november = format!("SELECT {column} FROM partitions WHERE name = 'events_2026_11'");
        assert_eq!(session.number(&of_november).await, value, "{column}");
    }
    let heads = "SELECT aggregate_id || ' ' || version FROM streams ORDER BY 1";
    assert_eq!(session.texts(heads).await, ["both 2", "known 1", "old 3"]);

    // Conflicts, reads, appends and replays of streams in the sealed partition, and of one in both partitions.
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
    app.app.primary.maintain_partitions().await.expect("maintenance runs again");
}

#[tokio::test]
async fn a_service_with_an_outdated_catalogue_reads_across_a_sealed_partition() {
    let (app, clock) = TestApp::start_at("2026-11-10T00:00:00Z").await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    clock.set(at("2026-12-05T00:00:00Z"));
    app.append("/streams/Order/2", &["A"]).await;
    // The second replica seals November when it starts. In the cached catalogue of the first one, November is open.
    let options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
    let other = TestApp::start_on(app.database.clone(), options).await;
    for replica in [&app, &other] {
        assert_eq!(replica.get("/streams/Order/1").send().await.versions(), [1, 2]);
        let conflict = replica.post("/streams/Order/1", &events(&["X"])).if_match(1).send().await;
        assert_eq!(conflict.expect_problem(412, "version_conflict")["current_version"], 2);
    }
    other.post("/streams/Order/1", &events(&["C"])).if_match(2).send().await.expect_status(201);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2, 3]);
}

#[tokio::test]
async fn updates_and_deletes_of_events_are_refused() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut session = app.database.session().await;
    let partition = session.texts("SELECT name FROM partitions ORDER BY starts_at LIMIT 1").await.remove(0);
    for table in ["events", "event_ids", &partition] {
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
async fn sealing_a_partition_again_lowers_no_version() {
    let (app, clock) = TestApp::start_at("2026-11-10T00:00:00Z").await;
    for (time, event_type) in [("2026-12-05T00:00:00Z", "B"), ("2027-01-05T00:00:00Z", "C")] {
        app.append("/streams/Order/1", &["A"]).await;
        clock.set(at(time));
        app.append("/streams/Order/1", &[event_type]).await;
    }
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    let mut session = app.database.session().await;
    let head = "SELECT version::bigint FROM streams";
    assert_eq!(session.number(head).await, 3);
    // Another process was suspended while it sealed November, and resumes now.
    let seal_streams = include_str!("../../src/store/sql/seal_streams.sql");
    sqlx::query(seal_streams)
        .bind(at("2026-11-01T00:00:00Z"))
        .bind(at("2026-12-01T00:00:00Z"))
        .bind("")
        .bind("")
        .bind(100i64)
        .fetch_all(&mut session.0)
        .await
        .expect("the statement runs");
    assert_eq!(session.number(head).await, 3);
    app.post("/streams/Order/1", &events(&["D"])).if_match(4).send().await.expect_status(201);
}
