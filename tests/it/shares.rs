//! Promise P5: clients share a process. None can take all event streams, connections, workers, turns of the writer or
//! turns of the snapshotter.

use annals::domain::access::Grant;
use annals::domain::quota::Quotas;
use annals::keyring;
use annals::subscriptions::feed::FeedLimits;
use serde_json::{Value, json};

use crate::support::{Call, EventStream, Reply, TestApp, TestOptions, events, pause_between_polls, within_a_minute};

/// A service that requires keys.
struct Shared {
    app: TestApp,
}

/// A reducer that needs about 50 ms for each event, even on a fast processor.
const SLOW: &str = "({ $any(state) { for (let n = 0; n < 700000; n++) state = state; return { n: 1 } } })";

impl Shared {
    async fn start(change: impl FnOnce(&mut TestOptions)) -> Self {
        let mut options = TestOptions::default();
        options.settings.needs_keys = true;
        change(&mut options);
        Self { app: TestApp::start_with(options).await }
    }

    async fn key(&self, grants: &[&str]) -> String {
        let grants: Vec<Grant> = grants.iter().map(|grant| grant.parse().expect("a grant")).collect();
        let created = keyring::generate("a test".to_owned(), &grants, Quotas::default(), None);
        let (key, new) = created.expect("randomness");
        self.app.app.primary.create_key(&new).await.expect("the key is stored");
        self.app.app.keyring.refresh(&self.app.app.primary).await.expect("the keys are read");
        key
    }

    fn call(&self, key: &str, method: &str, path: &str) -> Call {
        self.app.call(method, path).header("authorization", &format!("Bearer {key}"))
    }

    async fn append(&self, key: &str, stream: &str, count: usize) -> Reply {
        self.call(key, "POST", &format!("/streams/{stream}")).json(&events(&vec!["E"; count])).send().await
    }

    async fn put_reducer(&self, key: &str, aggregate_type: &str, source: &str) {
        let reducer = json!({"language": "javascript", "source": source, "snapshot_every": 10});
        let put = self.call(key, "PUT", &format!("/reducers/{aggregate_type}")).json(&reducer);
        put.send().await.expect_status(201);
    }
}

#[tokio::test]
async fn one_key_cannot_open_all_event_streams_and_waits_count_as_subscribers() {
    let shared =
        Shared::start(|options| options.settings.feed = FeedLimits { subscribers: 8, ..FeedLimits::default() }).await;
    let (greedy, modest) = (shared.key(&["read:*", "append:*", "project:*"]).await, shared.key(&["read:*"]).await);
    shared.append(&greedy, "Order/1", 1).await.expect_status(201);
    let put = shared.call(&greedy, "PUT", "/projections/p").json(&json!({"last_processed_position": 0}));
    put.send().await.expect_status(201);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(EventStream::open(shared.call(&greedy, "GET", "/events")).await);
    }
    let wait = tokio::spawn(shared.call(&greedy, "GET", "/projections/p?wait_for=1&timeout=60").send());
    shared.app.wait_for_subscribers(3, 1).await;
    for (path, accept) in
        [("/events", "text/event-stream"), ("/events?after=1&wait=5", "*/*"), ("/projections/p?wait_for=1", "*/*")]
    {
        let refused = shared.call(&greedy, "GET", path).header("accept", accept).send().await;
        let problem = refused.expect_problem(503, "too_many_subscribers");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("close some")), "{problem}");
    }
    open.push(EventStream::open(shared.call(&modest, "GET", "/events")).await);
    assert_eq!(open[3].event().await.position(), 1);
    // The wait ends, and its slot is free.
    let put = shared.call(&greedy, "PUT", "/projections/p").json(&json!({"last_processed_position": 1}));
    put.send().await.expect_status(200);
    wait.await.expect("the task ends").expect_status(200);
    shared.app.wait_for_subscribers(4, 0).await;
}

#[tokio::test]
async fn one_key_cannot_have_all_requests_in_progress() {
    let shared = Shared::start(|options| options.settings.clients.requests_in_progress = 4).await;
    let (greedy, modest) = (shared.key(&["read:*"]).await, shared.key(&["read:*"]).await);
    let open = [
        EventStream::open(shared.call(&greedy, "GET", "/events")).await,
        EventStream::open(shared.call(&greedy, "GET", "/events")).await,
    ];
    shared.call(&greedy, "GET", "/events").send().await.expect_problem(503, "overloaded");
    shared.call(&modest, "GET", "/events").send().await.expect_status(200);
    drop(open);
    within_a_minute("the share is released with the responses", async {
        while shared.call(&greedy, "GET", "/events").send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_wait_is_woken_by_another_process_and_ends_if_the_projection_is_deleted() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["E"; 5]).await;
    let other = TestApp::start_on(app.database.clone(), TestOptions::default()).await;
    let put = |position: u64| {
        other.call("PUT", "/projections/p").json(&json!({ "last_processed_position": position })).send()
    };
    put(1).await.expect_status(201);
    let wait = |position: u64| tokio::spawn(app.get(&format!("/projections/p?wait_for={position}&timeout=60")).send());
    let (third, fifth, fourth) = (wait(3), wait(5), wait(4));
    app.wait_for_subscribers(0, 3).await;
    put(3).await.expect_status(200);
    assert_eq!(third.await.expect("the task ends").expect_status(200).json()["last_processed_position"], 3);
    put(4).await.expect_status(200);
    fourth.await.expect("the task ends").expect_status(200);
    other.call("DELETE", "/projections/p").send().await.expect_status(204);
    fifth.await.expect("the task ends").expect_problem(404, "projection_not_found");
    app.wait_for_subscribers(0, 0).await;
}

#[tokio::test]
async fn the_writer_takes_small_appends_before_the_large_ones_of_another_key() {
    let shared = Shared::start(|_| {}).await;
    let (greedy, modest) = (shared.key(&["append:Bad*"]).await, shared.key(&["append:Good"]).await);
    let large = json!({"events": [{"event_type": "E", "event_data": "x".repeat(900_000)}]});
    let large = |n: usize| shared.call(&greedy, "POST", &format!("/streams/Bad{n}/1")).json(&large).send();
    let small = shared.call(&modest, "POST", "/streams/Good/1").json(&events(&["E"])).send();
    let (mut holder, mut observer) = (shared.app.database.session().await, shared.app.database.session().await);
    holder.hold_append_lock().await;
    // The writer waits for the lock with the first append, and the others queue behind it.
    let first = tokio::spawn(large(9));
    observer.wait_for_blocked_appends(1).await;
    let queued = async { tokio::join!(futures_util::future::join_all((0..8).map(large)), small) };
    let release = async {
        shared.app.wait_for_queue_length(9).await;
        holder.rollback().await;
    };
    let ((large, small), ()) = tokio::join!(queued, release);
    first.await.expect("the task ends").expect_status(201);
    let position = |reply: &Reply| reply.json()["global_position"].as_i64().expect("a position");
    let mut before = 0;
    for reply in large {
        let reply = reply.expect_status(201);
        before += usize::from(position(&reply) < position(&small));
    }
    small.expect_status(201);
    assert!(before <= 1, "{before} large appends were written before the small one");
}

#[tokio::test]
async fn slow_reducers_of_one_key_leave_workers_for_another_key() {
    let shared = Shared::start(|_| {}).await;
    let all = shared.key(&["admin:*"]).await;
    let (greedy, modest) = (shared.key(&["read:Bad*"]).await, shared.key(&["read:Good"]).await);
    for aggregate_type in ["Bad1", "Bad2", "Bad3"] {
        shared.append(&all, &format!("{aggregate_type}/1"), 9).await.expect_status(201);
        shared.put_reducer(&all, aggregate_type, SLOW).await;
    }
    shared.append(&all, "Good/1", 9).await.expect_status(201);
    shared.put_reducer(&all, "Good", "({ $any: (state) => ({ n: 1 }) })").await;

    let attack: Vec<_> =
        (0..12).map(|n| shared.call(&greedy, "GET", &format!("/aggregates/Bad{}/1/state", n % 3 + 1)).send()).collect();
    let attack = tokio::spawn(futures_util::future::join_all(attack));
    // While the folds of the greedy key run and wait, each state of the other key is computed.
    for _ in 0..5 {
        shared.call(&modest, "GET", "/aggregates/Good/1/state").send().await.expect_status(200);
    }
    assert!(!attack.is_finished(), "the attack was still running");
    attack.abort();
}

#[tokio::test]
async fn a_slow_reducer_delays_no_snapshot_of_another_type_until_its_own_are_made() {
    let shared = Shared::start(|_| {}).await;
    let all = shared.key(&["admin:*"]).await;
    shared.put_reducer(&all, "Bad", SLOW).await;
    shared.put_reducer(&all, "Good", "({ $any: (state) => ({ n: 1 }) })").await;
    // Each of these folds needs seconds, one after the other.
    for n in 0..6 {
        shared.append(&all, &format!("Bad/{n}"), 60).await.expect_status(201);
    }
    shared.append(&all, "Good/1", 10).await.expect_status(201);
    within_a_minute("the snapshot is made", async {
        while shared.call(&all, "GET", "/snapshots/Good/1").send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
    let mut session = shared.app.database.session().await;
    let of_slow_type = session.number("SELECT count(*) FROM snapshots WHERE aggregate_type = 'Bad'").await;
    assert!(of_slow_type < 6, "the snapshot did not wait for those of the slow type");
    // Those are made, too.
    within_a_minute("a snapshot of the slow type is made", async {
        while session.number("SELECT count(*) FROM snapshots WHERE aggregate_type = 'Bad'").await == 0 {
            pause_between_polls().await;
        }
    })
    .await;
    let snapshot: Value = shared.call(&all, "GET", "/snapshots/Good/1").send().await.json();
    assert_eq!(snapshot["version"], 10);
}
