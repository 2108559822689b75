//! Promise P3, P6: reads of the log as pages, NDJSON, CloudEvents and long polls miss no event. The results of filters
//! are compared with a simple model.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use annals::domain::cursor::Cursor;
use annals::domain::filter::EventFilter;
use annals::domain::partition::bucket;
use annals::store::log::backward::scan::BackwardScan;
use annals::store::log::scan::{LogScan, ScanLimits};
use annals::subscriptions::feed::FeedLimits;
use proptest::strategy::{Strategy, ValueTree};
use serde_json::{Value, json};

use crate::backward::{pages_backward, position};
use crate::support::{TestApp, TestOptions, at, events, id};

fn positions(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["global_position"].as_u64().expect("a position")).collect()
}

#[tokio::test]
async fn pages_cover_the_whole_log() {
    let app = TestApp::start().await;
    let empty = app.get("/events").send().await.expect_status(200);
    assert_eq!(
        empty.json(),
        json!({"events": [], "next_after": 0, "head": 0, "at_head": true, "epoch": 1, "next": "/events?after=1:0"})
    );
    for n in 0..5 {
        app.append(&format!("/streams/Order/{n}"), &["A", "B", "C", "D", "E"]).await;
    }
    let mut path = "/events?limit=7".to_owned();
    let mut seen = Vec::new();
    loop {
        let reply = app.get(&path).send().await.expect_status(200);
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
        assert_eq!(reply.header("etag"), None);
        let page = reply.json();
        let next = page["next"].as_str().expect("every page has a next one");
        assert_eq!(reply.header("link"), Some(format!("<{next}>; rel=\"next\"").as_str()));
        assert_eq!(page["head"], 25);
        seen.extend(positions(&page));
        assert_eq!(page["next_after"].as_u64(), seen.last().copied());
        assert_eq!(page["at_head"], seen.len() == 25);
        assert_eq!(next, format!("/events?after=1:{}&limit=7", seen.len()));
        path = next.to_owned();
        if page["at_head"] == true {
            break;
        }
    }
    assert_eq!(seen, (1..=25).collect::<Vec<_>>());
    let at_head = app.get(&path).send().await.json();
    assert_eq!((positions(&at_head), &at_head["next_after"], &at_head["at_head"]), (vec![], &json!(25), &json!(true)));
    // An event is the same on every route.
    let page = app.get("/events?after=7&limit=1").send().await.json();
    assert_eq!(page["events"][0], app.get("/streams/Order/1/3").send().await.json());
    assert_eq!(app.get("/events?after=head").send().await.json()["next_after"], 25);
}

#[tokio::test]
async fn invalid_parameters_are_refused() {
    let app = TestApp::start().await;
    for (query, name) in [
        ("after=x", "after"),
        ("after=-1", "after"),
        ("after=", "after"),
        ("after=1&after=2", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("wait=61", "wait"),
        ("wait=x", "wait"),
        ("aggregate_type=", "aggregate_type"),
        ("aggregate_type=a%2Fb", "aggregate_type"),
        ("aggregate_id=1", "aggregate_id"),
        ("aggregate_id=1&aggregate_type=A&aggregate_type=B", "aggregate_id"),
        ("event_type=%20a", "event_type"),
        ("correlation_id=", "correlation_id"),
        ("occurred_from=yesterday", "occurred_from"),
        ("occurred_to=2026-01-01", "occurred_to"),
        ("occurred_to=2026-01-01+00:00:00Z", "occurred_to"),
        ("occurred_to=9999-12-31T23:59:59.9999999Z", "occurred_to"),
        ("occurred_from=0000-01-01T00:00:00Z", "occurred_from"),
        ("occurred_from=2026-01-02T00:00:00Z&occurred_to=2026-01-01T00:00:00Z", "occurred_from"),
        ("min_position=x", "min_position"),
        ("from=1", "from"),
    ] {
        app.get(&format!("/events?{query}")).send().await.expect_invalid("parameter", name);
    }
    let many: String = (0..101).map(|n| format!("&event_type=E{n}")).collect();
    app.get(&format!("/events?{}", &many[1..])).send().await.expect_invalid("parameter", "event_type");
    let lines = |query: &str| app.get(&format!("/events?{query}")).header("accept", "application/x-ndjson").send();
    lines("wait=1").await.expect_invalid("parameter", "wait");
    for query in ["limit=1", "wait=1"] {
        let stream = app.get(&format!("/events?{query}")).header("accept", "text/event-stream").send().await;
        stream.expect_invalid("parameter", query.split_once('=').expect("a pair").0);
    }
    app.get("/events").header("accept", "text/html").send().await.expect_problem(406, "not_acceptable");
    app.call("DELETE", "/events").send().await.expect_problem(405, "method_not_allowed");
    // HEAD returns the headers of each representation, and opens no subscription.
    for accept in
        ["application/json", "application/x-ndjson", "text/event-stream", "application/cloudevents-batch+json"]
    {
        let head = app.call("HEAD", "/events").header("accept", accept).send().await.expect_status(200);
        assert_eq!((head.header("content-type"), head.body.len()), (Some(accept), 0));
    }
    assert_eq!(app.app.feed.subscribers(), (0, 0));
}

#[tokio::test]
async fn ndjson_ends_with_an_end_line() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &vec!["E"; 600]).await;
    app.append("/streams/Invoice/1", &vec!["E"; 600]).await;
    let lines = |query: &str| app.get(&format!("/events{query}")).header("accept", "application/x-ndjson").send();
    for (query, count, next_after) in [
        ("", 1200, 1200),
        ("?after=1:100", 1100, 1200),
        ("?limit=5", 5, 5),
        ("?limit=5000", 1200, 1200),
        ("?aggregate_type=Invoice", 600, 1200),
        ("?aggregate_type=Invoice&limit=10", 10, 610),
        ("?aggregate_type=Nothing", 0, 1200),
        ("?after=1200", 0, 1200),
        ("?after=head", 0, 1200),
    ] {
        let reply = lines(query).await.expect_status(200).lines();
        assert_eq!(reply.len(), count + 1, "{query}");
        assert_eq!(reply[count], json!({"end": {"count": count, "next_after": next_after}}), "{query}");
    }
    let all = lines("").await.lines();
    assert_eq!(all[700], app.get("/streams/Invoice/1/101").send().await.json());
}

#[tokio::test]
async fn cloud_events_have_the_same_content() {
    let app = TestApp::start().await;
    let body = json!({"events": [
        {"event_id": id(1), "event_type": "OrderPlaced", "event_data": {"total": 4.50}, "correlation_id": id(2), "causation_id": id(3)},
        {"event_id": id(4), "event_type": "Größe \"M\"", "event_data": [1, "x"], "metadata": {"by": "ann"}},
    ]});
    app.post("/streams/Order/%C3%A4%20%221%22", &body).send().await.expect_status(201);
    let batch = |path: &str| app.get(path).header("accept", "application/cloudevents-batch+json").send();
    let reply = batch("/events").await.expect_status(200);
    assert_eq!(reply.header("content-type"), Some("application/cloudevents-batch+json"));
    assert_eq!(reply.header("link"), Some("</events?after=1:2>; rel=\"next\""));
    let events = reply.json();
    let written = app.get("/events").send().await.json();
    assert_eq!(
        events[0],
        json!({
            "specversion": "1.0", "id": id(1), "source": "/streams/Order/%C3%A4%20%221%22", "type": "OrderPlaced",
            "subject": "ä \"1\"", "time": written["events"][0]["occurred_at"], "datacontenttype": "application/json",
            "sequence": "0000000000000000001", "globalposition": "1", "correlationid": id(2), "causationid": id(3),
            "data": {"total": 4.50},
        })
    );
    assert_eq!((&events[1]["data"], &events[1]["type"]), (&json!([1, "x"]), &json!("Größe \"M\"")));
    // An attribute without a value is omitted.
    assert!(events[1].get("correlationid").is_none() && events[1].get("causationid").is_none());
    let stream = batch("/streams/Order/%C3%A4%20%221%22?limit=1").await.expect_status(200);
    assert_eq!(stream.header("etag"), Some("\"2\""));
    assert_eq!(stream.json(), json!([events[0]]));
    assert!(stream.header("link").is_some_and(|link| link.contains("from_version=2")));
    assert_eq!(batch("/streams/Order/%C3%A4%20%221%22?from_version=3").await.json(), json!([]));
    assert_eq!(batch("/events?after=head").await.json(), json!([]));
}

#[tokio::test]
async fn large_responses_are_compressed_on_request() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &vec!["E"; 100]).await;
    let plain = app.get("/events").send().await;
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.headers.get_all("vary").iter().collect::<Vec<_>>(), ["accept", "accept-encoding"]);
    for coding in ["gzip", "zstd"] {
        let get = |path: &str| app.get(path).header("accept-encoding", coding).send();
        let compressed = get("/events").await.expect_status(200);
        assert_eq!(compressed.header("content-encoding"), Some(coding));
        assert!(compressed.body.len() * 3 < plain.body.len());
        // The ETag is the version in every coding.
        let stream = get("/streams/Order/1").await;
        assert_eq!((stream.header("etag"), stream.header("content-encoding")), (Some("\"100\""), Some(coding)));
        assert_eq!(get("/events?limit=1").await.header("content-encoding"), None, "a small response is not compressed");
        // NDJSON is complete: the client fails on a truncated response.
        for path in ["/events", "/streams/Order/1", "/events?limit=1"] {
            let lines = app.get(path).header("accept", "application/x-ndjson").header("accept-encoding", coding);
            let lines = lines.send().await.expect_status(200);
            assert_eq!(lines.header("content-encoding"), Some(coding));
            assert!(lines.body.len() > 50, "{path}");
        }
    }
    let event_stream =
        app.get("/events").header("accept", "text/event-stream").header("accept-encoding", "gzip").open().await;
    assert_eq!(event_stream.headers().get("content-encoding"), None);
    let none = app.get("/events").header("accept-encoding", "identity;q=0, *;q=0").send().await;
    none.expect_problem(406, "not_acceptable");
    // An append is not refused because of the coding of its response.
    let written = app.post("/streams/Order/1", &events(&["E"])).header("accept-encoding", "identity;q=0, *;q=0");
    written.send().await.expect_status(201);
}

#[tokio::test]
async fn a_long_poll_returns_when_a_matching_event_is_appended() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    // The event exists before the request.
    assert_eq!(positions(&app.get("/events?wait=60").send().await.json()), [1]);
    // No event is appended before the time limit of the request.
    let nothing = app.get("/events?after=1&wait=1").send().await.expect_status(200).json();
    assert_eq!((positions(&nothing), &nothing["at_head"]), (vec![], &json!(true)));
    // Events are appended while three requests wait.
    let polls = async {
        tokio::join!(
            app.get("/events?after=1&wait=60").send(),
            app.get("/events?after=1&wait=60&event_type=C").send(),
            app.get("/events?after=head&wait=60&aggregate_type=Order").send(),
        )
    };
    let appends = async {
        app.wait_for_subscribers(0, 3).await;
        app.append("/streams/Invoice/1", &["B"]).await;
        app.append("/streams/Order/1", &["C"]).await;
    };
    let ((any, typed, of_orders), ()) = tokio::join!(polls, appends);
    assert_eq!(positions(&any.json())[0], 2);
    assert_eq!((positions(&typed.json()), positions(&of_orders.json())), (vec![3], vec![3]));

    // A shutdown ends a long poll.
    let waiting = app.get("/events?after=3&wait=60").send();
    let (reply, ()) = tokio::join!(waiting, async {
        app.wait_for_subscribers(0, 1).await;
        app.app.shutdown.begin();
    });
    assert_eq!(positions(&reply.expect_status(200).json()), Vec::<u64>::new());
}

#[tokio::test]
async fn a_min_position_that_is_not_reached_in_time_is_refused() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    for path in ["/events?min_position=2", "/streams/Order/1?min_position=2", "/events?min_position=0"] {
        app.get(path).send().await.expect_status(200);
    }
    let behind = app.get("/events?min_position=3").send().await.expect_problem(503, "replica_behind");
    assert_eq!(behind["head"], 2);
    app.get("/streams/Order/1?min_position=3").send().await.expect_problem(503, "replica_behind");
}

#[tokio::test]
async fn a_filtered_page_ends_after_a_bounded_scan_with_its_position() {
    let limits = FeedLimits { scan: ScanLimits { first_window: 10, time: Duration::ZERO }, ..FeedLimits::default() };
    let mut options = TestOptions::default();
    options.settings.feed = limits;
    let app = TestApp::start_with(options).await;
    app.append("/streams/Order/1", &vec!["E"; 95]).await;
    app.append("/streams/Order/1", &["Rare"]).await;
    let mut path = "/events?event_type=Rare".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = app.get(&path).send().await.expect_status(200).json();
        pages.push((page["next_after"].as_u64().expect("a position"), positions(&page)));
        path = page["next"].as_str().expect("next").to_owned();
        if page["at_head"] == true {
            break;
        }
    }
    let mut expected: Vec<_> = (1..10).map(|n| (n * 10, vec![])).collect();
    expected.push((96, vec![96]));
    assert_eq!(pages, expected);
    // NDJSON and event streams continue with the next scan.
    let lines = app.get("/events?event_type=Rare").header("accept", "application/x-ndjson").send().await.lines();
    assert_eq!(lines[1], json!({"end": {"count": 1, "next_after": 96}}));
    let mut stream = app.subscribe("/events?event_type=Rare").await;
    assert_eq!(stream.event().await.position(), 96);
}

/// Returns the positions of the events that match a query. It compares every event.
fn expected(log: &[Value], query: &[(&'static str, String)]) -> Vec<i64> {
    let wanted = |name: &str| -> Vec<&str> {
        query.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.as_str()).collect()
    };
    let one_of = |event: &Value, name: &str| {
        let wanted = wanted(name);
        wanted.is_empty() || event[name].as_str().is_some_and(|value| wanted.contains(&value))
    };
    let time = |event: &Value| at(event["occurred_at"].as_str().expect("a time"));
    log.iter()
        .filter(|event| {
            ["aggregate_type", "aggregate_id", "event_type", "correlation_id"].iter().all(|name| one_of(event, name))
                && wanted("occurred_from").iter().all(|from| time(event) >= at(from))
                && wanted("occurred_to").iter().all(|to| time(event) < at(to))
        })
        .map(|event| event["global_position"].as_i64().expect("a position"))
        .collect()
}

/// Appends 1,500 events to about 40 streams of 3 types, over ten months. Then seals all partitions that are over.
async fn random_log(seed: u64) -> (TestApp, Vec<Value>) {
    let (app, clock) = TestApp::start_at("2026-01-05T00:00:00Z").await;
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut now = at("2026-01-05T00:00:00Z");
    let mut written = 0;
    while written < 1_500 {
        // The clock often does not move, so many events have the same time. Sometimes it moves by days, so some months
        // have no events.
        now += chrono::TimeDelta::seconds([0, 0, 1, 3_600, 86_400 * 2][random(5) as usize]);
        clock.set(now);
        let many: Vec<Value> = (0..1 + random(9))
            .map(|_| {
                let correlation = (random(3) > 0).then(|| id(random(12) as u32));
                json!({"event_type": format!("E{}", random(5)), "event_data": 1, "correlation_id": correlation})
            })
            .collect();
        written += many.len();
        let (aggregate_type, aggregate) = (random(3), random(14));
        let path = format!("/streams/T{aggregate_type}/a{aggregate}");
        app.post(&path, &json!({ "events": many })).send().await.expect_status(201);
    }
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    let log = app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    let (end, log) = log.split_last().expect("an end line");
    assert_eq!(end["end"]["count"], written);
    (app, log.to_vec())
}

type Query = Vec<(&'static str, String)>;

fn random_query(log: Vec<Value>) -> impl Strategy<Value = Query> {
    let subset = |name: &'static str, values: Vec<String>, size_max: usize| {
        proptest::collection::btree_set(proptest::sample::select(values), 0..=size_max)
            .prop_map(move |chosen: BTreeSet<String>| chosen.into_iter().map(|value| (name, value)).collect::<Query>())
    };
    let names = |prefix: &'static str, count: usize| (0..count).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let times: Vec<String> =
        log.iter().map(|event| event["occurred_at"].as_str().expect("a time").to_owned()).collect();
    let types = subset("aggregate_type", names("T", 4), 2);
    let ids = subset("aggregate_id", names("a", 16), 3);
    let event_types = subset("event_type", names("E", 6), 2);
    let correlations = subset("correlation_id", (0..13).map(id).collect(), 2);
    let bounds = (0..3usize, 0..times.len(), 0..times.len()).prop_map(move |(count, one, other)| {
        let (from, to) = (one.min(other), one.max(other));
        [("occurred_from", times[from].clone()), ("occurred_to", times[to].clone())][..count].to_vec()
    });
    (types, ids, event_types, correlations, bounds).prop_map(|(types, ids, event_types, correlations, bounds)| {
        let ids = if types.len() == 1 { ids } else { Vec::new() };
        [types, ids, event_types, correlations, bounds].concat()
    })
}

#[tokio::test]
async fn every_filter_returns_what_a_simple_model_returns() {
    let (app, log) = random_log(7).await;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let queries = random_query(log.clone());
    let mut matched = 0;
    for round in 0..150 {
        let query = queries.new_tree(&mut runner).expect("a query").current();
        let expected = expected(&log, &query);
        matched += expected.len();
        let parameters: String = query.iter().map(|(name, value)| format!("&{name}={value}")).collect();

        // Pages.
        let mut path = format!("/events?limit={}{parameters}", [1 + round % 7, 100, 1000][round % 3]);
        let mut found = Vec::new();
        let mut before = 0;
        loop {
            let page = app.get(&path).send().await.expect_status(200).json();
            found.extend(positions(&page).into_iter().map(|position| position as i64));
            let next_after = page["next_after"].as_i64().expect("a position");
            assert!(next_after > before || page["at_head"] == true, "the cursor does not advance: {path}");
            before = next_after;
            path = page["next"].as_str().expect("next").to_owned();
            if page["at_head"] == true {
                break;
            }
        }
        assert_eq!(found, expected, "pages of {parameters}");

        // Pages backward.
        let limit = [1 + round % 7, 100, 1000][round % 3];
        let mut backward: Vec<i64> =
            pages_backward(&app, &format!("limit={limit}{parameters}")).await.iter().map(position).collect();
        backward.reverse();
        assert_eq!(backward, expected, "pages backward of {parameters}");

        // NDJSON, an event stream, and a scan in tiny windows, forward and backward.
        let lines =
            app.get(&format!("/events?after=0{parameters}")).header("accept", "application/x-ndjson").send().await;
        let lines = lines.expect_status(200).lines();
        assert_eq!(lines.len() - 1, expected.len(), "lines of {parameters}");
        assert_eq!(lines.last().expect("an end line")["end"]["next_after"], log.len());
        let mut stream = app.subscribe(&format!("/events?after=0{parameters}")).await;
        let (events, caught_up) = stream.until("caught-up").await;
        let streamed: Vec<i64> = events.iter().map(|event| event.position()).collect();
        assert_eq!(
            (streamed, caught_up.position()),
            (expected.clone(), log.len() as i64),
            "event stream of {parameters}"
        );
        assert_eq!(scanned(&app, &query).await, expected, "windows of {parameters}");
        let mut backward = scanned_backward(&app, &query).await;
        backward.reverse();
        assert_eq!(backward, expected, "windows backward of {parameters}");
    }
    assert!(matched > 5_000, "the filters match only {matched} events");
}

/// Returns the filter of a query.
fn filter(query: &Query) -> EventFilter {
    let all = |name: &str| query.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect();
    let one = |name: &str| query.iter().find(|(given, _)| *given == name).map(|(_, value)| at(value));
    let ids: Vec<String> = all("correlation_id");
    EventFilter {
        aggregate_types: all("aggregate_type"),
        aggregate_ids: all("aggregate_id"),
        event_types: all("event_type"),
        correlation_ids: ids.iter().map(|id| id.parse().expect("an id")).collect(),
        occurred_from: one("occurred_from"),
        occurred_to: one("occurred_to"),
        partition: None,
        readable: None,
    }
}

/// Reads the log through the store, in windows of three positions.
async fn scanned(app: &TestApp, query: &Query) -> Vec<i64> {
    let mut scan = LogScan::new(
        filter(query),
        Cursor { epoch: Some(1), position: 0 },
        ScanLimits { first_window: 3, time: Duration::ZERO },
    );
    let mut found = Vec::new();
    loop {
        let before = scan.after();
        let head = app.app.primary.read_log(&mut scan, i64::MAX, 50, |event| {
            found.push(event.global_position);
            ControlFlow::Continue(())
        });
        let head = head.await.expect("the log is read");
        if scan.after() >= head.global_position {
            return found;
        }
        assert!(scan.after() > before);
    }
}

/// Reads the log backward through the store, in windows of three positions.
async fn scanned_backward(app: &TestApp, query: &Query) -> Vec<i64> {
    let head = app.app.primary.log_head().await.expect("the head of the log").global_position;
    let mut scan = BackwardScan::new(
        filter(query),
        Cursor { epoch: Some(1), position: head + 1 },
        ScanLimits { first_window: 3, time: Duration::ZERO },
    );
    let mut found = Vec::new();
    while !scan.is_at_beginning() {
        let before = scan.before();
        let read = app.app.primary.read_log_backward(&mut scan, 50, |event| {
            found.push(event.global_position);
            ControlFlow::Continue(())
        });
        read.await.expect("the log is read");
        assert!(scan.before() < before);
    }
    found
}

#[tokio::test]
async fn a_page_of_large_events_ends_at_eight_mebibytes() {
    let app = TestApp::start().await;
    let large = "x".repeat(900 * 1024);
    for _ in 0..12 {
        let body = json!({"events": [{"event_type": "Large", "event_data": large}]});
        app.post("/streams/Order/1", &body).send().await.expect_status(201);
    }
    for filter in ["", "&event_type=Large"] {
        let page = app.get(&format!("/events?limit=1000{filter}")).send().await.expect_status(200).json();
        let first = positions(&page);
        assert!((9..12).contains(&first.len()), "{}", first.len());
        assert_eq!(page["at_head"], false);
        let rest = app.get(page["next"].as_str().expect("next")).send().await.expect_status(200).json();
        assert_eq!([first, positions(&rest)].concat(), (1..=12).collect::<Vec<_>>());
    }
    app.post("/streams/Order/2", &events(&["E"])).send().await.expect_status(201);
}

/// Returns the positions of all events of a filtered read, by following the links of pages.
async fn all_pages(app: &TestApp, first: &str) -> Vec<i64> {
    let (mut positions, mut next) = (Vec::new(), first.to_owned());
    loop {
        let page = app.get(&next).send().await.expect_status(200).json();
        let events = page["events"].as_array().expect("events");
        positions.extend(events.iter().filter_map(|event| event["global_position"].as_i64()));
        match page["next"].as_str() {
            Some(link) if page["at_head"] != true => next = link.to_owned(),
            _ => return positions,
        }
    }
}

#[tokio::test]
async fn partitions_divide_the_streams_of_the_log() {
    let app = TestApp::start().await;
    for n in 0..30 {
        app.append(&format!("/streams/Order/{}", n % 10), &["Placed", "Paid"]).await;
    }
    for partitions in [1, 2, 8, 256] {
        let mut all = Vec::new();
        for partition in 0..partitions {
            let forward = all_pages(&app, &format!("/events?limit=7&partition={partition}/{partitions}")).await;
            assert!(forward.is_sorted());
            if partitions < 256 {
                let path = format!("/events?partition={partition}/{partitions}");
                let lines = app.get(&path).header("accept", "application/x-ndjson").send().await.expect_status(200);
                let lines = lines.lines();
                let of_lines: Vec<_> = lines.iter().filter_map(|line| line["global_position"].as_i64()).collect();
                assert_eq!(of_lines, forward);
                let backward = all_pages(&app, &format!("{path}&direction=backward&limit=7")).await;
                assert_eq!(backward.into_iter().rev().collect::<Vec<_>>(), forward);
                let paid = all_pages(&app, &format!("{path}&event_type=Paid")).await;
                assert_eq!(paid, forward.iter().copied().filter(|position| position % 2 == 0).collect::<Vec<_>>());
                let mut subscriber = app.subscribe(&path).await;
                for position in &forward {
                    assert_eq!(subscriber.event().await.position(), *position);
                }
            }
            all.extend(forward);
        }
        all.sort_unstable();
        assert_eq!(all, (1..=60).collect::<Vec<_>>());
    }
    // PostgreSQL and the service compute the same partition.
    let mut session = app.database.session().await;
    for (aggregate_type, aggregate_id) in
        [("Order", "42"), ("Zahlung", "Müller"), ("T", r"a\x41'b"), ("T", "日本 🦀"), ("T", "a/b")]
    {
        let found: i32 = sqlx::query_scalar("SELECT stream_bucket($1, $2)")
            .bind(aggregate_type)
            .bind(aggregate_id)
            .fetch_one(&mut session.0)
            .await
            .expect("a bucket");
        assert_eq!(found, i32::from(bucket(aggregate_type, aggregate_id)), "{aggregate_type}/{aggregate_id}");
    }
    for invalid in ["3", "2/2", "0/3", "0/512", "-1/2", "a/b"] {
        app.get(&format!("/events?partition={invalid}")).send().await.expect_invalid("parameter", "partition");
    }
}
