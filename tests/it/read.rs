//! Promise P1, P2: reads of streams (as pages in both directions and as NDJSON), of single events, and of the streams
//! of a type. They return every event once and in order, even while the stream grows.

use serde_json::json;

use crate::support::{TestApp, events, id};

async fn with_stream(count: usize) -> TestApp {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &vec!["E"; count]).await;
    app
}

#[tokio::test]
async fn pages_reach_the_end_in_both_directions() {
    let app = with_stream(25).await;
    for (query, expected) in [
        ("?limit=10", (1..=25).collect::<Vec<u64>>()),
        ("?limit=10&direction=backward", (1..=25).rev().collect()),
        ("?limit=4&from_version=7&to_version=20", (7..=20).collect()),
        ("?limit=4&from_version=7&to_version=20&direction=backward", (7..=20).rev().collect()),
        ("?limit=5&from_version=21", (21..=25).collect()),
        ("?limit=25", (1..=25).collect()),
        ("?to_version=400&from_version=24", vec![24, 25]),
        ("?to_version=9007199254740991&direction=backward&limit=20", (1..=25).rev().collect()),
    ] {
        let mut next = Some(format!("/streams/Order/1{query}"));
        let mut versions = Vec::new();
        while let Some(path) = next {
            let reply = app.get(&path).send().await.expect_status(200);
            assert_eq!(reply.header("etag"), Some("\"25\""));
            assert_eq!(reply.header("cache-control"), Some("no-cache"));
            assert_eq!(reply.header("vary"), Some("accept"));
            versions.extend(reply.versions());
            next = reply.json()["next"].as_str().map(str::to_owned);
            assert_eq!(
                reply.header("link").map(str::to_owned),
                next.as_ref().map(|next| format!("<{next}>; rel=\"next\""))
            );
        }
        assert_eq!(versions, expected, "{query}");
    }
    let page = app.get("/streams/Order/1?from_version=26").send().await.expect_status(200);
    assert_eq!((page.versions(), &page.json()["next"], &page.json()["version"]), (vec![], &json!(null), &json!(25)));
}

#[tokio::test]
async fn a_page_has_100_events_by_default() {
    let app = with_stream(150).await;
    assert_eq!(app.get("/streams/Order/1").send().await.versions().len(), 100);
    assert_eq!(app.get("/streams/Order/1?limit=1000").send().await.versions().len(), 150);
}

#[tokio::test]
async fn a_page_ends_at_eight_mebibytes() {
    let app = TestApp::start().await;
    let large = "x".repeat(900 * 1024);
    for _ in 0..12 {
        let body = json!({"events": [{"event_type": "Large", "event_data": large}]});
        app.post("/streams/Order/1", &body).send().await.expect_status(201);
    }
    let page = app.get("/streams/Order/1").send().await.expect_status(200);
    assert_eq!(page.versions(), (1..=10).collect::<Vec<_>>());
    let next = page.json()["next"].as_str().expect("the page has a next one").to_owned();
    assert_eq!(next, "/streams/Order/1?from_version=11");
    let rest = app.get(&next).send().await;
    assert_eq!((rest.versions(), &rest.json()["next"]), (vec![11, 12], &json!(null)));
}

#[tokio::test]
async fn links_escape_the_names_that_they_contain() {
    let app = TestApp::start().await;
    app.append("/streams/Ordre%20%C3%A9t%C3%A9/a%3Fb%23c%25", &["A", "B"]).await;
    let page = app.get("/streams/Ordre%20%C3%A9t%C3%A9/a%3Fb%23c%25?limit=1").send().await.json();
    assert_eq!(page["aggregate_id"], "a?b#c%");
    let next = app.get(page["next"].as_str().expect("a link")).send().await.expect_status(200);
    assert_eq!(next.versions(), [2]);
    let list = app.get("/streams/Ordre%20%C3%A9t%C3%A9").send().await.json();
    assert_eq!(list["streams"][0]["aggregate_id"], "a?b#c%");
}

#[tokio::test]
async fn a_client_that_has_the_current_version_gets_304() {
    let app = with_stream(3).await;
    for tag in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*"] {
        let reply = app.get("/streams/Order/1").header("if-none-match", tag).send().await.expect_status(304);
        assert_eq!((reply.header("etag"), reply.body.len()), (Some("\"3\""), 0));
    }
    app.get("/streams/Order/1").header("if-none-match", "\"2\"").send().await.expect_status(200);
    app.get("/streams/Order/1").header("if-none-match", "3").send().await.expect_invalid("header", "If-None-Match");
    let head = app.call("HEAD", "/streams/Order/1").send().await.expect_status(200);
    assert_eq!((head.header("etag"), head.body.len()), (Some("\"3\""), 0));
    app.call("HEAD", "/streams/Order/2").send().await.expect_status(404);
}

#[tokio::test]
async fn ndjson_of_a_stream_ends_with_an_end_line() {
    let app = with_stream(450).await;
    let lines = async |query: &str| {
        let call = app.get(&format!("/streams/Order/1{query}")).header("accept", "application/x-ndjson");
        call.send().await.expect_status(200).lines()
    };
    let all = lines("").await;
    assert_eq!(all.len(), 451);
    assert_eq!(all[450], json!({"end": {"count": 450, "version": 450}}));
    assert!((0..450).all(|n| all[n]["version"] == n + 1));
    let some = lines("?direction=backward&limit=3&to_version=400").await;
    assert_eq!(
        some.iter().map(|line| line["version"].as_u64()).collect::<Vec<_>>(),
        [Some(400), Some(399), Some(398), None]
    );
    assert_eq!(some[3], json!({"end": {"count": 3, "version": 450}}));
    assert_eq!(lines("?limit=5000").await.len(), 451);
    assert_eq!(lines("?from_version=451").await, [json!({"end": {"count": 0, "version": 450}})]);
}

#[tokio::test]
async fn ndjson_of_megabytes_is_complete() {
    let app = TestApp::start().await;
    let large = "x".repeat(300_000);
    for _ in 0..8 {
        let body = json!({"events": [{"event_type": "Large", "event_data": large}]});
        app.post("/streams/Order/1", &body).send().await.expect_status(201);
    }
    let lines = app.get("/streams/Order/1").header("accept", "application/x-ndjson").send().await.lines();
    assert_eq!(
        lines.iter().filter_map(|line| line["version"].as_u64()).collect::<Vec<_>>(),
        (1..=8).collect::<Vec<_>>()
    );
    assert_eq!(lines[8]["end"]["count"], 8);
}

#[tokio::test]
async fn invalid_parameters_are_refused() {
    let app = with_stream(3).await;
    for (query, parameter) in [
        ("from_version=0", "from_version"),
        ("from_version=x", "from_version"),
        ("from_version=-1", "from_version"),
        ("from_version=%2B1", "from_version"),
        ("from_version=", "from_version"),
        ("from_version=1&from_version=2", "from_version"),
        ("from_version=3&to_version=2", "from_version"),
        ("to_version=0", "to_version"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("direction=up", "direction"),
        ("direction=", "direction"),
        ("nonsense=1", "nonsense"),
        ("direction=%FF", "%FF"),
    ] {
        app.get(&format!("/streams/Order/1?{query}")).send().await.expect_invalid("parameter", parameter);
    }
    let lines = app.get("/streams/Order/1?limit=0").header("accept", "application/x-ndjson").send().await;
    lines.expect_invalid("parameter", "limit");
    for path in ["/streams/Order/1/1", "/streams/Order?after=a", &format!("/events/{}", id(1))] {
        let query = if path.contains('?') { '&' } else { '?' };
        app.get(&format!("{path}{query}x=1")).send().await.expect_invalid("parameter", "x");
    }
}

#[tokio::test]
async fn representations_are_negotiated() {
    let app = with_stream(1).await;
    for accept in ["text/html", "application/xml, text/plain", "application/json;q=0"] {
        for path in ["/streams/Order/1", "/streams/Order/1/1", "/streams/Order", &format!("/events/{}", id(1))] {
            app.get(path).header("accept", accept).send().await.expect_problem(406, "not_acceptable");
        }
    }
    let reply = app.get("/streams/Order/1").header("accept", "application/*").send().await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn an_event_is_found_by_version_and_by_id() {
    let app = with_stream(3).await;
    let page = app.get("/streams/Order/1").send().await.json();
    let event = &page["events"][1];
    let by_id = format!("/events/{}", event["event_id"].as_str().expect("an id"));
    for path in ["/streams/Order/1/2", by_id.as_str()] {
        let reply = app.get(path).send().await.expect_status(200);
        assert_eq!(&reply.json(), event);
        assert_eq!(reply.header("cache-control"), Some("private, max-age=86400, immutable"));
    }
    app.get("/streams/Order/1/4").send().await.expect_problem(404, "event_not_found");
    app.get("/streams/Order/1/9007199254740991").send().await.expect_problem(404, "event_not_found");
    app.get("/streams/Order/2/1").send().await.expect_problem(404, "stream_not_found");
    app.get(&format!("/events/{}", id(7))).send().await.expect_problem(404, "event_not_found");
    app.get("/streams/Order/1/0").send().await.expect_invalid("path", "version");
    app.get("/streams/Order/1/01").send().await.expect_invalid("path", "version");
    app.get("/streams/Order/1/one").send().await.expect_invalid("path", "version");
    app.get("/events/1").send().await.expect_invalid("path", "event_id");
}

#[tokio::test]
async fn streams_of_a_type_are_listed_in_byte_order() {
    let app = TestApp::start().await;
    for id in ["b", "a", "B", "%C3%A9", "z", "a10", "a2"] {
        app.append(&format!("/streams/Order/{id}"), &["E", "E"]).await;
    }
    app.append("/streams/Other/a", &["E"]).await;
    let mut ids = Vec::new();
    let mut next = Some("/streams/Order?limit=3".to_owned());
    while let Some(path) = next {
        let list = app.get(&path).send().await.expect_status(200).json();
        for stream in list["streams"].as_array().expect("streams") {
            assert_eq!(stream["version"], 2);
            assert!(stream["first_occurred_at"].as_str() <= stream["last_occurred_at"].as_str());
            ids.push(stream["aggregate_id"].as_str().expect("an id").to_owned());
        }
        next = list["next"].as_str().map(str::to_owned);
    }
    assert_eq!(ids, ["B", "a", "a10", "a2", "b", "z", "é"]);
    let none = app.get("/streams/Unknown").send().await.expect_status(200).json();
    assert_eq!(none, json!({"aggregate_type": "Unknown", "streams": [], "next": null}));
    app.get("/streams/Order?after=z&limit=2").send().await.expect_status(200);
    app.get("/streams/Order?limit=1001").send().await.expect_invalid("parameter", "limit");
    app.get("/streams/Order?after=a%2Fb").send().await.expect_invalid("parameter", "after");
    app.get("/streams/a%2Fb").send().await.expect_invalid("path", "aggregate_type");
}

#[tokio::test]
async fn a_stream_is_read_without_a_gap_while_it_grows() {
    let app = with_stream(200).await;
    let reading = async {
        for _ in 0..20 {
            let lines = app.get("/streams/Order/1").header("accept", "application/x-ndjson").send().await.lines();
            let (end, events) = lines.split_last().expect("an end line");
            assert!(events.iter().enumerate().all(|(n, event)| event["version"] == n + 1));
            assert_eq!(end["end"]["count"], end["end"]["version"]);
        }
    };
    let writing = async {
        for _ in 0..50 {
            app.post("/streams/Order/1", &events(&["E"; 20])).send().await.expect_status(201);
        }
    };
    tokio::join!(reading, writing);
}
