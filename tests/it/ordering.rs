//! Promise P3, P6: the ordering observer. Other transactions and vacuum run beside the appends. No position appears
//! after a reader has passed it, and no position is missing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Session, TestApp, TestDatabase, TestOptions, pause_between_polls, within_a_minute};

const WRITERS: usize = 32;

/// Returns the number of appends of each writer. For a long run: `ANNALS_TEST_APPENDS=20000 cargo test …`.
fn appends() -> usize {
    std::env::var("ANNALS_TEST_APPENDS").map_or(40, |value| value.parse::<usize>().expect("a number").max(2))
}

/// Opens a transaction that has written to another database of the cluster. It delays everything that waits for the
/// oldest transaction, and it holds no lock of Annals.
async fn open_transaction_elsewhere() -> (TestDatabase, Session) {
    let database = TestDatabase::create_empty().await;
    let mut session = database.session().await;
    session.run("CREATE TABLE elsewhere (n integer)").await;
    session.run("BEGIN; INSERT INTO elsewhere VALUES (1)").await;
    (database, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_position_is_late_or_missing_beside_other_transactions_and_vacuum() {
    let database = TestDatabase::create().await;
    let replicas = [
        TestApp::start_on(database.clone(), TestOptions::default()).await,
        TestApp::start_on(database.clone(), TestOptions::default()).await,
    ];
    let elsewhere = open_transaction_elsewhere().await;
    let mut report = database.session().await;
    report.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM events").await;

    let total = (WRITERS * appends() * 2) as i64;
    let done = AtomicBool::new(false);
    // The number of pollers that have read a part of the log that is neither empty nor complete.
    let partial_pollers = AtomicUsize::new(0);
    let writing = async {
        let writer = |n: usize| {
            let (replica, replicas, partial_pollers) = (&replicas[n % 2], &replicas, &partial_pollers);
            async move {
                for round in 0..appends() {
                    // The second half is appended after both pollers have read a part of the first half.
                    while round == appends() / 2 && partial_pollers.load(Ordering::SeqCst) < replicas.len() {
                        pause_between_polls().await;
                    }
                    // The writers share streams, so that their appends conflict.
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
    // Two pollers read without a pause, each from another replica. A subscriber reads the event stream.
    let polling = |n: usize| {
        let (replica, partial_pollers) = (&replicas[n], &partial_pollers);
        async move {
            let (mut next, mut partial_reads) = (0, 0u64);
            while next < total {
                let page =
                    replica.get(&format!("/events?after={next}&limit=1000")).send().await.expect_status(200).json();
                for event in page["events"].as_array().expect("events") {
                    next += 1;
                    assert_eq!(event["global_position"], next, "a position is missing or late");
                }
                assert_eq!(page["next_after"], next);
                if 0 < next && next < total {
                    partial_reads += 1;
                    if partial_reads == 1 {
                        partial_pollers.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
            partial_reads
        }
    };
    let subscribing = async {
        let mut stream = replicas[1].subscribe("/events?after=0").await;
        for position in 1..=total {
            assert_eq!(stream.event().await.position(), position, "a position is missing or late");
        }
    };
    let observing = async { tokio::join!(polling(0), polling(1), subscribing) };
    let (_, (), (first_poller, second_poller, ())) = tokio::join!(writing, vacuuming, observing);
    assert!(first_poller > 0 && second_poller > 0, "each poller has read a part of the log");
    // The tables have every position and every version. The snapshot of the report still has no event.
    let mut session = database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, total);
    assert_eq!(session.number("SELECT max(global_position) FROM events").await, total);
    let gaps = "SELECT count(*) FROM (SELECT max(version) - count(*) AS missing FROM events GROUP BY aggregate_id) AS s
                  WHERE missing <> 0";
    assert_eq!(session.number(gaps).await, 0);
    assert_eq!(report.number("SELECT count(*) FROM events").await, 0);
    report.rollback().await;
    drop(elsewhere);
    within_a_minute("both replicas return the head", async {
        for replica in &replicas {
            while replica.get("/events?after=head").send().await.json()["head"] != total {
                pause_between_polls().await;
            }
        }
    })
    .await;
}
