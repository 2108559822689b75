//! No promise: lists of streams, of one type and of all types that a key may read, with prefixes of their ids.

use serde_json::{Value, json};

use crate::archive::History;
use crate::keys;
use crate::support::{TestApp, at, events};

/// Reads all pages of a list. Returns the streams as `type/id`, and the number of pages.
async fn listed(app: &TestApp, key: Option<&str>, path: &str) -> (Vec<String>, usize) {
    let (mut streams, mut pages, mut path) = (Vec::new(), 0, path.to_owned());
    loop {
        let mut call = app.get(&path);
        if let Some(key) = key {
            call = call.header("authorization", &format!("Bearer {key}"));
        }
        let page = call.send().await.expect_status(200).json();
        let name = |stream: &Value, member: &str| stream[member].as_str().expect("a name").to_owned();
        let of_page = page["streams"].as_array().expect("streams").iter().map(|stream| {
            let aggregate_type = stream.get("aggregate_type").unwrap_or(&page["aggregate_type"]);
            format!("{}/{}", aggregate_type.as_str().expect("a name"), name(stream, "aggregate_id"))
        });
        streams.extend(of_page);
        pages += 1;
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return (streams, pages),
        }
    }
}

const STREAMS: [&str; 9] =
    ["Cart/a", "Cart/b", "Order/a", "Order/ab", "Order/ac", "Order/b", "OrderLine/a:1", "Order日本/ab", "a/é x"];

async fn with_streams(app: &TestApp, key: Option<&str>) {
    for stream in STREAMS.iter().rev() {
        let mut call = app.post(&format!("/streams/{stream}"), &events(&["E"]));
        if let Some(key) = key {
            call = call.header("authorization", &format!("Bearer {key}"));
        }
        call.send().await.expect_status(201);
    }
}

#[tokio::test]
async fn the_streams_of_all_types_are_listed_in_the_order_of_types_and_ids() {
    let (app, clock) = TestApp::start_at("2026-03-01T00:00:00Z").await;
    let empty = app.get("/streams").send().await.expect_status(200);
    assert_eq!((empty.header("cache-control"), empty.json()), (Some("no-cache"), json!({"streams": [], "next": null})));
    with_streams(&app, None).await;
    clock.set(at("2026-03-02T00:00:00Z"));
    app.append("/streams/Cart/a", &["E"; 2]).await;
    for (limit, pages) in [(1, 9), (2, 5), (8, 2), (9, 1), (1000, 1)] {
        assert_eq!(
            listed(&app, None, &format!("/streams?limit={limit}")).await,
            (Vec::from(STREAMS.map(str::to_owned)), pages)
        );
    }
    let page = app.get("/streams?limit=1").send().await.expect_status(200).json();
    let first = json!({"aggregate_type": "Cart", "aggregate_id": "a", "version": 3,
        "first_occurred_at": "2026-03-01T00:00:00.000000Z", "last_occurred_at": "2026-03-02T00:00:00.000000Z"});
    assert_eq!(page, json!({"streams": [first], "next": "/streams?after=Cart/a&limit=1"}));
    // Each list has the same order: that of bytes.
    let of_type = app.get("/streams/Order").send().await.expect_status(200).json();
    let ids: Vec<_> = of_type["streams"].as_array().expect("streams").iter().map(|one| &one["aggregate_id"]).collect();
    assert_eq!(ids, ["a", "ab", "ac", "b"]);
    let head = app.call("HEAD", "/streams").send().await.expect_status(200);
    assert_eq!(head.body.len(), 0);
}

#[tokio::test]
async fn a_prefix_and_a_place_restrict_a_list() {
    let app = TestApp::start().await;
    with_streams(&app, None).await;
    for (query, expected) in [
        ("prefix=a", &["Cart/a", "Order/a", "Order/ab", "Order/ac", "OrderLine/a:1", "Order日本/ab"][..]),
        ("prefix=ab", &["Order/ab", "Order日本/ab"]),
        ("prefix=a:", &["OrderLine/a:1"]),
        ("prefix=%C3%A9%20", &["a/é x"]),
        ("prefix=.", &[]),
        ("prefix=%F4%8F%BF%BF", &[]),
        ("after=Order/ab", &["Order/ac", "Order/b", "OrderLine/a:1", "Order日本/ab", "a/é x"]),
        ("after=Order/aa&prefix=a", &["Order/ab", "Order/ac", "OrderLine/a:1", "Order日本/ab"]),
        ("after=OrderLine/", &["OrderLine/a:1", "Order日本/ab", "a/é x"]),
        ("after=P/x", &["a/é x"]),
        ("after=z/x", &[]),
    ] {
        for limit in [1, 100] {
            let (streams, _) = listed(&app, None, &format!("/streams?{query}&limit={limit}")).await;
            assert_eq!(streams, expected, "{query}");
        }
    }
    for (query, expected) in [
        ("prefix=a", &["Order/a", "Order/ab", "Order/ac"][..]),
        ("prefix=a&after=a", &["Order/ab", "Order/ac"]),
        ("prefix=a&after=b", &[]),
        ("prefix=b&after=a", &["Order/b"]),
        ("prefix=c", &[]),
    ] {
        for limit in [1, 100] {
            let (streams, _) = listed(&app, None, &format!("/streams/Order?{query}&limit={limit}")).await;
            assert_eq!(streams, expected, "{query}");
        }
    }
    let page = app.get("/streams/Order?prefix=a&limit=1").send().await.json();
    assert_eq!(page["next"], "/streams/Order?after=a&limit=1&prefix=a");
    for (path, parameter) in [
        ("/streams?prefix=", "prefix"),
        ("/streams?prefix=a%2Fb", "prefix"),
        ("/streams?prefix=a%00", "prefix"),
        ("/streams/Order?prefix=", "prefix"),
        ("/streams/Order?prefix=a&prefix=b", "prefix"),
        ("/streams?after=Order", "after"),
        ("/streams?after=/a", "after"),
        ("/streams?after=Order/a/b", "after"),
        ("/streams?after=.%2Fa", "after"),
        ("/streams?limit=0", "limit"),
        ("/streams?limit=1001", "limit"),
        ("/streams?aggregate_type=Order", "aggregate_type"),
    ] {
        app.get(path).send().await.expect_invalid("parameter", parameter);
    }
    let long = "x".repeat(256);
    app.get(&format!("/streams?prefix={long}")).send().await.expect_invalid("parameter", "prefix");
    app.get("/streams").header("accept", "text/html").send().await.expect_problem(406, "not_acceptable");
    app.call("POST", "/streams").send().await.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn a_key_sees_the_streams_of_the_types_that_it_may_read() {
    let app = keys::start().await;
    let all = app.key(&["admin:*"]).await;
    with_streams(&app, Some(&all)).await;
    for (grants, expected) in [
        (&["read:*"][..], &STREAMS[..]),
        (&["read:Order"], &["Order/a", "Order/ab", "Order/ac", "Order/b"]),
        (&["read:OrderL*", "read:Cart"], &["Cart/a", "Cart/b", "OrderLine/a:1"]),
        (&["read:Order*", "read:OrderLine"], &STREAMS[2..8]),
        (&["read:Zebra*", "append:Order"], &[]),
    ] {
        let key = app.key(grants).await;
        for limit in [1, 2, 1000] {
            let (streams, _) = listed(&app, Some(&key), &format!("/streams?limit={limit}")).await;
            assert_eq!(streams, expected, "{grants:?}");
        }
    }
    let key = app.key(&["read:Order", "read:a"]).await;
    assert_eq!(listed(&app, Some(&key), "/streams?prefix=ab").await.0, ["Order/ab"]);
    // A place in the list is no resource: any may be named.
    assert_eq!(listed(&app, Some(&key), "/streams?after=Cart/b&limit=3").await.0.len(), 5);
    let writer = app.key(&["append:*", "project:*"]).await;
    app.get_as(&writer, "/streams").await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn a_prefix_is_found_among_thousands_of_types() {
    let app = TestApp::start().await;
    let mut session = app.database.session().await;
    // More types than one statement visits.
    session
        .run(
            "INSERT INTO streams (aggregate_type, aggregate_id, first_occurred_at, version, last_occurred_at)
             SELECT 'T' || lpad(n::text, 4, '0'), CASE WHEN n % 1000 = 999 THEN 'wanted' ELSE 'x' END, now(), 1, now()
               FROM generate_series(0, 2999) n",
        )
        .await;
    let (streams, _) = listed(&app, None, "/streams?prefix=want&limit=2").await;
    assert_eq!(streams, ["T0999/wanted", "T1999/wanted", "T2999/wanted"]);
    let (streams, _) = listed(&app, None, "/streams?limit=1000").await;
    assert_eq!(streams.len(), 3_000);
    assert!(streams.is_sorted(), "the streams are in the order of their types");
}

#[tokio::test]
async fn streams_with_archived_events_are_listed() {
    let history = History::create().await;
    let before = history.app.get("/streams?limit=1000").send().await.expect_status(200).json();
    history.archive().await;
    let after = history.app.get("/streams?limit=1000").send().await.expect_status(200).json();
    assert_eq!(before, after);
    let streams = after["streams"].as_array().expect("streams");
    assert!(streams.iter().any(|one| one["aggregate_id"] == "2026-11-3" && one["version"] == 1), "{after}");
}
