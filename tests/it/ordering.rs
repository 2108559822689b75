//! The ordering observer: whatever runs beside the appends, a position that was passed is never filled later.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Session, TestApp, TestDatabase, Wanted, within_a_minute};

const WRITERS: usize = 32;

/// Appends of each writer: `ANNALS_TEST_APPENDS=20000 cargo test …` for a long run.
fn appends() -> usize {
    std::env::var("ANNALS_TEST_APPENDS").map_or(40, |value| value.parse().expect("a number"))
}

/// A transaction that has written, in another database of the cluster: it holds back every horizon that looks at
/// transactions, and no lock of ours.
async fn idle_writer_elsewhere() -> (TestDatabase, Session) {
    let database = TestDatabase::create_empty().await;
    let mut session = database.session().await;
    session.run("CREATE TABLE elsewhere (n integer)").await;
    session.run("BEGIN; INSERT INTO elsewhere VALUES (1)").await;
    (database, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_position_is_late_and_none_is_missing_whatever_runs_beside() {
    let database = TestDatabase::create().await;
    let replicas = [
        TestApp::start_on(database.clone(), Wanted::default()).await,
        TestApp::start_on(database.clone(), Wanted::default()).await,
    ];
    let elsewhere = idle_writer_elsewhere().await;
    let mut report = database.session().await;
    report.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events").await;

    let total = (WRITERS * appends() * 2) as i64;
    let done = AtomicBool::new(false);
    let writing = async {
        let writer = |n: usize| {
            let replica = &replicas[n % 2];
            async move {
                for round in 0..appends() {
                    // Some of them to the same streams, so that they meet.
                    replica.append(&format!("/streams/Order/{}", (n + round) % 8), &["A", "B"]).await;
                }
            }
        };
        futures_util::future::join_all((0..WRITERS).map(writer)).await;
        done.store(true, Ordering::SeqCst);
    };
    let vacuuming = async {
        let mut session = database.session().await;
        while !done.load(Ordering::SeqCst) {
            session.run("VACUUM events").await;
            session.run("VACUUM (ANALYZE) event_ids, streams").await;
        }
    };
    // Pollers that look without a pause, each through another replica, and one that follows.
    let polling = |n: usize| {
        let replica = &replicas[n];
        async move {
            let (mut next, mut looks) = (0, 0u64);
            while next < total {
                let page =
                    replica.get(&format!("/events?after={next}&limit=1000")).send().await.expect_status(200).json();
                for event in page["events"].as_array().expect("events") {
                    next += 1;
                    assert_eq!(event["global_position"], next, "a position is missing or late");
                }
                assert_eq!(page["next_after"], next);
                looks += 1;
            }
            looks
        }
    };
    let following = async {
        let mut stream = replicas[1].follow("/events?after=0").await;
        for position in 1..=total {
            assert_eq!(stream.event().await.position(), position, "a position is missing or late");
        }
    };
    let observing = async { tokio::join!(polling(0), polling(1), following) };
    let (_, (), (looks, more_looks, ())) = tokio::join!(writing, vacuuming, observing);
    assert!(looks + more_looks > 10, "they have looked in between");
    // Positions and versions, as the tables have them; the report still sees none of it.
    let mut session = database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, total);
    assert_eq!(session.number("SELECT max(global_position) FROM events").await, total);
    let holes =
        "SELECT count(*) FROM (SELECT max(version) - count(*) AS missing FROM events GROUP BY aggregate_id) AS s
                  WHERE missing <> 0";
    assert_eq!(session.number(holes).await, 0);
    assert_eq!(report.number("SELECT count(*) FROM events").await, 0);
    report.end().await;
    drop(elsewhere);
    within_a_minute("both are at the head", async {
        for replica in &replicas {
            while replica.get("/events?after=head").send().await.json()["head"] != total {}
        }
    })
    .await;
}
