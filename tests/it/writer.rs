//! Promise P4, P5, P10: group commit. Requests in one batch do not affect each other, the queue is bounded, and appends
//! update no row.

use annals::store::append::queue::QueueLimits;
use serde_json::json;

use crate::support::{TestApp, TestOptions, event_with_id, events, id, pause_between_polls, within_a_minute};

#[tokio::test]
async fn accepted_conflicting_replayed_and_invalid_requests_share_one_batch() {
    let app = TestApp::start().await;
    app.post("/streams/Order/known", &event_with_id(&id(1))).send().await.expect_status(201);
    // The service accepts this event type, and PostgreSQL refuses it.
    app.database
        .session()
        .await
        .run("ALTER TABLE events ADD CONSTRAINT no_poison CHECK (event_type <> 'Poison')")
        .await;
    let requests = async {
        tokio::join!(
            app.post("/streams/Order/good", &events(&["A", "B"])).if_match(0).send(),
            app.post("/streams/Order/known", &events(&["X"])).if_match(0).send(),
            app.post("/streams/Order/known", &event_with_id(&id(1))).if_match(5).send(),
            app.post("/streams/Order/poison", &events(&["Poison"])).send(),
            app.call("POST", "/streams/Order/x").header("content-type", "application/json").body("{nonsense").send(),
            app.post("/streams/Order/other", &event_with_id(&id(1))).send(),
            app.post("/streams/Order/late", &events(&["C"])).if_match(0).send(),
        )
    };
    let (good, conflict, replay, poison, unreadable, reused, late) =
        app.queue_behind_append_lock(requests, 6, async {}).await.0;
    assert_eq!(good.expect_status(201).json()["version"], 2);
    assert_eq!(conflict.expect_problem(412, "version_conflict")["current_version"], 1);
    assert_eq!(replay.expect_status(200).header("idempotent-replayed"), Some("true"));
    poison.expect_problem(500, "internal");
    unreadable.expect_problem(400, "invalid_request");
    reused.expect_problem(409, "event_id_reused");
    late.expect_status(201);
    let mut session = app.database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, 5);
    assert_eq!(session.number("SELECT max(global_position) FROM events").await, 5);
    app.get("/streams/Order/poison").send().await.expect_problem(404, "stream_not_found");
}

#[tokio::test]
async fn a_batch_is_decided_in_order_and_later_requests_see_earlier_ones() {
    let app = TestApp::start().await;
    let requests = async {
        let appends = (0..20u64).map(|n| app.post("/streams/Order/1", &events(&["E"])).if_match(n % 2).send());
        futures_util::future::join_all(appends).await
    };
    let replies = app.queue_behind_append_lock(requests, 20, async {}).await.0;
    let mut won: Vec<_> = replies.iter().filter(|r| r.status == 201).map(|r| r.json()["version"].as_u64()).collect();
    won.sort_unstable();
    assert_eq!(won, [Some(1), Some(2)]);
    assert!(replies.iter().all(|reply| reply.status == 201 || reply.status == 412));
    // The first append is one batch, and all other requests are the second batch.
    assert_eq!(app.metric("annals_append_batch_requests_count").await, 2.0);
    assert_eq!(app.metric("annals_append_batch_requests_sum").await, 21.0);
}

/// The batch has new and existing streams, and each kind of precondition. Each event is stored at the version and the
/// position of its response.
#[tokio::test]
async fn a_batch_with_one_event_for_each_stream_is_decided_as_a_whole() {
    let app = TestApp::start().await;
    app.post("/streams/Order/old", &events(&["A", "B"])).send().await.expect_status(201);
    app.post("/streams/Order/older", &events(&["A", "B", "C"])).send().await.expect_status(201);
    app.post("/streams/Order/oldest", &events(&["A"])).send().await.expect_status(201);
    let requests = async {
        tokio::join!(
            app.post("/streams/Order/new", &events(&["New"])).if_match(0).send(),
            app.post("/streams/Order/old", &events(&["Old"])).if_match(2).send(),
            app.post("/streams/Order/newer", &events(&["Newer"])).header("if-none-match", "*").send(),
            app.post("/streams/Order/older", &events(&["Older"])).header("if-match", "*").send(),
            app.post("/streams/Order/newest", &events(&["Newest"])).send(),
            app.post("/streams/Order/oldest", &events(&["Oldest"])).send(),
        )
    };
    let (new, old, newer, older, newest, oldest) = app.queue_behind_append_lock(requests, 6, async {}).await.0;
    let mut positions = Vec::new();
    let written = [
        (new, "new", 1),
        (old, "old", 3),
        (newer, "newer", 1),
        (older, "older", 4),
        (newest, "newest", 1),
        (oldest, "oldest", 2),
    ];
    for (reply, stream, version) in written {
        let response = reply.expect_status(201).json();
        assert_eq!(response["version"], version, "{stream}");
        let read = app.get(&format!("/streams/Order/{stream}/{version}")).send().await.json();
        assert_eq!(read["event_type"].as_str().map(str::to_lowercase).as_deref(), Some(stream));
        assert_eq!(read["event_id"], response["events"][0]["event_id"]);
        assert_eq!(read["global_position"], response["global_position"]);
        positions.push(response["global_position"].as_u64());
    }
    positions.sort_unstable();
    let first = positions[0].expect("a position");
    assert_eq!(positions, (first..first + 6).map(Some).collect::<Vec<_>>());
    let mut session = app.database.session().await;
    // All events have one time, so they were written in one batch. If PostgreSQL had refused the batch, the writer
    // would have tried each request alone.
    let times = format!("SELECT count(DISTINCT occurred_at) FROM events WHERE global_position >= {first}");
    assert_eq!(session.number(&times).await, 1);
    let known = "SELECT count(*) FROM events e JOIN event_ids k USING (event_id, version, global_position, occurred_at) \
                 JOIN streams s ON s.stream_no = k.stream_no \
                 WHERE (s.aggregate_type, s.aggregate_id) = (e.aggregate_type, e.aggregate_id)";
    let events = session.number("SELECT count(*) FROM events").await;
    assert_eq!(session.number(known).await, events);
    assert_eq!(session.number("SELECT count(DISTINCT stream_no) FROM streams").await, 7);
}

/// The batch has several appends to each of three streams. One stream is new, one is in the cache of the writer, and
/// another service has written to the third one.
#[tokio::test]
async fn a_batch_with_several_appends_to_each_stream_is_decided_as_a_whole() {
    const REQUESTS: usize = 18;
    let app = TestApp::start().await;
    let other = TestApp::start_on(app.database.clone(), TestOptions::default()).await;
    other.append("/streams/Order/elsewhere", &["A", "B", "C"]).await;
    app.append("/streams/Order/here", &["A", "B"]).await;
    let stream_of = |n: usize| ["new", "here", "elsewhere"][n % 3];
    let requests = async {
        let append = |n: usize| {
            let event_types = vec![format!("E{n}"); 1 + n % 4];
            let event_types: Vec<_> = event_types.iter().map(String::as_str).collect();
            let call = app.post(&format!("/streams/Order/{}", stream_of(n)), &events(&event_types));
            if matches!(n % 6, 1 | 5) { call.header("if-match", "*") } else { call }
        };
        futures_util::future::join_all((0..REQUESTS).map(append).map(|call| call.send())).await
    };
    let replies = app.queue_behind_append_lock(requests, REQUESTS, async {}).await.0;
    let mut positions = Vec::new();
    for (n, reply) in replies.into_iter().enumerate() {
        let response = reply.expect_status(201).json();
        for event in response["events"].as_array().expect("events") {
            let read = app.get(&format!("/streams/Order/{}/{}", stream_of(n), event["version"])).send().await.json();
            assert_eq!(read["event_type"], format!("E{n}"));
            for member in ["event_id", "global_position", "occurred_at"] {
                assert_eq!(read[member], event[member]);
            }
            positions.push(event["global_position"].as_i64().expect("a position"));
        }
    }
    positions.sort_unstable();
    let (first, last) = (positions[0], positions[positions.len() - 1]);
    assert_eq!(positions, (first..=last).collect::<Vec<_>>());
    let mut session = app.database.session().await;
    let times =
        format!("SELECT count(DISTINCT occurred_at) FROM events WHERE global_position BETWEEN {first} AND {last}");
    assert_eq!(session.number(&times).await, 1, "all events of one batch have one time");
    let gaps = "SELECT count(*) FROM (SELECT aggregate_id, max(version) - count(*) AS missing FROM events GROUP BY 1) AS s \
                WHERE missing <> 0";
    assert_eq!(session.number(gaps).await, 0);
    let inconsistent = "SELECT count(*) FROM event_ids k JOIN streams s USING (stream_no) JOIN events e USING (event_id) \
                   WHERE (s.aggregate_id, k.version, k.global_position, k.occurred_at) \
                         <> (e.aggregate_id, e.version, e.global_position, e.occurred_at)";
    assert_eq!(session.number(inconsistent).await, 0);
    let begun = "SELECT count(*) FROM streams s JOIN events e USING (aggregate_type, aggregate_id) \
                 WHERE e.version = 1 AND e.occurred_at = s.first_occurred_at";
    assert_eq!(session.number(begun).await, 4);
}

#[tokio::test]
async fn a_request_that_is_in_flight_twice_is_a_replay() {
    let app = TestApp::start().await;
    let body = event_with_id(&id(1));
    let requests = async {
        let sent = (0..10).map(|_| app.post("/streams/Order/1", &body).if_match(0).send());
        futures_util::future::join_all(sent).await
    };
    let replies = app.queue_behind_append_lock(requests, 10, async {}).await.0;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 9);
}

#[tokio::test]
async fn a_request_for_a_full_queue_is_refused_and_the_queued_ones_are_written() {
    let mut options = TestOptions::default();
    options.settings.queue = QueueLimits { requests: 10, bytes: 1024 * 1024 };
    let app = TestApp::start_with(options).await;
    let post = |n: usize| app.post(&format!("/streams/Order/{n}"), &events(&["E"])).send();
    let (others, refused) =
        app.queue_behind_append_lock(futures_util::future::join_all((1..5).map(post)), 4, post(9)).await;
    refused.expect_problem(503, "overloaded");
    for queued in others {
        queued.expect_status(201);
    }
    app.get("/streams/Order/9").send().await.expect_problem(404, "stream_not_found");
    assert_eq!(app.metric("annals_appends_total{result=\"overloaded\"}").await, 1.0);
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes() {
    let mut options = TestOptions::default();
    options.settings.queue = QueueLimits { requests: 100, bytes: 10_000 };
    let app = TestApp::start_with(options).await;
    let large = json!({"events": [{"event_type": "E", "event_data": "x".repeat(11_000)}]});
    app.post("/streams/Order/1", &large).send().await.expect_problem(503, "overloaded");
    app.append("/streams/Order/1", &["E"]).await;
}

#[tokio::test]
async fn an_append_that_cannot_acquire_the_lock_in_time_is_refused_and_not_written() {
    let app = TestApp::start().await;
    let mut holder = app.database.session().await;
    holder.hold_append_lock().await;
    app.post("/streams/Order/1", &events(&["E"])).send().await.expect_problem(503, "overloaded");
    holder.rollback().await;
    assert_eq!(app.append("/streams/Order/1", &["E"]).await, 1);
}

#[tokio::test]
async fn appends_update_no_row_even_beside_a_long_snapshot() {
    let app = TestApp::start().await;
    let mut reader = app.database.session().await;
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    reader.number("SELECT count(*) FROM events").await;
    for n in 0..50 {
        app.append(&format!("/streams/Order/{}", n % 3), &["A", "B"]).await;
    }
    let database = app.database.clone();
    // A backend reports its counters when it ends. Until then, PostgreSQL may show counters of an earlier time.
    assert!(app.stop().await);
    let mut session = database.session().await;
    let running = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'annals'";
    within_a_minute("the backends of the service end", async {
        while session.number(running).await > 0 {
            pause_between_polls().await;
        }
    })
    .await;
    let counted = |column: &str| {
        format!(
            "SELECT coalesce(sum({column}), 0)::bigint FROM pg_stat_user_tables
              WHERE relname LIKE 'events%' OR relname IN ('streams', 'event_ids')"
        )
    };
    // The counters include the appends: 100 events, their ids, and 3 streams.
    assert_eq!(session.number(&counted("n_tup_ins")).await, 203);
    assert_eq!(session.number(&counted("n_tup_upd + n_tup_del")).await, 0);
    reader.rollback().await;
}
