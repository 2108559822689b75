//! Promise P1, P5, P10: clients that abort requests at any moment. No connection stays inside a transaction, every
//! acknowledged event is stored once, and other clients are served.
//!
//!     ANNALS_TEST_ABORTS=100000 cargo test --release cancellation

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use annals::store::connection::config::DatabaseConfig;
use serde_json::json;

use crate::support::{TestApp, TestDatabase, TestOptions, pause_between_polls, within_a_minute};

const CLIENTS: usize = 40;
/// The maximum time after which a client aborts a request.
const ABORT_MAX: Duration = Duration::from_millis(20);

fn aborts() -> usize {
    std::env::var("ANNALS_TEST_ABORTS").map_or(3_000, |value| value.parse().expect("a number"))
}

/// The numbers of requests by their outcome.
#[derive(Default)]
struct Counts {
    succeeded: usize,
    refused: usize,
    aborted: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_aborted_at_any_moment_harm_no_other_request() {
    let app = TestApp::start().await;
    app.append("/streams/Order/long", &vec!["E"; 500]).await;
    let acknowledged = Mutex::new(BTreeSet::new());
    let counts = Mutex::new(Counts::default());
    let client = |client: usize| {
        let (app, acknowledged, counts) = (&app, &acknowledged, &counts);
        async move {
            let mut random = fastrand::Rng::with_seed(client as u64);
            let mut last_duration = ABORT_MAX;
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
                // The client waits for every fifth response, so that some appends are acknowledged.
                let waits_for_response = n % 5 == 0;
                let time_limit = if waits_for_response {
                    Duration::from_secs(60)
                } else {
                    // The limit is at most the duration of an earlier request, so that many are aborted on any machine.
                    Duration::from_micros(random.u64(0..=last_duration.min(ABORT_MAX).as_micros() as u64))
                };
                let sent = Instant::now();
                let reply = tokio::time::timeout(time_limit, call.send()).await;
                if waits_for_response {
                    last_duration = sent.elapsed();
                }
                let mut counts = counts.lock().expect("the lock");
                let Ok(reply) = reply else {
                    counts.aborted += 1;
                    continue;
                };
                match reply.status {
                    200 => counts.succeeded += 1,
                    201 => {
                        counts.succeeded += 1;
                        if let Some(event) = reply.json()["events"].get(0) {
                            acknowledged.lock().expect("the lock").insert(event["event_id"].to_string());
                        }
                    }
                    // Queue and pool are bounded. A request that cannot wait gets one of these two errors.
                    _ => {
                        counts.refused += 1;
                        let code = reply.json()["code"].clone();
                        assert!(
                            reply.status == 503 && (code == "overloaded" || code == "database_unavailable"),
                            "{}",
                            reply.text()
                        );
                    }
                }
            }
        }
    };
    futures_util::future::join_all((0..CLIENTS).map(client)).await;
    let Counts { succeeded, refused, aborted } = counts.into_inner().expect("the lock");
    let requests = succeeded + refused + aborted;
    assert_eq!(requests, aborts().div_ceil(CLIENTS) * CLIENTS);
    assert!(aborted * 10 >= requests, "{aborted} of {requests} requests were aborted");
    assert!(refused <= succeeded, "{refused} requests were refused, and {succeeded} succeeded");

    // Requests are served as before. Their number exceeds the number of connections in the pool.
    let reads = (0..20).map(|_| app.get("/streams/Order/long").send());
    within_a_minute("the pool has all its connections", async {
        for reply in futures_util::future::join_all(reads).await {
            reply.expect_status(200);
        }
    })
    .await;
    let mut session = app.database.session().await;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(session.number(idle).await, 0, "a connection is idle in a transaction");
    let lines = app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    let stored: BTreeSet<_> = lines.iter().map(|event| event["event_id"].to_string()).collect();
    let acknowledged = acknowledged.into_inner().expect("the lock");
    assert!(acknowledged.is_subset(&stored), "an acknowledged event is missing");
    // Every event is stored once, whether its request was aborted or not, and no position is missing.
    let positions = lines.iter().filter_map(|event| event["global_position"].as_u64());
    assert_eq!(positions.collect::<Vec<_>>(), (1..lines.len() as u64).collect::<Vec<_>>());
    assert!(!acknowledged.is_empty(), "no append was acknowledged");
    println!("{requests} requests, {aborted} aborted, {} appends acknowledged", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooled_connection_that_is_handed_over_returns_each_request_its_own_rows() {
    const STREAMS: u64 = 20;
    let database = TestDatabase::create().await;
    // The writer, the tailer and maintenance use one connection each. All requests wait for the remaining connection.
    let config = DatabaseConfig { max_connections: 4, ..database.config() };
    let app = TestApp::start_with_config(config, database, TestOptions::default()).await;
    for stream in 0..STREAMS {
        app.append(&format!("/streams/Order/{stream}"), &vec!["E"; 1 + stream as usize]).await;
    }
    let client = |client: u64| {
        let app = &app;
        async move {
            let mut random = fastrand::Rng::with_seed(client);
            for _ in 0..aborts().div_ceil(CLIENTS) {
                let stream = random.u64(0..STREAMS);
                let path = if random.bool() { "streams" } else { "aggregates" };
                let call = app.get(&format!("/{path}/Order/{stream}"));
                // About every fifth request is aborted. The next request acquires its connection.
                let time_limit_micros = if random.u8(0..5) == 0 { random.u64(0..5_000) } else { 60_000_000 };
                if let Ok(reply) = tokio::time::timeout(Duration::from_micros(time_limit_micros), call.send()).await {
                    let aggregate = reply.expect_status(200).json();
                    let events = aggregate["events"].as_array().expect("events");
                    assert_eq!(events.len() as u64, stream + 1);
                    let requested = stream.to_string();
                    assert!(events.iter().all(|event| event["aggregate_id"] == *requested), "{aggregate}");
                }
            }
        }
    };
    futures_util::future::join_all((0..CLIENTS as u64).map(client)).await;
    within_a_minute("the connection is returned to the pool", async {
        while app.metric("annals_db_pool_connections{state=\"in_use\"}").await > 0.0 {
            pause_between_polls().await;
        }
    })
    .await;
    assert_eq!(app.metric("annals_db_pool_connections{state=\"idle\"}").await, 1.0);
}
