//! Promise P1, P7, P8: what an erasure meets: folds and writes of snapshots that began before it, responses that clients
//! receive slowly, read replicas that lag, archived and restored months, and appends while tables are replaced. No test
//! depends on time: it waits until PostgreSQL reports that a session waits for a lock.

use std::time::Duration;

use annals::store::erasures::removal::{Removed, Remover};
use annals::store::partitions::archiver::ArchivingError;
use serde_json::{Value, json};

use crate::archive::{History, read_everything};
use crate::cli::run;
use crate::support::{
    ReplicationPair, Session, TestApp, TestDatabase, TestOptions, events, pause_between_polls, within_a_minute,
};

const SECRET: &str = "Ada Lovelace";

async fn append(app: &TestApp, stream: &str, count: usize, pad: usize) {
    let event = json!({"event_type": "Entered", "event_data": {"name": SECRET, "pad": "x".repeat(pad)}});
    app.post(&format!("/streams/{stream}"), &json!({"events": vec![event; count]})).send().await.expect_status(201);
}

async fn erase(app: &TestApp, name: &str) -> Value {
    let (aggregate_type, aggregate_id) = name.split_once('/').expect("type/id");
    let stream = json!({"aggregate_type": aggregate_type, "aggregate_id": aggregate_id});
    app.post("/erasures", &json!({"reason": "a test", "streams": [stream]})).send().await.expect_status(201).json()
}

/// Returns a remover, as soon as no background task of the service archives.
async fn remover(app: &TestApp) -> Remover {
    let remover = async {
        loop {
            match app.app.primary.remover().await {
                Err(ArchivingError::Busy) => pause_between_polls().await,
                remover => return remover.expect("a remover"),
            }
        }
    };
    within_a_minute("no other archiver runs", remover).await
}

/// Removes the content of all erasures from the files.
async fn remove(app: &TestApp) -> Removed {
    let mut remover = remover(app).await;
    let removed = remover.run(&|_| {}).await.expect("the content is removed");
    remover.close().await.expect("the remover ends");
    removed
}

/// Erases a stream in a transaction that is not committed yet.
async fn begin_erasure(session: &mut Session, name: &str) {
    let (aggregate_type, aggregate_id) = name.split_once('/').expect("type/id");
    session.run("BEGIN ISOLATION LEVEL READ COMMITTED").await;
    session
        .run(&format!(
            "SELECT erase_events('a test', '{{}}', NULL, NULL, array_agg(e.global_position), array_agg(e.occurred_at),
                    array_agg(e.event_id), array_agg(e.aggregate_type::text), array_agg(e.aggregate_id::text),
                    array_agg(e.version))
               FROM events e WHERE e.aggregate_type = '{aggregate_type}' AND e.aggregate_id = '{aggregate_id}'"
        ))
        .await;
}

/// Waits until a session waits for a lock on the snapshots.
async fn wait_for_blocked_snapshot(session: &mut Session) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'snapshots'::regclass
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    within_a_minute("a write of a snapshot waits", async {
        while session.number(waiting).await == 0 {
            pause_between_polls().await;
        }
    })
    .await;
}

/// Waits until each erasure is announced. The job of the service announces what a session has erased.
async fn wait_for_announcements(app: &TestApp, count: i64) {
    let mut session = app.database.session().await;
    within_a_minute("the erasure is announced", async {
        while session.number("SELECT count(*) FROM events WHERE event_type = '$erased'").await < count {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_fold_that_began_before_an_erasure_stores_no_snapshot() {
    let app = TestApp::start().await;
    append(&app, "A/1", 100, 0).await;
    let (mut session, mut observer) = (app.database.session().await, app.database.session().await);
    begin_erasure(&mut session, "A/1").await;
    // The reducer is new, so the first read of the state folds all events, and its snapshot waits for the erasure.
    let reducer = json!({"language": "merge-patch", "snapshot_every": 10});
    app.call("PUT", "/reducers/A").json(&reducer).send().await.expect_status(201);
    let before = app.get("/aggregates/A/1/state").send().await.expect_status(200);
    assert!(before.text().contains(SECRET), "the erasure is not committed: {}", before.text());
    wait_for_blocked_snapshot(&mut observer).await;
    session.run("COMMIT").await;
    wait_for_announcements(&app, 1).await;
    let after = app.get("/aggregates/A/1/state").send().await.expect_status(200).text();
    assert!(!after.contains(SECRET), "{after}");
    let stored = "SELECT count(*) FROM snapshots WHERE state::text LIKE '%Ada%'";
    assert_eq!(observer.number(stored).await, 0);
}

#[tokio::test]
async fn a_snapshot_that_a_client_stores_during_an_erasure_is_refused() {
    let database = TestDatabase::create().await;
    // Whatever the default of the database is.
    let default = format!("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'", database.name);
    database.session().await.run(&default).await;
    let app = TestApp::start_on(database, TestOptions::default()).await;
    append(&app, "A/1", 3, 0).await;
    let (mut session, mut observer) = (app.database.session().await, app.database.session().await);
    begin_erasure(&mut session, "A/1").await;
    let snapshot = json!({"version": 3, "state": {"name": SECRET}});
    let put = app.call("PUT", "/snapshots/A/1").json(&snapshot).send();
    let commit = async {
        wait_for_blocked_snapshot(&mut observer).await;
        session.run("COMMIT").await;
    };
    let (reply, ()) = tokio::join!(put, commit);
    reply.expect_problem(409, "snapshot_stale");
    // Between the erasure and its announcement, a client cannot know of the erasure either.
    let again = app.call("PUT", "/snapshots/A/1").json(&snapshot).send().await;
    again.expect_problem(409, "snapshot_stale");
    wait_for_announcements(&app, 1).await;
    let remaining = json!({"version": 4, "state": {"name": null}});
    // The version of the announcement is recorded a moment after the event is appended.
    within_a_minute("a snapshot of the remaining events is stored", async {
        while app.call("PUT", "/snapshots/A/1").json(&remaining).send().await.status != 201 {
            pause_between_polls().await;
        }
    })
    .await;
    assert_eq!(app.get("/aggregates/A/1").send().await.json()["snapshot"]["state"], json!({"name": null}));
}

#[tokio::test]
async fn a_slow_client_receives_no_content_after_an_erasure() {
    let app = TestApp::start().await;
    for _ in 0..24 {
        append(&app, "A/1", 10, 100_000).await;
    }
    let mut response = app.get("/events").header("accept", "application/x-ndjson").open().await;
    let mut body = response.chunk().await.expect("a chunk").expect("the response has a body").to_vec();
    erase(&app, "A/1").await;
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        body.extend_from_slice(&chunk);
    }
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<Value> = lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect();
    let events = &lines[..lines.len() - 1];
    assert_eq!(lines[lines.len() - 1]["end"]["count"], events.len());
    let has_content: Vec<bool> = events.iter().map(|event| event["event_data"]["name"] == SECRET).collect();
    let first_without = has_content.iter().position(|has| !has).expect("an erased event");
    assert!(!has_content[first_without..].contains(&true), "content follows an erased event");
    // What the sockets had buffered at the time of the erasure is beyond reach.
    assert!(first_without < 200, "{first_without} of {} events have their content", events.len());
    let positions = events.iter().map(|event| event["global_position"].as_i64().expect("a position"));
    assert!(positions.eq(1..=events.len() as i64), "no event is lost or repeated");
}

#[tokio::test]
async fn a_replica_that_lags_shows_no_erased_content() {
    let pair = ReplicationPair::start().await;
    let options = TestOptions { replica: Some(pair.standby().config()), ..TestOptions::default() };
    let app = TestApp::start_on(pair.primary(), options).await;
    append(&app, "A/1", 3, 0).await;
    app.get("/events?min_position=3").send().await.expect_status(200);
    let mut standby = pair.standby().session().await;
    standby.run("SELECT pg_wal_replay_pause()").await;
    let receipt = erase(&app, "A/1").await;
    assert!(standby.texts("SELECT event_data::text FROM events LIMIT 1").await[0].contains(SECRET), "the replica lags");
    for path in ["/events", "/events?direction=backward", "/aggregates/A/1", "/streams/A/1", "/streams/A/1/1"] {
        for accept in ["application/json", "application/x-ndjson"] {
            let reply = app.get(path).header("accept", accept).send().await;
            assert!(!reply.text().contains(SECRET), "{path} as {accept}: {} {}", reply.status, reply.text());
        }
    }
    let position = receipt["global_position"].as_i64().expect("a position");
    standby.run("SELECT pg_wal_replay_resume()").await;
    let page = within_a_minute("the replica has the erasure", async {
        loop {
            let reply = app.get(&format!("/events?min_position={position}")).send().await;
            if reply.status == 200 {
                return reply;
            }
            pause_between_polls().await;
        }
    });
    let page = page.await.json();
    assert_eq!((&page["events"][0]["event_data"], page["events"].as_array().map(Vec::len)), (&Value::Null, Some(4)));
}

#[tokio::test]
async fn archived_events_are_erased_before_and_after_their_files_are_rewritten() {
    let history = History::create().await;
    history.archive().await;
    let replica = history.replica().await;
    let before = read_everything(&history.app).await;
    let folders = || std::fs::read_dir(history.folder.path()).expect("a folder").count();
    assert_eq!(folders(), 2);
    erase(&history.app, "Order/always").await;
    let masked = read_everything(&history.app).await;
    for ((path, text), (_, former)) in masked.iter().zip(&before) {
        let (is_erased, is_other) = (path.starts_with("/streams/Order/always"), path.contains("/Cart/"));
        assert!(!is_erased || text != former, "{path} is as before");
        assert!(!is_other || text == former, "{path} is not as before");
    }
    let mut session = history.session().await;
    let removed = remove(&history.app).await;
    assert_eq!((removed.months, removed.erasures), (3, 1));
    assert_eq!(folders(), 2, "the former folders are deleted");
    assert_eq!(session.number("SELECT count(*) FROM former_folders").await, 0);
    for app in [&history.app, &replica] {
        assert_eq!(read_everything(app).await, masked, "rewriting changes no response");
    }
    let receipt = history.app.get("/erasures/1").send().await.json();
    assert!(!receipt["removed_at"].is_null(), "{receipt}");
    assert_eq!(receipt["months"].as_array().map(Vec::len), Some(3));
    // A month that is restored from its new files stays erased.
    history.restore("events_2026_11").await;
    assert_eq!(read_everything(&history.app).await, masked);
    assert_eq!(remove(&history.app).await.months, 0, "nothing is pending");
}

#[tokio::test]
async fn a_month_that_is_restored_before_its_files_are_rewritten_stays_erased() {
    let history = History::create().await;
    history.archive().await;
    erase(&history.app, "Order/always").await;
    let masked = read_everything(&history.app).await;
    history.restore("events_2026_11").await;
    assert_eq!(read_everything(&history.app).await, masked);
    let mut session = history.session().await;
    let content = "SELECT count(*) FROM events WHERE aggregate_type = 'Order' AND aggregate_id = 'always'
                      AND event_type <> '$erased' AND event_data IS DISTINCT FROM 'null'";
    assert_eq!(session.number(content).await, 0);
    assert_eq!(session.number("SELECT count(*) FROM former_folders").await, 1, "the files still have the content");
    remove(&history.app).await;
    assert_eq!(session.number("SELECT count(*) FROM former_folders").await, 0);
    assert_eq!(std::fs::read_dir(history.folder.path()).expect("a folder").count(), 1);
    assert_eq!(read_everything(&history.app).await, masked);
    let folder = history.folder.path().to_str().expect("a path");
    let (_, printed, error) = run(&history.app.database, &["verify", "--archive-url", folder]).await;
    let wrong: Vec<&str> = printed.lines().filter(|line| line.starts_with("WRONG")).collect();
    assert_eq!(wrong, ["WRONG   no event in the future: 1 clock"], "{printed}{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_erased_while_their_month_is_restored_are_erased_in_the_new_table() {
    let history = History::create().await;
    history.archive().await;
    let mut archiver = history.archiver().await;
    let (filled, is_filled) = std::sync::mpsc::channel();
    let (erased, is_erased) = std::sync::mpsc::channel::<()>();
    let is_erased = std::sync::Mutex::new(is_erased);
    let restoring = tokio::spawn(async move {
        // The masks are read, and the table is filled, when the progress is reported first.
        let progress = move |_: u64| {
            if filled.send(()).is_ok() {
                let _ = is_erased.lock().expect("the lock").recv();
            }
        };
        archiver.restore("events_2026_11", &progress).await.expect("the partition is restored");
        archiver.close().await.expect("the archiver ends");
    });
    tokio::task::spawn_blocking(move || is_filled.recv().expect("the table is filled")).await.expect("the task ends");
    erase(&history.app, "Order/always").await;
    drop(erased);
    restoring.await.expect("the task ends");
    let mut session = history.session().await;
    let content = "SELECT count(*) FROM events WHERE aggregate_type = 'Order' AND aggregate_id = 'always'
                      AND event_type <> '$erased' AND event_data IS DISTINCT FROM 'null'";
    assert_eq!(session.number(content).await, 0);
    assert_eq!(remove(&history.app).await.months, 3, "the bytes in the restored table are pending, too");
}

#[tokio::test]
async fn a_month_that_cannot_be_written_again_does_not_hold_up_the_others() {
    let history = History::create().await;
    history.archive().await;
    erase(&history.app, "Order/always").await;
    let manifest = history.file("manifest.json");
    let elsewhere = manifest.with_extension("elsewhere");
    std::fs::rename(&manifest, &elsewhere).expect("the manifest is moved");
    let mut remover = remover(&history.app).await;
    let failed = remover.run(&|_| {}).await;
    assert!(failed.is_err(), "{failed:?}");
    let receipt = history.app.get("/erasures/1").send().await.json();
    let pending = receipt["months"].as_array().expect("months").iter().filter(|month| month["removed_at"].is_null());
    assert_eq!(pending.map(|month| month["month"].clone()).collect::<Vec<_>>(), ["2026-11"]);
    assert!(receipt["removed_at"].is_null(), "{receipt}");
    std::fs::rename(&elsewhere, &manifest).expect("the manifest is moved back");
    let removed = remover.run(&|_| {}).await.expect("the content is removed");
    assert_eq!((removed.months, removed.erasures), (1, 1));
}

#[tokio::test]
async fn a_response_that_takes_long_has_no_content_that_was_erased_meanwhile() {
    let app = TestApp::start().await;
    append(&app, "A/1", 40, 0).await;
    // Each call takes some milliseconds.
    let source = "({ $any: (state, event) => { for (let n = 0; n < 400000; n++) {} return event.event_data } })";
    let reducer = json!({"language": "javascript", "source": source});
    app.call("PUT", "/reducers/A").json(&reducer).send().await.expect_status(201);
    let state = async { (app.get("/aggregates/A/1/state").send().await, std::time::Instant::now()) };
    let erased = async {
        erase(&app, "A/1").await;
        std::time::Instant::now()
    };
    let ((reply, received_at), erased_at) = tokio::join!(state, erased);
    if received_at > erased_at {
        assert!(!reply.text().contains(SECRET), "{}", reply.text());
    }
    if reply.status != 200 {
        reply.expect_problem(503, "overloaded");
    }
}

#[tokio::test]
async fn an_interrupted_removal_is_completed_by_the_next_one() {
    let history = History::create().await;
    history.archive().await;
    erase(&history.app, "Order/always").await;
    let masked = read_everything(&history.app).await;
    let mut session = history.session().await;
    // Interrupted while a table was copied, and while files were written.
    session.run("SELECT create_partition_table('events_2027_01_0badcafe')").await;
    session.run("INSERT INTO events_2027_01_0badcafe SELECT * FROM events_2027_01").await;
    // A file that is being written has another name, which lists do not show.
    let begun = ["2026-11-begun", "2027-01-begun"].map(|name| history.folder.path().join(name));
    for folder in &begun {
        std::fs::create_dir(folder).expect("a folder");
        std::fs::write(folder.join("by_position.parquet#1"), "half of a file").expect("a file");
    }
    // Interrupted while a month was archived.
    session.run("UPDATE partitions SET archived_to = '2027-01-begun' WHERE name = 'events_2027_01'").await;
    session.run("INSERT INTO former_folders (folder, starts_at) SELECT '2026-11-begun', starts_at FROM partitions WHERE name = 'events_2026_11'").await;
    remove(&history.app).await;
    for folder in begun {
        assert!(!folder.exists(), "{} is not deleted", folder.display());
    }
    let tables = "SELECT count(*) FROM pg_class WHERE relname ~ '^events_[0-9]{4}_[0-9]{2}_'
                     AND relkind = 'r'";
    assert_eq!(session.number(tables).await, 0, "the copy of the interrupted run is dropped");
    assert_eq!(read_everything(&history.app).await, masked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_continue_while_their_table_is_replaced() {
    let app = TestApp::start().await;
    for n in 0..20 {
        append(&app, &format!("A/{n}"), 500, 100).await;
    }
    erase(&app, "A/7").await;
    let mut session = app.database.session().await;
    let open = "SELECT pg_relation_filenode(p.name::regclass)::bigint FROM partitions p
                 WHERE p.starts_at <= now() AND p.ends_at > now()";
    let before = session.number(open).await;
    let stopped = tokio_util::sync::CancellationToken::new();
    let writers = (0..4).map(|writer| {
        let (app, stopped) = (&app, &stopped);
        async move {
            let mut count = 0;
            while !stopped.is_cancelled() {
                app.append(&format!("/streams/B/{writer}"), &["E"; 3]).await;
                count += 3;
            }
            count
        }
    });
    let erasing = async {
        for n in 8..20 {
            erase(&app, &format!("A/{n}")).await;
        }
    };
    let removing = async {
        let removed = remove(&app).await;
        stopped.cancel();
        removed
    };
    let (counts, removed, ()) = tokio::join!(futures_util::future::join_all(writers), removing, erasing);
    assert_eq!(removed.months, 1);
    assert!(removed.erasures >= 1, "the first erasure is complete");
    let content = "SELECT count(*) FROM events WHERE event_data::text LIKE '%Ada%'";
    assert_eq!(session.number(content).await, 7 * 500, "what was erased meanwhile is erased in the new table, too");
    assert_ne!(session.number(open).await, before, "the table is another one");
    let written: i64 = counts.iter().sum();
    assert_eq!(session.number("SELECT count(*) FROM events WHERE aggregate_type = 'B'").await, written);
    let (ok, printed, error) = run(&app.database, &["verify"]).await;
    assert!(ok, "{printed}{error}");
    // The new table refuses changes like the former one, and appends continue in it.
    app.post("/streams/B/0", &events(&["E"])).send().await.expect_status(201);
    for change in ["UPDATE events SET event_type = 'X'", "DELETE FROM events", "TRUNCATE events"] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(change.to_owned())).execute(&mut session.0).await;
        assert!(refused.is_err(), "{change}");
    }
}

#[tokio::test]
async fn content_is_removed_when_the_oldest_erasure_is_due() {
    let mut options = TestOptions::default();
    options.settings.erase_rewrite_every = Duration::ZERO;
    let app = TestApp::start_with(options).await;
    append(&app, "A/1", 3, 0).await;
    erase(&app, "A/1").await;
    within_a_minute("the job has removed the content", async {
        while app.get("/erasures/1").send().await.json()["removed_at"].is_null() {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_removal_waits_for_no_long_transaction() {
    let app = TestApp::start().await;
    append(&app, "A/1", 3, 0).await;
    erase(&app, "A/1").await;
    let mut dump = app.database.session().await;
    dump.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert_eq!(dump.number("SELECT count(*) FROM events").await, 4);
    let mut remover = remover(&app).await;
    let refused = remover.run(&|_| {}).await;
    assert!(matches!(&refused, Err(ArchivingError::InUse(name)) if name.starts_with("events_")), "{refused:?}");
    remover.close().await.expect("the remover ends");
    dump.rollback().await;
    assert_eq!(remove(&app).await.erasures, 1);
}
