//! Promise P10: what clients, proxies and browsers really send gets the right response, and mistakes get an error that
//! names the remedy.

use annals::app::CorsOrigins;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Reply, TestApp, TestOptions, connect, events, parse_response, send_raw, within_a_minute};

/// Sends a request whose body the service does not read, as a client that writes everything before it reads.
async fn send_all_then_read(app: &TestApp, head: &str, body: usize) -> Reply {
    let mut connection = connect(app).await;
    let head = format!("{head}\r\nHost: localhost\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.expect("the head is sent");
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..body / chunk.len() {
        connection.write_all(&chunk).await.expect("the service reads on");
    }
    let mut response = Vec::new();
    let read = connection.read_to_end(&mut response);
    within_a_minute("the response arrives", read).await.expect("the connection is not reset");
    parse_response(&response)
}

#[tokio::test]
async fn a_response_arrives_although_the_client_still_sends_its_body() {
    let app = TestApp::start().await;
    const BODY: usize = 16 * 1024 * 1024;
    for (head, status, code) in [
        ("POST /streams/Order/1 HTTP/1.1\r\nContent-Type: application/json", 413, "payload_too_large"),
        ("POST /streams/Order/1 HTTP/1.1\r\nContent-Type: text/plain", 415, "unsupported_media_type"),
        ("POST /nowhere HTTP/1.1", 404, "route_not_found"),
        ("POST /events HTTP/1.1", 405, "method_not_allowed"),
        ("POST /streams/Order/1 HTTP/1.1\r\nAccept: text/html", 406, "not_acceptable"),
        ("POST http://rebound.example/streams/Order/1 HTTP/1.1", 421, "host_refused"),
        ("POST /streams/Order/1 HTTP/1.1\r\nHost: localhost", 400, "invalid_request"),
    ] {
        for _ in 0..4 {
            send_all_then_read(&app, head, BODY).await.expect_problem(status, code);
        }
    }
    let mut options = TestOptions::default();
    options.settings.needs_keys = true;
    let app = TestApp::start_with(options).await;
    let head = "POST /streams/Order/1 HTTP/1.1\r\nContent-Type: application/json";
    send_all_then_read(&app, head, BODY).await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_the_error_at_once() {
    let app = TestApp::start().await;
    let request = "POST /streams/Order/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                   Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n";
    send_raw(&app, request.as_bytes()).await.expect_problem(413, "payload_too_large");
}

#[tokio::test]
async fn errors_of_the_http_library_are_problems_with_codes() {
    let app = TestApp::start().await;
    for request in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nbad header\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n"] {
        send_raw(&app, request.as_bytes()).await.expect_problem(400, "invalid_request");
    }
    let long = "x".repeat(66_000);
    let request = format!("GET /events?after={long} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    send_raw(&app, request.as_bytes()).await.expect_problem(414, "uri_too_long");
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nCookie: {long}{long}\r\n\r\n");
    send_raw(&app, request.as_bytes()).await.expect_problem(431, "headers_too_large");
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    send_raw(&app, request.as_bytes()).await.expect_problem(431, "headers_too_large");
    // An event whose text looks like such a response is returned unchanged.
    let text = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let body = json!({"events": [{"event_type": "A", "event_data": text}]});
    app.post("/streams/Order/1", &body).send().await.expect_status(201);
    assert_eq!(app.get("/streams/Order/1/1").send().await.json()["event_data"], text);
}

#[tokio::test]
async fn tags_that_a_proxy_has_changed_name_the_same_version() {
    let app = TestApp::start().await;
    let body = json!({"last_processed_position": 0});
    app.call("PUT", "/projections/p").json(&body).send().await.expect_status(201);
    let suffixes = ["-gzip", "--gzip", ";gzip", "-br", "--br", ";br", "-zstd", "--zstd", ";zstd", "-deflate"];
    let mut version = app.append("/streams/Order/1", &["A"]).await;
    for suffix in suffixes {
        for weak in ["", "W/"] {
            let tag = |number: u64| format!("{weak}\"{number}{suffix}\"");
            let read = app.get("/streams/Order/1").header("if-none-match", &tag(version)).send().await;
            assert_eq!(read.status, 304, "{}", tag(version));
            app.get("/streams/Order/1").header("if-none-match", &tag(version + 1)).send().await.expect_status(200);
            let append = app.post("/streams/Order/1", &events(&["B"])).header("if-match", &tag(version)).send().await;
            append.expect_status(201);
            let stale = app.post("/streams/Order/1", &events(&["B"])).header("if-match", &tag(version)).send().await;
            stale.expect_problem(412, "version_conflict");
            let put = app.call("PUT", "/projections/p").json(&json!({"last_processed_position": version}));
            put.header("if-match", &tag(version - 1)).send().await.expect_status(200);
            version += 1;
        }
    }
}

#[tokio::test]
async fn an_array_does_not_stand_for_an_object() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let event = json!([null, "E", {}, null, null, null]);
    let object = json!({"event_type": "E", "event_data": {}});
    let append = |events: Value| json!({"aggregate_type": "Order", "aggregate_id": "1", "events": events});
    for (method, path, body, pointer) in [
        ("PUT", "/projections/p", json!([1]), ""),
        ("POST", "/streams/Order/1", json!([[object]]), ""),
        ("POST", "/streams/Order/1", json!([object]), ""),
        ("POST", "/streams/Order/1", json!({"events": [event]}), "/events/0"),
        ("POST", "/appends", json!([[append(json!([object]))]]), ""),
        ("POST", "/appends", json!({"appends": [["Order", "1", null, [object]]]}), "/appends/0"),
        ("POST", "/appends", json!({"appends": [append(json!([event]))]}), "/appends/0/events/0"),
        ("PUT", "/snapshots/Order/1", json!([1, {}, null]), ""),
        ("PUT", "/reducers/Order", json!(["merge-patch", null, null]), ""),
        ("POST", "/reducers/Order/test", json!(["merge-patch", null, "1", null, null]), ""),
        ("POST", "/reducers/Order/test", json!({"language": "merge-patch", "events": [event]}), "/events/0"),
    ] {
        let reply = app.call(method, path).json(&body).send().await;
        let problem = reply.clone().expect_problem(400, "invalid_request");
        let detail = problem["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.starts_with("must be an object, and is a list"), "{method} {path} {body}: {detail}");
        assert_eq!(detail.contains("Example: {\""), pointer.is_empty(), "{detail}");
        reply.expect_invalid("pointer", pointer);
    }
    let words = |expected: Value| {
        let mut append = append(json!([object]));
        append["expected_version"] = expected;
        json!({ "appends": [append] })
    };
    for expected in [json!({"none": null}), json!(-1), json!(1.5), json!("1"), json!(true), json!([])] {
        let reply = app.post("/appends", &words(expected)).send().await;
        let problem = reply.clone().expect_problem(400, "invalid_request");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("must be a version (0 or more), \"none\" or \"exists\""), "{detail}");
        reply.expect_invalid("pointer", "/appends/0/expected_version");
    }
}

#[tokio::test]
async fn an_unknown_parameter_gets_the_list_of_the_known_ones() {
    let app = TestApp::start().await;
    for (path, known) in [
        ("/events?nonsense=1", "the parameters are direction, before, after, limit, wait, aggregate_type"),
        ("/streams/Order/1?nonsense=1", "the parameters are from_version, to_version, limit, direction, min_position"),
        ("/stats?nonsense=1", "this route has no query parameters"),
    ] {
        let problem = app.get(path).send().await.expect_problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["parameter"], "nonsense");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(known), "{path}: {detail}");
    }
}

#[tokio::test]
async fn errors_of_the_router_say_what_the_client_probably_meant() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    for (method, path, status, hint) in [
        ("GET", "/streams/Order/1/", 404, "remove the slash"),
        ("GET", "/events/", 404, "remove the slash"),
        ("GET", "//events", 404, "a segment of the path is empty"),
        ("GET", "/streams/Order/a/b/c", 404, "an aggregate id cannot contain a slash"),
        ("GET", "/aggregates/Order/a/b", 404, "an aggregate id cannot contain a slash"),
        ("POST", "/streams/Order/a/1", 405, "an aggregate id cannot contain a slash"),
        ("GET", "/streams/Order/a/1", 404, "an aggregate id cannot contain a slash"),
        ("GET", "/streams/Order/a/b", 400, "an aggregate id cannot contain a slash"),
        ("GET", "/streams/Order/a%2F1", 400, "must not contain \"/\""),
        ("POST", "/events", 405, "this path accepts GET, HEAD, and not POST: to append events, send POST"),
        ("PUT", "/streams/Order/1", 405, "to append events, send POST"),
        ("DELETE", "/streams/Order/1", 405, "events are never deleted"),
        ("POST", "/projections/p", 405, "this path accepts"),
        ("GET", "/nowhere", 404, "/docs lists the routes"),
    ] {
        let reply = app.call(method, path).send().await.expect_status(status);
        let detail = reply.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(hint), "{method} {path}: {detail}");
    }
}

#[tokio::test]
async fn types_that_begin_with_a_dollar_sign_are_reserved() {
    let app = TestApp::start().await;
    let reserved = |reply: Reply, kind: &str, place: &str| {
        let problem = reply.expect_problem(400, "invalid_request");
        assert_eq!(problem["errors"][0][kind], place, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("reserved")), "{problem}");
    };
    reserved(app.post("/streams/$Order/1", &events(&["A"])).send().await, "path", "aggregate_type");
    reserved(app.post("/streams/Order/1", &events(&["$A"])).send().await, "pointer", "/events/0/event_type");
    let append = json!({"aggregate_type": "$Order", "aggregate_id": "1", "events": events(&["A"])["events"]});
    reserved(app.post("/appends", &json!({"appends": [append]})).send().await, "pointer", "/appends/0/aggregate_type");
    let reducer = json!({"language": "merge-patch"});
    reserved(app.call("PUT", "/reducers/$Order").json(&reducer).send().await, "path", "aggregate_type");
    let snapshot = json!({"version": 1, "state": {}});
    reserved(app.call("PUT", "/snapshots/$Order/1").json(&snapshot).send().await, "path", "aggregate_type");
    // An id may begin with it, and reads may name reserved types.
    app.post("/streams/Order/$1", &events(&["A$"])).send().await.expect_status(201);
    app.get("/events?event_type=$erased").send().await.expect_status(200);
}

async fn start_with_cors(origins: CorsOrigins) -> TestApp {
    let mut options = TestOptions::default();
    options.settings.cors_origins = origins;
    options.settings.needs_keys = true;
    TestApp::start_with(options).await
}

#[tokio::test]
async fn pages_of_the_configured_origins_may_call_the_service() {
    let app = start_with_cors(CorsOrigins::List(vec!["https://app.example.com".to_owned()])).await;
    let preflight = |origin: &'static str| {
        app.call("OPTIONS", "/streams/Order/1")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,if-match")
            .open()
    };
    // A browser sends a preflight request without a key.
    let allowed = preflight("https://app.example.com").await;
    assert_eq!(allowed.status(), 200);
    let header = |name: &str| allowed.headers()[name].to_str().expect("ASCII").to_owned();
    assert_eq!(header("access-control-allow-origin"), "https://app.example.com");
    assert_eq!(header("access-control-allow-headers"), "authorization,content-type,if-match");
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
        assert!(header("access-control-allow-methods").contains(method), "{method}");
    }
    let other = preflight("https://other.example.com").await;
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    // Every response, an error included, names the origin and the headers that the page may read.
    let reply = app.get("/events").header("origin", "https://app.example.com").send().await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example.com"));
    let exposed = reply.header("access-control-expose-headers").expect("exposed headers").to_owned();
    for name in [
        "etag",
        "location",
        "link",
        "retry-after",
        "idempotent-replayed",
        "preference-applied",
        "x-request-id",
        "www-authenticate",
    ] {
        assert!(exposed.contains(name), "{name}: {exposed}");
    }
    reply.expect_problem(401, "unauthenticated");

    let any = start_with_cors(CorsOrigins::Any).await;
    let reply = any.get("/livez").header("origin", "https://other.example.com").send().await;
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    // Without the setting, the service says nothing about origins.
    let none = start_with_cors(CorsOrigins::None).await;
    let reply = none.get("/livez").header("origin", "https://app.example.com").send().await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
}
