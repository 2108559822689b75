//! No promise: the host of a request. Without API keys, a service refuses every name that a web page could have. A
//! request that names no host or several is not valid.

use annals::app::Settings;

use crate::cli::{annals, output};
use crate::support::{LoggedService, TestApp, TestDatabase, TestOptions, events, http_client, send_raw};

async fn start_with(change: impl FnOnce(&mut Settings)) -> TestApp {
    let mut options = TestOptions::default();
    change(&mut options.settings);
    TestApp::start_with(options).await
}

#[tokio::test]
async fn without_keys_a_request_for_an_unlisted_name_is_refused_on_every_route() {
    let app = start_with(|settings| settings.hosts = vec!["annals.example".to_owned()]).await;
    let paths = [
        "/",
        "/livez",
        "/readyz",
        "/metrics",
        "/docs/",
        "/openapi.json",
        "/problems/internal",
        "/assets/live.js",
        "/events",
        "/streams/Order/1",
        "/stats",
        "/nowhere",
    ];
    for path in paths {
        let problem = app.get(path).header("host", "Rebound.example:8080").send().await;
        let problem = problem.expect_problem(421, "host_refused");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("the host \"Rebound.example\""), "{detail}");
        assert!(detail.contains("add the name to ANNALS_HOSTS"), "{detail}");
    }
    for host in [
        "localhost.rebound.example",
        "127.0.0.1.rebound.example",
        "app.localhost",
        "example",
        "a.annals.example",
        "annals.example.org",
        "2130706433",
        "127.1",
        "*",
    ] {
        app.get("/events").header("host", host).send().await.expect_problem(421, "host_refused");
    }
    for host in [
        "127.0.0.1",
        "10.0.0.7:8080",
        "[::1]",
        "[::1]:8080",
        "[fe80::1%25eth0]:8080",
        "localhost",
        "LocalHost:1",
        "localhost.",
        "annals.example",
        "ANNALS.Example.:80",
    ] {
        app.get("/events").header("host", host).send().await.expect_status(200);
    }
}

#[tokio::test]
async fn a_refused_append_writes_nothing_and_is_counted() {
    let app = TestApp::start().await;
    let append = app.post("/streams/Order/1", &events(&["A"])).header("host", "rebound.example").send().await;
    append.expect_problem(421, "host_refused");
    app.get("/streams/Order/1").send().await.expect_problem(404, "stream_not_found");
    let route = "route=\"/streams/{aggregate_type}/{aggregate_id}\"";
    let refused = format!("annals_http_request_duration_seconds_count{{method=\"POST\",{route},status=\"421\"}}");
    assert_eq!(app.metric(&refused).await, 1.0);
}

#[tokio::test]
async fn with_keys_every_valid_host_is_served_and_a_page_has_no_key() {
    let app = start_with(|settings| settings.needs_keys = true).await;
    app.get("/livez").header("host", "annals.example.com").send().await.expect_status(200);
    app.get("/events").header("host", "rebound.example").send().await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_request_without_a_valid_host_is_not_valid() {
    let long = format!("Host: {}\r\n", "x".repeat(256));
    for needs_keys in [false, true] {
        let app = start_with(|settings| settings.needs_keys = needs_keys).await;
        for headers in [
            "",
            "Host:\r\n",
            "Host: \r\n",
            "Host: localhost\r\nHost: localhost\r\n",
            "Host: localhost\r\nhost: b\r\n",
            "Host: local host\r\n",
            "Host: http://localhost\r\n",
            "Host: localhost/\r\n",
            "Host: localhost:http\r\n",
            "Host: a@localhost\r\n",
            "Host: ::1\r\n",
            "Host: [localhost]\r\n",
            "Host: [::1\r\n",
            "Host: %zz\r\n",
            "Host: b\u{fc}ro.example\r\n",
            &long,
        ] {
            // The check comes before the ones of the key and of the route.
            for target in ["/livez", "/events", "/nowhere"] {
                let request = format!("GET {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
                send_raw(&app, request.as_bytes()).await.expect_invalid("header", "Host");
            }
        }
        // HTTP/1.0 does not require the header.
        let reply = send_raw(&app, b"GET /livez HTTP/1.0\r\n\r\n").await;
        assert_eq!(reply.status, 200);
        let request = b"GET /livez HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
        send_raw(&app, request).await.expect_invalid("header", "Host");
    }
}

#[tokio::test]
async fn the_host_of_a_target_that_is_a_url_counts_instead_of_the_header() {
    let app = TestApp::start().await;
    let send = async |target: &str, host: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        send_raw(&app, request.as_bytes()).await
    };
    for target in ["http://rebound.example/events", "http://localhost@rebound.example:80/events"] {
        send(target, "localhost").await.expect_problem(421, "host_refused");
    }
    for target in ["http://localhost:8080/events", "http://user@127.0.0.1/events", "http://[::1]:8080/events"] {
        send(target, "rebound.example").await.expect_status(200);
    }
    // The header must be valid in any case.
    send("http://localhost/events", "a b").await.expect_invalid("header", "Host");
    let request = b"GET http://localhost/events HTTP/1.1\r\nConnection: close\r\n\r\n";
    send_raw(&app, request).await.expect_invalid("header", "Host");
    let request = b"GET /events HTTP/1.0\r\nHost: rebound.example\r\n\r\n";
    send_raw(&app, request).await.expect_problem(421, "host_refused");
}

#[tokio::test]
async fn the_setting_lists_names_in_any_case_and_a_refusal_is_logged() {
    let database = TestDatabase::create().await;
    let mut command = annals(Some(&database));
    command.env("ANNALS_LOG_LEVEL", "info").env("ANNALS_HOSTS", " Annals , annals.svc.cluster.local.,");
    let service = LoggedService::start(command).await;
    let client = http_client().build().expect("a client");
    let status = async |host: &str| {
        let request = client.get(format!("{}/events", service.base)).header("host", host);
        request.send().await.expect("a response").status().as_u16()
    };
    for (host, expected) in
        [("annals:8080", 200), ("ANNALS.svc.cluster.local", 200), ("localhost", 200), ("annals.svc", 421)]
    {
        assert_eq!(status(host).await, expected, "{host}");
    }
    let lines = service.requests();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!((&lines[0]["status"], &lines[0]["code"]), (&421.into(), &"host_refused".into()), "{lines:#?}");
    assert!(lines[0]["detail"].as_str().is_some_and(|detail| detail.contains("annals.svc")), "{lines:#?}");
}

#[tokio::test]
async fn an_entry_that_is_no_name_stops_the_start_with_the_remedy() {
    for entry in ["*", "*.example.com", "http://annals", "annals:8080", "a b", "a..b", ".", "[::1]", "a/b", "b\u{fc}ro"]
    {
        let mut command = annals(None);
        command.env("ANNALS_HOSTS", format!("annals,{entry}")).arg("serve");
        let output = output(command).await;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{entry}: {printed}");
        assert!(printed.contains(&format!("ANNALS_HOSTS: {entry:?} is not the name of a host")), "{printed}");
        assert!(printed.contains("write it like annals.example.com"), "{printed}");
        assert_eq!(printed.trim().lines().count(), 1, "{printed}");
    }
}
