//! Clients that go away in the middle of a request: no connection stays inside a transaction, and what was acknowledged is
//! there.
//!
//!     ANNALS_TEST_ABORTS=100000 cargo test --release cancellation

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annals::store::database::DatabaseConfig;
use serde_json::json;

use crate::support::{TestApp, TestDatabase, Wanted, within_a_minute};

const CLIENTS: usize = 40;

fn aborts() -> usize {
    std::env::var("ANNALS_TEST_ABORTS").map_or(3_000, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_given_up_at_any_moment_harm_nobody() {
    let app = TestApp::start().await;
    app.append("/streams/Order/long", &vec!["E"; 500]).await;
    let acknowledged = Mutex::new(BTreeSet::new());
    let given_up = AtomicUsize::new(0);
    let client = |client: usize| {
        let (app, acknowledged, given_up) = (&app, &acknowledged, &given_up);
        async move {
            let mut random = fastrand::Rng::with_seed(client as u64);
            for n in 0..aborts().div_ceil(CLIENTS) {
                let number = (client * 1_000_000 + n) as u64;
                let id = uuid::Uuid::from_u64_pair(0x4000, 0x8000_0000_0000_0000 | number);
                let event = json!({"events": [{"event_id": id, "event_type": "E", "event_data": {"n": number}}]});
                let call = match random.u8(0..5) {
                    0 => app.get("/streams/Order/long?limit=1000"),
                    1 => app.get("/aggregates/Order/long"),
                    2 => app.get("/events?limit=1000").header("accept", "application/x-ndjson"),
                    3 => app.call("PUT", "/projections/p?reset=true").json(&json!({"last_processed_position": 1})),
                    _ => app.post(&format!("/streams/Order/{}", number % 50), &event),
                };
                // One in five waits for its answer: there has to be something that was acknowledged.
                let patience =
                    if n % 5 == 0 { Duration::from_secs(60) } else { Duration::from_micros(random.u64(0..20_000)) };
                match tokio::time::timeout(patience, call.send()).await {
                    Ok(reply) if reply.status == 201 => {
                        let body = reply.json();
                        if let Some(event) = body["events"].get(0) {
                            acknowledged.lock().expect("the lock").insert(event["event_id"].to_string());
                        }
                    }
                    // The pool is small, and nobody may wait for it for long.
                    Ok(reply) => assert!(matches!(reply.status, 200 | 201 | 503), "{}", reply.text()),
                    Err(_) => {
                        given_up.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    };
    futures_util::future::join_all((0..CLIENTS).map(client)).await;
    let given_up = given_up.into_inner();
    assert!(given_up > 0, "nobody went away");

    // Everybody is served as before: more at once than the pool has connections.
    let reads = (0..20).map(|_| app.get("/streams/Order/long").send());
    within_a_minute("the pool is whole", async {
        for reply in futures_util::future::join_all(reads).await {
            reply.expect_status(200);
        }
    })
    .await;
    let mut session = app.database.session().await;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(session.number(left).await, 0, "a connection was left inside a transaction");
    let lines = app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    let there: BTreeSet<_> = lines.iter().map(|event| event["event_id"].to_string()).collect();
    let acknowledged = acknowledged.into_inner().expect("the lock");
    assert!(acknowledged.is_subset(&there), "an acknowledged event is missing");
    // Whoever went away or not: everything is there once, and no position is missing.
    let positions = lines.iter().filter_map(|event| event["global_position"].as_u64());
    assert_eq!(positions.collect::<Vec<_>>(), (1..lines.len() as u64).collect::<Vec<_>>());
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    println!("{} acknowledged, {given_up} given up", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_from_hand_to_hand_tells_everybody_what_they_asked_for() {
    const STREAMS: u64 = 20;
    let database = TestDatabase::create().await;
    // Beside those of the writer, the tailer and the maintenance: one, so that everybody waits for it.
    let config = DatabaseConfig { max_connections: 4, ..database.config() };
    let app = TestApp::start_with(config, database, Wanted::default()).await;
    for stream in 0..STREAMS {
        app.append(&format!("/streams/Order/{stream}"), &vec!["E"; 1 + stream as usize]).await;
    }
    let client = |client: u64| {
        let app = &app;
        async move {
            let mut random = fastrand::Rng::with_seed(client);
            for _ in 0..aborts().div_ceil(CLIENTS) {
                let stream = random.u64(0..STREAMS);
                let call = match random.bool() {
                    true => app.get(&format!("/streams/Order/{stream}")),
                    false => app.get(&format!("/aggregates/Order/{stream}")),
                };
                // One in five goes away at some moment; the next one has its connection.
                let patience = if random.u8(0..5) == 0 { random.u64(0..5_000) } else { 60_000_000 };
                if let Ok(reply) = tokio::time::timeout(Duration::from_micros(patience), call.send()).await {
                    let aggregate = reply.expect_status(200).json();
                    let events = aggregate["events"].as_array().expect("events");
                    assert_eq!(events.len() as u64, stream + 1);
                    let asked = stream.to_string();
                    assert!(events.iter().all(|event| event["aggregate_id"] == *asked), "{aggregate}");
                }
            }
        }
    };
    futures_util::future::join_all((0..CLIENTS as u64).map(client)).await;
    within_a_minute("the connection is back in the pool, and no other one was made", async {
        while app.metric("annals_db_pool_connections{state=\"in_use\"}").await > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(app.metric("annals_db_pool_connections{state=\"idle\"}").await, 1.0);
}
