//! No promise: statistics, which are counted along the log, equal the result of a scan of all events.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{Session, TestApp, TestOptions, at, events, pause_between_polls, within_a_minute};

/// Appends to streams of several types and sizes. The order of the appends changes the ranking of the largest ones.
async fn append_history(app: &TestApp) {
    for round in 1..=12 {
        for stream in 0..8 {
            // The n-th stream grows in every n-th round, by a different number of events.
            if round % (stream + 1) == 0 {
                let batch: Vec<_> = (0..=stream).map(|n| if n % 2 == 0 { "Even" } else { "Odd" }).collect();
                let kind = ["Order", "Cart", "日本"][stream % 3];
                app.append(&format!("/streams/{kind}/{stream}"), &batch).await;
            }
        }
    }
}

async fn rows(session: &mut Session, sql: &str) -> Vec<Value> {
    session.texts(sql).await.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect()
}

#[tokio::test]
async fn statistics_equal_a_scan_of_all_events() {
    let app = TestApp::start().await;
    append_history(&app).await;
    for (stream, version) in [("Order/0", 5), ("Order/3", 4), ("Cart/1", 1)] {
        let snapshot = json!({"version": version, "state": {}});
        app.call("PUT", &format!("/snapshots/{stream}")).json(&snapshot).send().await.expect_status(201);
    }
    app.call("PUT", "/snapshots/Order/0").json(&json!({"version": 6, "state": {}})).send().await.expect_status(200);
    app.call("DELETE", "/snapshots/Cart/1").send().await.expect_status(204);
    let mut session = app.database.session().await;
    let number = async |session: &mut Session, sql: &str| json!(session.number(sql).await);

    let stats = app.get("/stats").send().await.expect_status(200).json();
    assert_eq!(stats["events"], number(&mut session, "SELECT count(*) FROM events").await);
    assert_eq!(stats["streams"], number(&mut session, "SELECT count(*) FROM streams").await);
    assert_eq!(stats["snapshots"], number(&mut session, "SELECT count(*) FROM snapshots").await);
    assert_eq!((&stats["as_of_position"], &stats["aggregate_types"]), (&stats["head"], &json!(3)));
    let total = "SELECT sum(pg_table_size(t.oid) + pg_indexes_size(t.oid))::bigint FROM pg_class t WHERE t.oid IN (
                     SELECT inhrelid FROM pg_inherits WHERE inhparent = 'events'::regclass)";
    let (reported, measured) = (stats["sizes"]["events"].as_i64().expect("bytes"), session.number(total).await);
    // The measured size includes the free space map and the visibility map.
    assert!(reported > 0 && reported <= measured, "{reported} of {measured}");

    let types = app.get("/stats/aggregate-types").send().await.expect_status(200).json();
    let slow = "SELECT json_build_object(
                    'aggregate_type', e.aggregate_type, 'events', count(*), 'streams', count(DISTINCT e.aggregate_id),
                    'snapshots', (SELECT count(*) FROM snapshots s WHERE s.aggregate_type = e.aggregate_type),
                    'last_occurred_at', to_char(max(e.occurred_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
                    'event_types', (SELECT json_agg(json_build_object('event_type', t.event_type, 'events', t.n) ORDER BY 1)
                                      FROM (SELECT k.event_type, count(*) AS n FROM events k
                                             WHERE k.aggregate_type = e.aggregate_type GROUP BY 1) t))::text
                  FROM events e GROUP BY e.aggregate_type ORDER BY e.aggregate_type";
    let slow = slow.replace("ORDER BY 1)", "ORDER BY t.event_type)");
    assert_eq!(types["aggregate_types"], json!(rows(&mut session, &slow).await));

    for (query, of) in
        [("", ""), ("?limit=3", ""), ("?aggregate_type=Order&limit=1000", "WHERE aggregate_type = 'Order'")]
    {
        let limit = if query == "?limit=3" { 3 } else { 10 };
        let slow = format!(
            "SELECT json_build_object('aggregate_type', aggregate_type, 'aggregate_id', aggregate_id, 'events', count(*))::text
               FROM events {of} GROUP BY aggregate_type, aggregate_id
              ORDER BY count(*) DESC, max(global_position) LIMIT {limit}"
        );
        let largest = app.get(&format!("/stats/largest-aggregates{query}")).send().await.expect_status(200).json();
        assert_eq!(largest["aggregates"], json!(rows(&mut session, &slow).await), "{query}");
    }

    let coverage = app.get("/stats/snapshot-coverage").send().await.expect_status(200).json();
    assert_eq!(
        (&coverage["snapshots"], &coverage["streams"], &coverage["coverage"]),
        (&json!(2), &json!(8), &json!(0.25))
    );
    for of_type in coverage["aggregate_types"].as_array().expect("types") {
        let slow = format!(
            "SELECT json_build_object('at_least', at_least, 'streams', n)::text FROM (
                 SELECT at_least, count(*) AS n
                   FROM (SELECT count(*) AS size FROM events WHERE aggregate_type = '{}' GROUP BY aggregate_id) AS s,
                        unnest(ARRAY[1, 10, 50, 100, 1000, 10000]) AS at_least
                  WHERE size >= at_least GROUP BY at_least ORDER BY at_least) AS sizes",
            of_type["aggregate_type"].as_str().expect("a name")
        );
        assert_eq!(of_type["streams_by_size"], json!(rows(&mut session, &slow).await));
    }

    let one = app.get("/stats/aggregates/Order/0").send().await.expect_status(200).json();
    assert_eq!(
        (&one["events"], &one["snapshot"]["version"], &one["events_since_snapshot"]),
        (&json!(12), &json!(6), &json!(6))
    );
    let none = app.get("/stats/aggregates/Cart/4").send().await.expect_status(200).json();
    assert_eq!(
        (&none["events"], &none["snapshot"], &none["events_since_snapshot"]),
        (&json!(10), &json!(null), &json!(10))
    );
    app.get("/stats/aggregates/Cart/unknown").send().await.expect_problem(404, "stream_not_found");
}

#[tokio::test]
async fn an_empty_store_has_statistics() {
    let app = TestApp::start().await;
    let stats = app.get("/stats").send().await.expect_status(200).json();
    assert_eq!((&stats["events"], &stats["streams"], &stats["as_of_position"]), (&json!(0), &json!(0), &json!(0)));
    for path in ["/stats/aggregate-types", "/stats/snapshot-coverage"] {
        assert_eq!(app.get(path).send().await.expect_status(200).json()["aggregate_types"], json!([]));
    }
    assert_eq!(app.get("/stats/largest-aggregates").send().await.json()["aggregates"], json!([]));
    for (path, parameter) in [
        ("/stats?x=1", "x"),
        ("/stats/tables?x=1", "x"),
        ("/stats/largest-aggregates?limit=0", "limit"),
        ("/stats/largest-aggregates?limit=1001", "limit"),
        ("/stats/largest-aggregates?aggregate_type=.", "aggregate_type"),
    ] {
        app.get(path).send().await.expect_invalid("parameter", parameter);
    }
}

#[tokio::test]
async fn the_1000_largest_aggregates_are_exact_among_thousands() {
    let app = TestApp::start().await;
    let mut session = app.database.session().await;
    // 3000 streams of one to seven events, appended in a shuffled order and counted in small steps.
    for step in 0..7i64 {
        for part in 0..3i64 {
            let appends: Vec<_> = (part * 1000..part * 1000 + 1000)
                .map(|n| (n * 7919 + step * 104_729) % 3000)
                .filter(|n| n % 7 >= step)
                .map(|n| format!("s{n}"))
                .collect();
            for ids in appends.chunks(100) {
                let appends: Vec<_> = ids
                    .iter()
                    .map(|id| json!({"aggregate_type": "T", "aggregate_id": id, "events": [{"event_type": "E", "event_data": 1}]}))
                    .collect();
                app.post("/appends", &json!({ "appends": appends })).send().await.expect_status(201);
            }
            session.run("SELECT count_events(170)").await;
        }
    }
    let slow = "SELECT aggregate_id || ' ' || count(*) FROM events GROUP BY aggregate_type, aggregate_id
                 ORDER BY count(*) DESC, max(global_position) LIMIT 1000";
    let slow = session.texts(slow).await;
    // The response is not current if the background job counts at this moment.
    let head = session.number("SELECT max(global_position) FROM events").await;
    let current = async {
        loop {
            let largest = app.get("/stats/largest-aggregates?limit=1000").send().await.json();
            if largest["as_of_position"] == head {
                return largest;
            }
            pause_between_polls().await;
        }
    };
    let largest = within_a_minute("the log is counted", current).await;
    let found = largest["aggregates"]
        .as_array()
        .expect("aggregates")
        .iter()
        .map(|large| format!("{} {}", large["aggregate_id"].as_str().expect("an id"), large["events"]));
    let found: Vec<_> = found.collect();
    assert_eq!(found, slow);
    assert_eq!(session.number("SELECT count(*) FROM largest_aggregates").await, 1000);
}

#[tokio::test]
async fn a_count_on_tables_without_statistics_reads_each_row_of_the_list_a_few_times() {
    let app = TestApp::start().await;
    let mut session = app.database.session().await;
    // The background job does not count meanwhile.
    session.run("BEGIN; SELECT FROM statistics FOR UPDATE").await;
    // A thousand streams of one event fill the list. A thousand streams of two events then replace them.
    for part in 0..20 {
        let append = |n| {
            let events = vec![json!({"event_type": "E", "event_data": 1}); 1 + part / 10];
            json!({"aggregate_type": "T", "aggregate_id": format!("{part}-{n}"), "events": events})
        };
        let appends: Vec<_> = (0..100).map(append).collect();
        app.post("/appends", &json!({ "appends": appends })).send().await.expect_status(201);
    }
    session.run("SELECT count_events(1000)").await;
    session.run("SELECT count_events(2000)").await;
    session.run("COMMIT; SELECT pg_stat_force_next_flush()").await;
    assert_eq!(session.number("SELECT count(*) FROM largest_aggregates WHERE version = 2").await, 1000);
    assert_eq!(session.number("SELECT count(*) FROM largest_aggregates").await, 1000);
    let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'largest_aggregates'";
    let read = session.number(read).await;
    assert!((1..20_000).contains(&read), "{read} rows were read");
}

#[tokio::test]
async fn tables_are_listed_by_partition_and_measured_for_prometheus() {
    let (app, clock) = TestApp::start_at("2026-11-10T00:00:00Z").await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    clock.set(at("2026-12-10T00:00:00Z"));
    app.append("/streams/Order/1", &["C"]).await;
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    let tables = app.get("/stats/tables").send().await.expect_status(200).json();
    let events = &tables["tables"][0];
    assert_eq!(events["table"], "events");
    let partitions: Vec<_> = events["partitions"].as_array().expect("partitions").iter().collect();
    let states: Vec<_> = partitions.iter().map(|partition| partition["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["sealed", "open", "open", "open", "open"]);
    let sealed = json!({"name": "events_2026_11", "starts_at": "2026-11-01T00:00:00.000000Z",
        "first_position": 1, "last_position": 2, "events": 2, "first_occurred_at": "2026-11-10T00:00:00.000000Z", "archived_to": null});
    for (member, value) in sealed.as_object().expect("members") {
        assert_eq!(&partitions[0][member], value, "{member}");
    }
    assert!(partitions[0]["heap_bytes"].as_i64() > Some(0) && partitions[0]["index_bytes"].as_i64() > Some(0));
    let names: Vec<_> =
        tables["tables"].as_array().expect("tables").iter().map(|table| table["table"].clone()).collect();
    assert_eq!(names, ["events", "event_ids", "projection_positions", "snapshots", "streams"]);
    crate::support::within_a_minute("the tables are measured", async {
        while !app
            .get("/metrics")
            .send()
            .await
            .text()
            .contains("annals_table_size_bytes{part=\"heap\",table=\"events\"}")
        {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_count_of_no_position_is_refused_and_the_counted_position_never_decreases() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["E"; 5]).await;
    app.app.primary.count_all_events().await.expect("the events are counted");
    app.append("/streams/Order/1", &["E"]).await;
    let mut session = app.database.session().await;
    for limit in ["0", "-3", "NULL"] {
        let refused = session.0.execute(AssertSqlSafe(format!("SELECT count_events({limit})"))).await;
        let error = refused.expect_err(limit).to_string();
        assert!(error.contains(&format!("p_limit must be at least 1, and is {limit}")), "{error}");
        assert!(session.number("SELECT as_of_position FROM statistics").await >= 5, "{limit}");
    }
    let stats = app.get("/stats").send().await.expect_status(200).json();
    assert_eq!((&stats["events"], &stats["as_of_position"]), (&json!(6), &json!(6)));
}

#[tokio::test]
async fn one_session_counts_at_a_time_and_no_event_is_counted_twice() {
    let app = TestApp::start().await;
    let other = TestApp::start_on(app.database.clone(), TestOptions::default()).await;
    let mut session = app.database.session().await;
    let mut holder = app.database.session().await;
    app.append("/streams/Order/1", &["A"]).await;
    app.app.primary.count_all_events().await.expect("the events are counted");
    holder.run("BEGIN").await;
    holder.run("SELECT * FROM statistics FOR UPDATE").await;
    app.append("/streams/Order/2", &["A"]).await;
    assert_eq!(app.app.primary.count_events().await.expect("the call returns at once"), None);
    let stale = app.get("/stats").send().await.expect_status(200).json();
    assert_eq!((&stale["events"], &stale["as_of_position"], &stale["head"]), (&json!(1), &json!(1), &json!(2)));
    holder.run("ROLLBACK").await;
    let counting = async |app: &TestApp| {
        for n in 0..20 {
            app.post(&format!("/streams/Order/{n}"), &events(&["B"])).send().await.expect_status(201);
            app.get("/stats").send().await.expect_status(200);
        }
    };
    tokio::join!(counting(&app), counting(&other));
    app.app.primary.count_all_events().await.expect("the events are counted");
    let counted = "SELECT sum(events)::bigint FROM event_counts";
    assert_eq!(session.number(counted).await, session.number("SELECT count(*) FROM events").await);
    session.run("TRUNCATE snapshots").await;
    assert_eq!(app.get("/stats").send().await.json()["snapshots"], 0);
}

#[tokio::test]
async fn sizes_leave_out_a_partition_that_is_dropped_meanwhile() {
    const TABLE_SIZES: &str = include_str!("../../src/store/sql/table_sizes.sql");
    let app = TestApp::start().await;
    let (mut reader, mut archiver) = (app.database.session().await, app.database.session().await);
    let sizes = format!("SELECT name FROM ({TABLE_SIZES}) sizes WHERE is_partition ORDER BY name");
    let mut expected = reader.texts(&sizes).await;
    // The snapshot of the reader still has the partition after the archiver has dropped it.
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    reader.number("SELECT count(*) FROM pg_class").await;
    let dropped = expected.pop().expect("a partition");
    archiver.run(&format!("DROP TABLE {dropped}")).await;
    assert_eq!(reader.texts(&sizes).await, expected);
    reader.rollback().await;
}
