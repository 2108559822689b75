//! Promise P6: event streams. A subscriber catches up and continues with live events. A subscriber that is slow,
//! disconnected or late misses no event and gets no event out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals::clock::Clock;
use annals::subscriptions::feed::FeedLimits;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::{
    EventStream, Proxy, TestApp, TestDatabase, TestOptions, events, http_client, pause_between_polls, within_a_minute,
};

fn with_limits(limits: FeedLimits) -> TestOptions {
    let mut options = TestOptions::default();
    options.settings.feed = limits;
    options
}

/// The size of the ring buffer in the test with many subscribers. A slow subscriber is further behind.
const RING_EVENTS: usize = 1_000;

async fn positions(stream: &mut EventStream, count: usize) -> Vec<i64> {
    let mut found = Vec::new();
    while found.len() < count {
        found.push(stream.event().await.position());
    }
    found
}

#[tokio::test]
async fn a_subscriber_catches_up_and_then_gets_live_events() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    let mut stream = app.subscribe("/events?after=1").await;
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
    // A subscription at the head gets only events that are appended later.
    let mut new = app.subscribe("/events?after=head").await;
    assert_eq!(new.message().await.event, "caught-up");
    app.append("/streams/Order/1", &["E"]).await;
    assert_eq!(new.event().await.id, "1:30");
    // A subscriber of an empty log.
    let empty = TestApp::start().await;
    let mut stream = empty.subscribe("/events").await;
    assert_eq!(stream.message().await.id, "1:0");
    empty.append("/streams/Order/1", &["E"]).await;
    assert_eq!(stream.event().await.id, "1:1");
}

#[tokio::test]
async fn last_event_id_takes_precedence_over_the_parameter_after() {
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
async fn an_event_stream_of_one_stream_uses_versions() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    app.append("/streams/Order/2", &["X"]).await;
    app.append("/streams/Order/1", &["C"]).await;
    let mut stream = app.subscribe("/streams/Order/1?from_version=2").await;
    let (events, caught_up) = stream.until("caught-up").await;
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    assert_eq!((caught_up.id.as_str(), caught_up.json()), ("3", json!({"position": 4})));
    app.append("/streams/Order/2", &["Y"]).await;
    app.append("/streams/Order/1", &["D", "E"]).await;
    assert_eq!((stream.event().await.id, stream.event().await.id), ("4".to_owned(), "5".to_owned()));
    // A subscriber resumes by version, and may begin with a version that does not exist yet.
    let resumed = app.get("/streams/Order/1").header("last-event-id", "4");
    assert_eq!(EventStream::open(resumed).await.event().await.id, "5");
    let mut later = app.subscribe("/streams/Order/1?from_version=7").await;
    // The id never exceeds the head, so that the client can resume with it.
    let caught_up = later.message().await;
    assert_eq!((caught_up.id.as_str(), caught_up.event.as_str()), ("5", "caught-up"));
    let resumed = app.get("/streams/Order/1?from_version=7").header("last-event-id", &caught_up.id);
    let mut resumed = EventStream::open(resumed).await;
    assert_eq!(resumed.message().await.id, "5");
    app.append("/streams/Order/1", &["F", "G"]).await;
    assert_eq!(later.event().await.json()["event_type"], "G");
    assert_eq!(resumed.event().await.json()["event_type"], "G");

    let subscribe = |path: &str| app.get(path).header("accept", "text/event-stream").send();
    subscribe("/streams/Order/3").await.expect_problem(404, "stream_not_found");
    for query in ["to_version=3", "limit=3", "direction=backward", "after=1"] {
        let parameter = query.split_once('=').expect("a pair").0;
        subscribe(&format!("/streams/Order/1?{query}")).await.expect_invalid("parameter", parameter);
    }
    let wrong = app.get("/streams/Order/1").header("last-event-id", "1:4").header("accept", "text/event-stream");
    wrong.send().await.expect_invalid("header", "Last-Event-ID");
}

#[tokio::test]
async fn a_filtered_event_stream_reports_its_position_without_matching_events() {
    let limits = FeedLimits {
        heartbeat: Duration::from_millis(20),
        keep_alive: Duration::from_millis(200),
        ..FeedLimits::default()
    };
    let app = TestApp::start_with(with_limits(limits)).await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut stream = app.subscribe("/events?event_type=Rare").await;
    let (events, _) = stream.until("caught-up").await;
    assert!(events.is_empty());
    app.append("/streams/Order/1", &["B", "C"]).await;
    let heartbeat = loop {
        let (events, heartbeat) = stream.until("heartbeat").await;
        assert!(events.is_empty());
        if heartbeat.position() == 3 {
            break heartbeat;
        }
    };
    assert_eq!(heartbeat.id, "1:3");
    // An idle event stream sends comments.
    let mut comments = 0;
    while comments < 2 {
        comments += u32::from(stream.frame().await.expect("the stream continues").comment);
    }
    app.append("/streams/Order/1", &["Rare"]).await;
    assert_eq!(stream.event().await.id, "1:4");
}

#[tokio::test]
async fn a_slow_subscriber_misses_nothing_and_does_not_delay_others() {
    // The ring buffer has ten events, so a slow subscriber must read the table.
    let app = TestApp::start_with(with_limits(FeedLimits { ring_events: 10, ..FeedLimits::default() })).await;
    let mut slow = app.subscribe("/events").await;
    let mut fast = app.subscribe("/events").await;
    assert_eq!(slow.message().await.event, "caught-up");
    let filler = "x".repeat(4_000);
    // The events exceed all buffers on the way, so the event stream of the slow subscriber stalls.
    for n in 0..30 {
        let many: Vec<_> = (0..200).map(|_| json!({"event_type": "E", "event_data": filler})).collect();
        app.post("/streams/Order/1", &json!({ "events": many })).send().await.expect_status(201);
        let expected: Vec<i64> = (n * 200 + 1..=n * 200 + 200).collect();
        assert_eq!(positions(&mut fast, 200).await, expected);
    }
    let behind = app.metric("annals_subscription_lag_events").await;
    assert!(behind > 10.0, "the slow subscriber is behind: {behind}");
    assert_eq!(positions(&mut slow, 6_000).await, (1..=6_000).collect::<Vec<_>>());
    app.append("/streams/Order/1", &["E"]).await;
    assert_eq!((positions(&mut slow, 1).await, positions(&mut fast, 1).await), (vec![6_001], vec![6_001]));
}

#[tokio::test]
async fn subscribers_above_the_limit_are_refused() {
    // One client holds at most as many slots as remain free.
    let app = TestApp::start_with(with_limits(FeedLimits { subscribers: 6, ..FeedLimits::default() })).await;
    app.append("/streams/Order/1", &["E"]).await;
    let streams =
        [app.subscribe("/events").await, app.subscribe("/events").await, app.subscribe("/streams/Order/1").await];
    assert_eq!(app.metric("annals_subscribers{transport=\"sse\"}").await, 3.0);
    for path in ["/events", "/streams/Order/1"] {
        let refused = app.get(path).header("accept", "text/event-stream").send().await;
        refused.expect_problem(503, "too_many_subscribers");
    }
    app.get("/events?after=1&wait=5").send().await.expect_problem(503, "too_many_subscribers");
    app.get("/events?wait=5").send().await.expect_status(200);
    drop(streams);
    within_a_minute("the slots of the subscribers are free", async {
        while app.app.feed.subscribers().0 > 0 {
            pause_between_polls().await;
        }
    })
    .await;
    assert_eq!(app.subscribe("/events").await.event().await.id, "1:1");
}

#[tokio::test]
async fn a_shutdown_ends_event_streams_first_and_clients_resume_on_the_next_process() {
    let database = TestDatabase::create().await;
    let first = TestApp::start_on(database.clone(), TestOptions::default()).await;
    first.append("/streams/Order/1", &["E"]).await;
    let mut stream = first.subscribe("/events").await;
    let last = stream.event().await;
    stream.until("caught-up").await;
    // The shutdown does not wait for event streams, because they do not end by themselves.
    assert!(first.stop().await, "the shutdown is orderly");
    let mut frames = Vec::new();
    while let Some(frame) = stream.frame().await {
        frames.push(frame);
    }
    assert_eq!(frames.iter().map(|frame| frame.retry).collect::<Vec<_>>(), [Some(2000)]);
    // The client reconnects to the next process with the last id, as EventSource does.
    let second = TestApp::start_on(database, TestOptions::default()).await;
    second.append("/streams/Order/1", &["E"]).await;
    let again = second.get("/events").header("last-event-id", &last.id);
    assert_eq!(EventStream::open(again).await.event().await.id, "1:2");
}

#[tokio::test]
async fn events_of_another_replica_are_delivered_in_order() {
    let database = TestDatabase::create().await;
    let replicas = [
        TestApp::start_on(database.clone(), TestOptions::default()).await,
        TestApp::start_on(database, TestOptions::default()).await,
    ];
    let mut streams = [replicas[0].subscribe("/events").await, replicas[1].subscribe("/events").await];
    let appends =
        (0..200).map(|n| replicas[n % 2].post(&format!("/streams/S/{}", n % 20), &events(&["A", "B"])).send());
    let appended = async { futures_util::future::join_all(appends).await.len() };
    let [one, other] = &mut streams;
    let (first, second, _) = tokio::join!(positions(one, 400), positions(other, 400), appended);
    assert_eq!(first, (1..=400).collect::<Vec<_>>());
    assert_eq!(first, second);
}

#[tokio::test]
async fn an_event_stream_resumes_after_an_outage_of_the_database() {
    let database = TestDatabase::create().await;
    let proxy = Proxy::start(&database).await;
    let app = TestApp::start_with_config(proxy.config(&database), database.clone(), TestOptions::default()).await;
    let other = TestApp::start_on(database, TestOptions::default()).await;
    app.append("/streams/Order/1", &["E"]).await;
    let mut stream = app.subscribe("/events").await;
    stream.until("caught-up").await;
    for round in 1..=5i64 {
        proxy.down();
        other.append("/streams/Order/1", &["E", "E"]).await;
        proxy.up();
        assert_eq!(positions(&mut stream, 2).await, [round * 2, round * 2 + 1]);
    }
    // During an outage, no subscription can begin.
    proxy.down();
    let refused = app.get("/events").header("accept", "text/event-stream").send().await;
    refused.expect_problem(503, "database_unavailable");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let mut options = TestOptions::default();
    options.settings.clients.stalled = Duration::from_millis(300);
    let app = TestApp::start_with(options).await;
    let filler = "x".repeat(100_000);
    let body = json!({"events": [{"event_type": "E", "event_data": filler}]});
    let mut connection =
        TcpStream::connect(app.base.strip_prefix("http://").expect("a URL")).await.expect("a connection");
    let request = "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
    connection.write_all(request.as_bytes()).await.expect("the request is sent");
    within_a_minute("the slot of the client is free", async {
        while app.app.feed.subscribers().0 == 0 {
            pause_between_polls().await;
        }
        // The buffers fill up, and then the time limit expires.
        while app.app.feed.subscribers().0 > 0 {
            app.post("/streams/Order/1", &body).send().await.expect_status(201);
        }
    })
    .await;
    drop(connection);
}

/// Returns the number of events and the number of subscribers of the next test. For a long run:
/// `ANNALS_TEST_EVENTS=1000000 cargo test …`.
fn size() -> (u64, usize) {
    let events = std::env::var("ANNALS_TEST_EVENTS").ok().map(|value| value.parse().expect("a number"));
    (events.unwrap_or(4_000), 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_200_subscribers_gets_every_event_once_despite_disconnects() {
    const SLOW: usize = 5;
    let (total, subscribers) = size();
    let ring = i64::try_from(RING_EVENTS).expect("a number");
    let app = TestApp::start_with(with_limits(FeedLimits { ring_events: RING_EVENTS, ..FeedLimits::default() })).await;
    let base = app.base.clone();
    let acknowledged = watch::Sender::new(0);
    let writes = async {
        let begun = std::sync::atomic::AtomicU64::new(0);
        let writer = |n: u64| {
            let (app, begun, acknowledged) = (&app, &begun, &acknowledged);
            async move {
                while begun.fetch_add(20, std::sync::atomic::Ordering::SeqCst) < total {
                    app.append(&format!("/streams/Order/{n}"), &["E"; 20]).await;
                    acknowledged.send_modify(|events| *events += 20);
                }
            }
        };
        futures_util::future::join_all((0..8).map(writer)).await;
    };
    let readers = (0..subscribers).map(|n| {
        let pace = (n < SLOW).then(|| Pace { acknowledged: acknowledged.subscribe(), behind: 2 * ring });
        tokio::spawn(reader(base.clone(), n, total as i64, pace))
    });
    let readers: Vec<_> = readers.collect();
    writes.await;
    let mut delays = Vec::new();
    let mut reconnected = 0;
    for reader in readers {
        let received = reader.await.expect("the reader does not panic");
        reconnected += received.connections - 1;
        delays.extend(received.delays);
    }
    delays.sort_unstable();
    let quantile = |q: f64| delays[((delays.len() - 1) as f64 * q) as usize];
    eprintln!(
        "{subscribers} subscribers, {total} events, {reconnected} reconnections: append to delivery p50 {:?} p99 {:?}",
        quantile(0.5),
        quantile(0.99)
    );
    assert!(reconnected > 50, "the subscribers were disconnected: {reconnected}");
    within_a_minute("all slots are free", async {
        while app.app.feed.subscribers().0 > 0 {
            pause_between_polls().await;
        }
    })
    .await;
}

/// The connections and the delays of one subscriber.
struct Received {
    connections: u32,
    delays: Vec<Duration>,
}

/// The pace of a slow subscriber. It pauses until it is `behind` events behind, or until all events are appended.
struct Pace {
    acknowledged: watch::Receiver<i64>,
    behind: i64,
}

/// Reads the log to its end, and drops some connections before. A slow subscriber has a pace.
async fn reader(base: String, n: usize, total: i64, mut pace: Option<Pace>) -> Received {
    let client = http_client().build().expect("a client");
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    let mut last: Option<String> = None;
    let mut received = Received { connections: 0, delays: Vec::new() };
    let mut position = 0;
    let mut random = n as u64 + 1;
    while position < total {
        let mut request = client.get(format!("{base}/events?after=0")).header("accept", "text/event-stream");
        if let Some(last) = &last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.expect("the reader connects");
        if response.status() == 503 {
            // On a busy machine, no connection to PostgreSQL may be free in time. A client then repeats its request.
            continue;
        }
        let mut stream = EventStream::from_response(response);
        received.connections += 1;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // About every second connection is dropped before the end.
        let dropped_at = position + 1 + (random >> 33) as i64 % (2 * (total - position) + 1);
        while position < total && position < dropped_at {
            let frame = stream.event().await;
            assert_eq!(frame.position(), position + 1, "reader {n} missed an event or got one twice");
            position += 1;
            let event = frame.json();
            // The versions of each stream have no gap either.
            let version = versions.entry(event["aggregate_id"].as_str().expect("an id").to_owned()).or_default();
            *version += 1;
            assert_eq!(event["version"], *version);
            let occurred_at = crate::support::at(event["occurred_at"].as_str().expect("a time"));
            if let Ok(delay) = (Clock::system().now() - occurred_at).to_std()
                && pace.is_none()
            {
                received.delays.push(delay);
            }
            last = Some(frame.id);
            if let Some(Pace { acknowledged, behind }) = &mut pace
                && position % 100 == 0
            {
                let until = (position + *behind).min(total);
                acknowledged.wait_for(|events| *events >= until).await.expect("the writers still run");
            }
        }
    }
    assert_eq!(position, total);
    received
}

#[tokio::test]
async fn each_of_many_filtered_subscribers_gets_its_events() {
    let app = TestApp::start().await;
    let mut streams = Vec::new();
    for n in 0..10 {
        streams.push(app.subscribe(&format!("/events?aggregate_type=T{n}")).await);
    }
    let mut expected: BTreeMap<usize, BTreeSet<i64>> = BTreeMap::new();
    for position in 1..=100usize {
        let n = position * position % 10;
        app.append(&format!("/streams/T{n}/1"), &["E"]).await;
        expected.entry(n).or_default().insert(position as i64);
    }
    for (n, matching) in expected {
        assert_eq!(positions(&mut streams[n], matching.len()).await, matching.into_iter().collect::<Vec<_>>());
    }
}
