//! No promise: behind a proxy that shows the service below a path, every link of a response begins with that path.

use std::collections::BTreeSet;

use annals::http::router::openapi_document;
use serde_json::{Value, json};

use crate::cli::{annals, output};

use crate::support::{TestApp, TestOptions, events, send_raw};

async fn start(base_path: &str, trusts_forwarded_prefix: bool) -> TestApp {
    let mut options = TestOptions::default();
    options.settings.base_path = base_path.parse().expect("a base path");
    options.settings.trusts_forwarded_prefix = trusts_forwarded_prefix;
    TestApp::start_with(options).await
}

/// Follows every kind of link of a service. `path` adds what a client sends before the path of a route, and every link
/// must begin with `base`.
async fn check_links(app: &TestApp, prefix: &str, header: Option<&str>, base: &str) {
    let call = |method: &str, path: &str| {
        let call = app.call(method, &format!("{prefix}{path}"));
        match header {
            Some(header) => call.header("x-forwarded-prefix", header),
            None => call,
        }
    };
    let appended = call("POST", "/streams/Order/1").json(&events(&["A", "B"])).send().await.expect_status(201);
    let location = appended.header("location").expect("a location").to_owned();
    assert!(location.starts_with(&format!("{base}/streams/Order/1/")), "{location}");
    for path in
        ["/events?limit=1", "/events?direction=backward&limit=1", "/streams/Order/1?limit=1", "/streams/Order?limit=1"]
    {
        let page = call("GET", path).send().await.expect_status(200);
        let next = &page.json()["next"];
        if next.is_null() {
            continue;
        }
        let next = next.as_str().expect("a link");
        assert!(next.starts_with(&format!("{base}/")), "{path}: {next}");
        if let Some(link) = page.header("link") {
            assert!(link.starts_with(&format!("<{base}/")), "{path}: {link}");
        }
        let rest = next.strip_prefix(base).expect("the base path");
        call("GET", rest).send().await.expect_status(200);
    }
    let problem = call("GET", "/streams/Order/none").send().await.json();
    assert_eq!(problem["type"], format!("{base}/problems/stream_not_found"));
    let problem = call("GET", "/nothing").send().await.json();
    assert_eq!(problem["type"], format!("{base}/problems/route_not_found"));
    let document = call("GET", "/openapi.json").send().await.json();
    let server = if base.is_empty() { "/" } else { base };
    assert_eq!(document["servers"][0]["url"], server);
    // The links of pages are relative.
    let page = call("GET", "/").send().await.text();
    assert!(!page.contains("=\"/"), "{page}");
    call("GET", "/docs/").send().await.expect_status(200);
    call("GET", "/console/").send().await.expect_status(200);
    call("GET", "/readyz").send().await.expect_status(200);
}

#[tokio::test]
async fn links_begin_with_the_base_path_whether_the_proxy_removes_it_or_not() {
    let app = start("/stores/shop", false).await;
    check_links(&app, "/stores/shop", None, "/stores/shop").await;
    check_links(&app, "", None, "/stores/shop").await;
    // Without the setting, the header has no effect.
    check_links(&app, "", Some("/other"), "/stores/shop").await;
    app.get("/stores/shops/events").send().await.expect_problem(404, "route_not_found");

    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let redirected = client.get(format!("{}/stores/shop?a=1", app.base)).send().await.expect("a reply");
    assert_eq!(
        (redirected.status().as_u16(), &redirected.headers()["location"]),
        (308, &"/stores/shop/?a=1".parse().expect("a value"))
    );

    let claim = json!({"partitions": 1});
    app.call("PUT", "/groups/g").json(&claim).send().await.expect_status(201);
    let claimed = app.call("POST", "/groups/g/claims").send().await.expect_status(201);
    assert!(claimed.header("location").expect("a location").starts_with("/stores/shop/groups/g/claims/"));
    let event: Value = app.get("/streams/Order/1/1").send().await.json();
    let erase = json!({"event_ids": [event["event_id"]], "reason": "a test"});
    let erased = app.post("/erasures", &erase).send().await.expect_status(201);
    assert_eq!(erased.header("location"), Some("/stores/shop/erasures/1"));
    // The library that parses requests writes some errors itself.
    let invalid = send_raw(&app, b"GET / HTTP/9.9\r\n\r\n").await;
    assert_eq!(invalid.json()["type"], "/stores/shop/problems/invalid_request");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_base_path_in_a_header() {
    let app = start("/default", true).await;
    check_links(&app, "", Some("/a"), "/a").await;
    check_links(&app, "/a", Some("/a/"), "/a").await;
    check_links(&app, "", Some("/a, /b"), "/a").await;
    check_links(&app, "", Some("/"), "").await;
    check_links(&app, "", None, "/default").await;
    for invalid in ["a", "/a//b", "//evil.example", "/a b", "/ä"] {
        let reply = app.get("/events").header("x-forwarded-prefix", invalid).send().await;
        reply.expect_invalid("header", "X-Forwarded-Prefix");
    }
}

#[tokio::test]
async fn a_base_path_is_not_that_of_a_route() {
    let document = openapi_document();
    let first = |path: &String| path.split('/').nth(1).unwrap_or_default().to_owned();
    let mut routes: BTreeSet<String> = document.paths.paths.keys().map(first).collect();
    routes.extend(["assets", "console", "docs", "openapi.json"].map(str::to_owned));
    for route in routes.iter().filter(|route| !route.is_empty()) {
        for base in [format!("/{route}"), format!("/{route}/x")] {
            let mut command = annals(None);
            command.args(["serve", "--annals-base-path", &base]);
            let output = output(command).await;
            let printed = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && printed.contains("the name of a route"), "{base}: {printed}");
        }
    }
}
