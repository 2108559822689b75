//! Event streams: catch up, then live, without a seam; whoever is slow, cut off or late misses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals::clock::Clock;
use annals::subscriptions::FeedLimits;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{EventStream, Proxy, TestApp, TestDatabase, Wanted, events, within_a_minute};

fn wanted(limits: FeedLimits) -> Wanted {
    let mut wanted = Wanted::default();
    wanted.settings.feed = limits;
    wanted
}

async fn positions(stream: &mut EventStream, count: usize) -> Vec<i64> {
    let mut found = Vec::new();
    while found.len() < count {
        found.push(stream.event().await.position());
    }
    found
}

#[tokio::test]
async fn who_follows_catches_up_and_then_sees_what_happens() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    let mut stream = app.follow("/events?after=1").await;
    assert_eq!(stream.headers()["cache-control"], "no-cache");
    assert_eq!(stream.headers()["x-accel-buffering"], "no");
    assert_eq!(stream.frame().await.expect("a frame").retry, Some(2000));
    let first = stream.message().await;
    assert_eq!((first.event.as_str(), first.id.as_str()), ("", "1:2"));
    assert_eq!(first.json(), app.get("/streams/Order/1/2").send().await.json());
    let (rest, caught_up) = stream.until("caught-up").await;
    assert_eq!(rest.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["1:3"]);
    assert_eq!((caught_up.id.as_str(), caught_up.json()), ("1:3", json!({"position": 3})));
    for n in 4..30 {
        app.append("/streams/Order/1", &["E"]).await;
        assert_eq!(stream.event().await.id, format!("1:{n}"));
    }
    // What is new, and nothing else.
    let mut new = app.follow("/events?after=head").await;
    assert_eq!(new.message().await.event, "caught-up");
    app.append("/streams/Order/1", &["E"]).await;
    assert_eq!(new.event().await.id, "1:30");
    // An empty log.
    let empty = TestApp::start().await;
    let mut stream = empty.follow("/events").await;
    assert_eq!(stream.message().await.id, "1:0");
    empty.append("/streams/Order/1", &["E"]).await;
    assert_eq!(stream.event().await.id, "1:1");
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_id_whatever_after_says() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["E"; 10]).await;
    let resumed = |id: &'static str| app.get("/events?after=2").header("last-event-id", id);
    let mut stream = EventStream::open(resumed("1:7")).await;
    assert_eq!(positions(&mut stream, 3).await, [8, 9, 10]);
    let mut stream = EventStream::open(resumed("9")).await;
    assert_eq!(positions(&mut stream, 1).await, [10]);
    let mut stream = EventStream::open(resumed("")).await;
    assert_eq!(positions(&mut stream, 1).await, [3]);
    let refused = resumed("x").header("accept", "text/event-stream").send().await;
    refused.expect_invalid("header", "Last-Event-ID");
}

#[tokio::test]
async fn one_stream_is_followed_by_versions() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    app.append("/streams/Order/2", &["X"]).await;
    app.append("/streams/Order/1", &["C"]).await;
    let mut stream = app.follow("/streams/Order/1?from_version=2").await;
    let (events, caught_up) = stream.until("caught-up").await;
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!((caught_up.id.as_str(), caught_up.json()), ("3", json!({"position": 4})));
    app.append("/streams/Order/2", &["Y"]).await;
    app.append("/streams/Order/1", &["D", "E"]).await;
    assert_eq!((stream.event().await.id, stream.event().await.id), ("4".to_owned(), "5".to_owned()));
    // It resumes by version, and may begin with what is still to come.
    let resumed = app.get("/streams/Order/1").header("last-event-id", "4");
    assert_eq!(EventStream::open(resumed).await.event().await.id, "5");
    let mut later = app.follow("/streams/Order/1?from_version=7").await;
    assert_eq!(later.message().await.id, "6");
    app.append("/streams/Order/1", &["F", "G"]).await;
    assert_eq!(later.event().await.json()["event_type"], "G");

    let follow = |path: &str| app.get(path).header("accept", "text/event-stream").send();
    follow("/streams/Order/3").await.expect_problem(404, "stream_not_found");
    for name in ["to_version=3", "limit=3", "direction=backward", "after=1"] {
        let name_alone = name.split_once('=').expect("a pair").0;
        follow(&format!("/streams/Order/1?{name}")).await.expect_invalid("parameter", name_alone);
    }
    let wrong = app.get("/streams/Order/1").header("last-event-id", "1:4").header("accept", "text/event-stream");
    wrong.send().await.expect_invalid("header", "Last-Event-ID");
}

#[tokio::test]
async fn a_filtered_stream_tells_where_it_is_though_nothing_matches() {
    let limits = FeedLimits {
        heartbeat: Duration::from_millis(20),
        keep_alive: Duration::from_millis(200),
        ..FeedLimits::default()
    };
    let app = TestApp::start_as(wanted(limits)).await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut stream = app.follow("/events?event_type=Rare").await;
    assert_eq!(stream.message().await.event, "caught-up");
    app.append("/streams/Order/1", &["B", "C"]).await;
    let heartbeat = loop {
        let (events, heartbeat) = stream.until("heartbeat").await;
        assert!(events.is_empty());
        if heartbeat.position() == 3 {
            break heartbeat;
        }
    };
    assert_eq!(heartbeat.id, "1:3");
    // A stream on which nothing happens is not silent.
    let mut comments = 0;
    while comments < 2 {
        comments += u32::from(stream.frame().await.expect("it goes on").comment);
    }
    app.append("/streams/Order/1", &["Rare"]).await;
    assert_eq!(stream.event().await.id, "1:4");
}

#[tokio::test]
async fn a_subscriber_that_reads_slowly_loses_nothing_and_holds_nobody_up() {
    // A ring of ten events: whoever does not keep up has to go to the table.
    let app = TestApp::start_as(wanted(FeedLimits { ring_events: 10, ..FeedLimits::default() })).await;
    let mut slow = app.follow("/events").await;
    let mut fast = app.follow("/events").await;
    assert_eq!(slow.message().await.event, "caught-up");
    let filler = "x".repeat(4_000);
    // More than sockets and buffers take on the way: the slow one's stream stands still.
    for n in 0..30 {
        let many: Vec<_> = (0..200).map(|_| json!({"event_type": "E", "event_data": filler})).collect();
        app.post("/streams/Order/1", &json!({ "events": many })).send().await.expect_status(201);
        let expected: Vec<i64> = (n * 200 + 1..=n * 200 + 200).collect();
        assert_eq!(positions(&mut fast, 200).await, expected);
    }
    let behind = app.metric("annals_subscription_lag_events").await;
    assert!(behind > 10.0, "the slow one is behind: {behind}");
    assert_eq!(positions(&mut slow, 6_000).await, (1..=6_000).collect::<Vec<_>>());
    app.append("/streams/Order/1", &["E"]).await;
    assert_eq!((positions(&mut slow, 1).await, positions(&mut fast, 1).await), (vec![6_001], vec![6_001]));
}

#[tokio::test]
async fn as_many_follow_as_may_and_the_next_is_told_so() {
    let app = TestApp::start_as(wanted(FeedLimits { subscribers: 3, ..FeedLimits::default() })).await;
    app.append("/streams/Order/1", &["E"]).await;
    let streams = [app.follow("/events").await, app.follow("/events").await, app.follow("/streams/Order/1").await];
    assert_eq!(app.metric("annals_subscribers{transport=\"sse\"}").await, 3.0);
    for path in ["/events", "/streams/Order/1"] {
        let refused = app.get(path).header("accept", "text/event-stream").send().await;
        refused.expect_problem(503, "too_many_subscribers");
    }
    app.get("/events?after=1&wait=5").send().await.expect_problem(503, "too_many_subscribers");
    app.get("/events?wait=5").send().await.expect_status(200);
    drop(streams);
    within_a_minute("their places are free", async {
        while app.app.feed.subscribers().0 > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(app.follow("/events").await.event().await.id, "1:1");
}

#[tokio::test]
async fn a_shutdown_ends_the_streams_first_and_they_come_back_by_themselves() {
    let database = TestDatabase::create().await;
    let first = TestApp::start_on(database.clone(), Wanted::default()).await;
    first.append("/streams/Order/1", &["E"]).await;
    let mut stream = first.follow("/events").await;
    let last = stream.event().await;
    stream.until("caught-up").await;
    // A stopped process does not wait for streams that never end.
    assert!(first.stop().await, "an orderly end");
    let mut frames = Vec::new();
    while let Some(frame) = stream.frame().await {
        frames.push(frame);
    }
    assert_eq!(frames.iter().map(|frame| frame.retry).collect::<Vec<_>>(), [Some(2000)]);
    // As EventSource does: to the next process, with the last id.
    let second = TestApp::start_on(database, Wanted::default()).await;
    second.append("/streams/Order/1", &["E"]).await;
    let again = second.get("/events").header("last-event-id", &last.id);
    assert_eq!(EventStream::open(again).await.event().await.id, "1:2");
}

#[tokio::test]
async fn what_another_replica_writes_is_seen_in_order() {
    let database = TestDatabase::create().await;
    let replicas = [
        TestApp::start_on(database.clone(), Wanted::default()).await,
        TestApp::start_on(database, Wanted::default()).await,
    ];
    let mut streams = [replicas[0].follow("/events").await, replicas[1].follow("/events").await];
    let appends =
        (0..200).map(|n| replicas[n % 2].post(&format!("/streams/S/{}", n % 20), &events(&["A", "B"])).send());
    let appended = async { futures_util::future::join_all(appends).await.len() };
    let [one, other] = &mut streams;
    let (seen, also_seen, _) = tokio::join!(positions(one, 400), positions(other, 400), appended);
    assert_eq!(seen, (1..=400).collect::<Vec<_>>());
    assert_eq!(seen, also_seen);
}

#[tokio::test]
async fn a_database_that_goes_away_interrupts_nobody_for_good() {
    let database = TestDatabase::create().await;
    let proxy = Proxy::start(&database).await;
    let app = TestApp::start_with(proxy.config(&database), database.clone(), Wanted::default()).await;
    let beside = TestApp::start_on(database, Wanted::default()).await;
    app.append("/streams/Order/1", &["E"]).await;
    let mut stream = app.follow("/events").await;
    stream.until("caught-up").await;
    for round in 1..=5i64 {
        proxy.down();
        beside.append("/streams/Order/1", &["E", "E"]).await;
        proxy.up();
        assert_eq!(positions(&mut stream, 2).await, [round * 2, round * 2 + 1]);
    }
    // Nobody can begin to follow while it is away; who follows already need not know.
    proxy.down();
    let refused = app.get("/events").header("accept", "text/event-stream").send().await;
    refused.expect_problem(503, "database_unavailable");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let mut wanted = wanted(FeedLimits::default());
    wanted.settings.clients.stalled = Duration::from_millis(300);
    let app = TestApp::start_as(wanted).await;
    let filler = "x".repeat(100_000);
    let body = json!({"events": [{"event_type": "E", "event_data": filler}]});
    let mut connection =
        TcpStream::connect(app.base.strip_prefix("http://").expect("a URL")).await.expect("a connection");
    let request = "GET /events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n";
    connection.write_all(request.as_bytes()).await.expect("it is sent");
    within_a_minute("its place is free", async {
        while app.app.feed.subscribers().0 == 0 {
            tokio::task::yield_now().await;
        }
        // Until sockets and buffers are full, and then some time.
        while app.app.feed.subscribers().0 > 0 {
            app.post("/streams/Order/1", &body).send().await.expect_status(201);
        }
    })
    .await;
    drop(connection);
}

/// How many events the next test writes, and how many follow: `ANNALS_TEST_EVENTS=200000 cargo test …` for a long run.
fn size() -> (u64, usize) {
    let events = std::env::var("ANNALS_TEST_EVENTS").ok().map(|value| value.parse().expect("a number"));
    (events.unwrap_or(4_000), 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_follow_with_interruptions_and_each_sees_everything_once() {
    const SLOW: usize = 5;
    let (total, subscribers) = size();
    let app = TestApp::start_as(wanted(FeedLimits { ring_events: 1_000, ..FeedLimits::default() })).await;
    let base = app.base.clone();
    let writes = async {
        let written = std::sync::atomic::AtomicU64::new(0);
        let writer = |n: u64| {
            let (app, written) = (&app, &written);
            async move {
                while written.fetch_add(20, std::sync::atomic::Ordering::SeqCst) < total {
                    app.append(&format!("/streams/Order/{n}"), &["E"; 20]).await;
                }
            }
        };
        futures_util::future::join_all((0..8).map(writer)).await;
    };
    let readers = (0..subscribers).map(|n| tokio::spawn(reader(base.clone(), n, total as i64, n < SLOW)));
    let readers: Vec<_> = readers.collect();
    writes.await;
    let mut delays = Vec::new();
    let mut reconnected = 0;
    for reader in readers {
        let seen = reader.await.expect("a reader ends");
        reconnected += seen.connections - 1;
        delays.extend(seen.delays);
    }
    delays.sort_unstable();
    let quantile = |q: f64| delays[((delays.len() - 1) as f64 * q) as usize];
    eprintln!(
        "{subscribers} subscribers, {total} events, {reconnected} reconnections: append to delivery p50 {:?} p99 {:?}",
        quantile(0.5),
        quantile(0.99)
    );
    assert!(reconnected > 50, "they were interrupted: {reconnected}");
    within_a_minute("all places are free", async {
        while app.app.feed.subscribers().0 > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

struct Seen {
    connections: u32,
    delays: Vec<Duration>,
}

/// Follows to the end with a connection that it drops now and then; some read slowly.
async fn reader(base: String, n: usize, total: i64, slow: bool) -> Seen {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    let mut last: Option<String> = None;
    let mut seen = Seen { connections: 0, delays: Vec::new() };
    let mut position = 0;
    let mut random = n as u64 + 1;
    while position < total {
        let mut request = client.get(format!("{base}/events?after=0")).header("accept", "text/event-stream");
        if let Some(last) = &last {
            request = request.header("last-event-id", last);
        }
        let mut stream = EventStream::of(request.send().await.expect("it connects"));
        seen.connections += 1;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Every second connection breaks somewhere in the rest.
        let breaks_at = position + 1 + (random >> 33) as i64 % (2 * (total - position) + 1);
        while position < total && position < breaks_at {
            let frame = stream.event().await;
            assert_eq!(frame.position(), position + 1, "reader {n}: missed or doubled");
            position += 1;
            let event = frame.json();
            // The versions of each stream are without a hole, too.
            let version = versions.entry(event["aggregate_id"].as_str().expect("an id").to_owned()).or_default();
            *version += 1;
            assert_eq!(event["version"], *version);
            let occurred_at = crate::support::at(event["occurred_at"].as_str().expect("a time"));
            if let Ok(delay) = (Clock::system().now() - occurred_at).to_std() {
                seen.delays.push(delay);
            }
            last = Some(frame.id);
            if slow && position % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
    assert_eq!(position, total);
    seen
}

#[tokio::test]
async fn every_subscriber_of_many_filters_sees_its_own() {
    let app = TestApp::start().await;
    let mut streams = Vec::new();
    for n in 0..10 {
        streams.push(app.follow(&format!("/events?aggregate_type=T{n}")).await);
    }
    let mut expected: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
    for position in 1..=100usize {
        let n = position * position % 10;
        app.append(&format!("/streams/T{n}/1"), &["E"]).await;
        expected.entry(n).or_default().insert(position as i64);
    }
    for (n, wanted) in expected {
        assert_eq!(positions(&mut streams[n], wanted.len()).await, wanted.into_iter().collect::<Vec<_>>());
    }
}
