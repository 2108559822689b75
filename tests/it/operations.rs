//! No promise: health checks, metrics, request ids, and the pages of the service.

use crate::support::{TestApp, at, events};

#[tokio::test]
async fn a_service_that_serves_requests_is_live_and_ready() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/livez").send().await.expect_status(200).json()["status"], "ok");
    let ready = app.get("/readyz").send().await.expect_status(200).json();
    assert_eq!(
        ready,
        serde_json::json!({"status": "ok", "checks": {"database": "ok", "schema": "ok", "serving": "ok", "writer": "ok"}})
    );
    let verbose = app.get("/readyz?verbose").send().await.expect_status(200).json();
    assert_eq!(verbose["details"]["head"], "0");
    let members: Vec<_> = verbose["details"].as_object().expect("details").keys().collect();
    let expected = [
        "append_queue",
        "archive",
        "auth",
        "database_clock_ahead_seconds",
        "epoch",
        "head",
        "log_ahead_seconds",
        "longest_wait",
        "pool",
        "postgresql",
        "started_at",
        "version",
    ];
    assert_eq!(members, expected);
    for query in ["verbose=1", "verbose=true", "verbose=", "x=%ff&verbose"] {
        let verbose = app.get(&format!("/readyz?{query}")).send().await.expect_status(200).json();
        assert_eq!(verbose["details"]["head"], "0", "{query}");
    }
    // Monitoring tools add parameters of their own.
    let plain = app.get("/readyz?nonsense&verbose=false").send().await.expect_status(200).json();
    assert!(plain.get("details").is_none(), "{plain}");
    app.get("/livez?x=1&x=2").send().await.expect_status(200);
}

#[tokio::test]
async fn the_details_of_readiness_say_how_the_service_runs() {
    let (app, clock) = TestApp::start_at("2026-03-01T00:00:00Z").await;
    clock.set(at("2026-03-01T00:05:00Z"));
    let epoch = app.app.primary.begin_epoch("a test").await.expect("the epoch begins");
    let details = app.get("/readyz?verbose=1").send().await.expect_status(200).json()["details"].clone();
    for (member, value) in [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("started_at", "2026-03-01T00:00:00.000000Z".to_owned()),
        ("auth", "none".to_owned()),
        ("archive", "none".to_owned()),
        ("epoch", epoch.to_string()),
        ("head", "0".to_owned()),
        ("database_clock_ahead_seconds", "0.000".to_owned()),
    ] {
        assert_eq!(details[member], value, "{member}");
    }
    // Probes need no key.
    let with_keys = crate::keys::start().await;
    let details = with_keys.get("/readyz?verbose=true").send().await.expect_status(200).json()["details"].clone();
    assert_eq!(details["auth"], "keys");
    let history = crate::archive::History::create().await;
    let details = history.app.get("/readyz?verbose").send().await.expect_status(200).json()["details"].clone();
    assert_eq!(details["archive"], "configured");
}

#[tokio::test]
async fn a_service_with_an_outdated_schema_is_not_ready() {
    let app = TestApp::start().await;
    app.database.session().await.run("DELETE FROM annals_migrations").await;
    let ready = app.get("/readyz").send().await.expect_status(503).json();
    assert!(ready["checks"]["schema"].as_str().is_some_and(|reason| reason.contains("version 0")), "{ready}");
}

#[tokio::test]
async fn metrics_count_appends_requests_and_connections() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    app.append("/streams/Invoice/1", &["A"]).await;
    app.post("/streams/Order/1", &events(&["X"])).if_match(0).send().await.expect_problem(412, "version_conflict");
    app.get("/streams/Order/1").send().await.expect_status(200);
    for (series, value) in [
        ("annals_events_inserted_total{aggregate_type=\"Order\"}", 3.0),
        ("annals_events_inserted_total{aggregate_type=\"Invoice\"}", 1.0),
        ("annals_appends_total{result=\"written\"}", 2.0),
        ("annals_appends_total{result=\"version_conflict\"}", 1.0),
        ("annals_appends_total{result=\"outcome_unknown\"}", 0.0),
        ("annals_append_duration_seconds_count", 3.0),
        ("annals_append_batch_requests_sum", 3.0),
        ("annals_append_queue_length", 0.0),
        ("annals_head_position", 4.0),
        ("annals_build_info{version=\"0.1.0\"}", 1.0),
    ] {
        assert_eq!(app.metric(series).await, value, "{series}");
    }
    let route = "annals_http_request_duration_seconds_count{method=\"GET\",route=\"/streams/{aggregate_type}/{aggregate_id}\",status=\"200\"}";
    assert_eq!(app.metric(route).await, 1.0);
    let pool = async |state: &str| app.metric(&format!("annals_db_pool_connections{{state=\"{state}\"}}")).await;
    assert!(pool("in_use").await + pool("idle").await >= 1.0);
    assert!(app.metric("annals_db_pool_acquire_seconds_count").await >= 1.0);
    assert!(app.metric("process_resident_memory_bytes").await > 1e6);
    app.get("/metrics?target=annals").send().await.expect_status(200);
    // An unknown path does not become the value of a label.
    app.get("/no/such/path").send().await.expect_problem(404, "route_not_found");
    let unknown = "annals_http_request_duration_seconds_count{method=\"GET\",route=\"none\",status=\"404\"}";
    assert_eq!(app.metric(unknown).await, 1.0);
}

#[tokio::test]
async fn a_valid_request_id_is_returned_and_any_other_is_replaced() {
    let app = TestApp::start().await;
    let reply = app.get("/livez").header("x-request-id", "my-request.1").send().await;
    assert_eq!(reply.header("x-request-id"), Some("my-request.1"));
    let missing = app.get("/streams/No/1").header("x-request-id", "r2").send().await;
    assert_eq!(missing.expect_problem(404, "stream_not_found")["instance"], "r2");
    for invalid in ["has space", &"x".repeat(129)] {
        let reply = app.get("/livez").header("x-request-id", invalid).send().await;
        assert_eq!(reply.header("x-request-id").map(str::len), Some(36));
    }
}

#[tokio::test]
async fn the_start_page_and_the_api_browser_are_part_of_the_program() {
    let app = TestApp::start().await;
    let index = app.get("/").send().await.expect_status(200);
    let host = app.base.strip_prefix("http://").expect("a URL");
    assert!(index.text().contains(&format!("curl -i http://{host}/streams/")), "{}", index.text());
    // The links are relative, so that the page works behind a path prefix.
    for link in ["docs/", "openapi.json", "metrics", "readyz?verbose", "problems/version_conflict"] {
        assert!(index.text().contains(link), "{link}");
    }
    let docs = app.get("/docs/").send().await.expect_status(200).text();
    assert!(!docs.contains("https://") && !docs.contains("src=\"//"), "{docs}");
    app.get("/docs/swagger-ui-bundle.js").send().await.expect_status(200);
    let document = app.get("/openapi.json").send().await.expect_status(200).json();
    assert_eq!(document["info"]["title"], "Annals");
    app.get("/openapi.json?x=1").send().await.expect_invalid("parameter", "x");
    app.get("/docs/nope").send().await.expect_problem(404, "route_not_found");
    let wrong = app.call("DELETE", "/streams/Order/1").send().await;
    let allow = wrong.header("allow").expect("a list of methods").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    wrong.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn the_recording_rules_use_metrics_that_exist() {
    let rules = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/recording.yml"));
    let rules = rules.expect("the rules");
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["E"]).await;
    app.get("/aggregates/Order/1").send().await.expect_status(200);
    let metrics = app.get("/metrics").send().await.text();
    let mut named = 0;
    for word in rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')) {
        if word.starts_with("annals_") {
            named += 1;
            assert!(metrics.contains(&format!("\n{word}")), "the service has no metric {word}");
        }
    }
    assert!(named >= 4, "{named}");
}

#[tokio::test]
async fn pages_have_a_policy_and_no_inline_script_or_style() {
    let app = TestApp::start().await;
    for path in ["/", "/problems/internal", "/docs/"] {
        let page = app.get(path).send().await.expect_status(200);
        let policy = page.header("content-security-policy").expect("a policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        let html = page.text();
        assert!(html.contains("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"), "{html}");
        assert!(html.contains("assets/favicon.svg"), "{html}");
        for inline in ["<style", "style=", "<script>", "onclick", "javascript:", "href=\"/", "src=\"/"] {
            assert!(!html.contains(inline), "{path} has {inline}");
        }
    }
}

#[tokio::test]
async fn files_of_pages_are_cached_by_their_content() {
    let app = TestApp::start().await;
    for path in ["/assets/annals.css", "/assets/live.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"] {
        let file = app.get(path).send().await.expect_status(200);
        assert_eq!(file.header("cache-control"), Some("no-cache"), "{path}");
        let tag = file.header("etag").expect("a tag").to_owned();
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
            let again = app.get(path).header("if-none-match", &sent).send().await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path} {sent}");
        }
        app.get(path).header("if-none-match", "\"other\"").send().await.expect_status(200);
    }
    for path in ["/assets/none.js", "/docs/index.html", "/docs/swagger-initializer.js"] {
        app.get(path).send().await.expect_status(404);
    }
    let redirect = app.get("/docs").send().await.expect_status(200);
    assert!(redirect.text().contains("swagger-ui-bundle.js"), "the client follows the redirect to /docs/");
}
