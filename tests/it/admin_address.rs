//! Promise P10: the admin address serves probes and metrics without a key, with connections of its own, and until all
//! requests of a shutdown are complete.

use std::time::Duration;

use annals::http::server::{ADMIN_CONNECTIONS, SPARE_CONNECTIONS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::{annals, output};
use crate::support::{
    LoggedService, TestApp, TestDatabase, TestOptions, connect, http_client, pause_between_polls, within_a_minute,
};

async fn start_with(change: impl FnOnce(&mut TestOptions)) -> TestApp {
    let mut options = TestOptions { has_admin_address: true, ..TestOptions::default() };
    change(&mut options);
    TestApp::start_with(options).await
}

fn admin_address(app: &TestApp) -> &str {
    let base = app.admin_base.as_deref().expect("an admin address");
    base.strip_prefix("http://").expect("a URL")
}

#[tokio::test]
async fn the_admin_address_serves_probes_and_metrics_and_nothing_else() {
    let app = start_with(|options| options.settings.needs_keys = true).await;
    for path in ["/livez", "/readyz", "/readyz?verbose", "/metrics"] {
        app.call_admin("GET", path).send().await.expect_status(200);
        app.call_admin("HEAD", path).send().await.expect_status(200);
        // The address of the service has the same routes.
        app.get(path).send().await.expect_status(200);
    }
    for path in
        ["/", "/events", "/streams/Order/1", "/stats", "/docs", "/openapi.json", "/problems/internal", "/nowhere"]
    {
        let problem = app.call_admin("GET", path).send().await.expect_problem(404, "route_not_found");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("serves only /livez, /readyz and /metrics"), "{detail}");
    }
    app.call_admin("POST", "/streams/Order/1").send().await.expect_problem(404, "route_not_found");
    let refused = app.call_admin("POST", "/metrics").send().await;
    assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    refused.expect_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn the_admin_address_checks_hosts_like_the_address_of_the_service() {
    let app = start_with(|options| options.settings.hosts = vec!["annals".to_owned()]).await;
    let get = |host: &str| app.call_admin("GET", "/metrics").header("host", host).send();
    get("rebound.example").await.expect_problem(421, "host_refused");
    get("annals:8081").await.expect_status(200);
    get("10.0.0.7:8081").await.expect_status(200);
}

#[tokio::test]
async fn clients_cannot_occupy_the_connections_of_the_admin_address() {
    let app = start_with(|options| {
        options.settings.clients.connections = 1;
        options.settings.clients.head = Duration::from_secs(600);
    })
    .await;
    let _subscriber = app.subscribe("/events").await;
    let mut silent = Vec::new();
    for _ in 0..SPARE_CONNECTIONS {
        silent.push(connect(&app).await);
    }
    // The service accepts connections in order, so the spare seats are occupied.
    let (mut refused, mut received) = (connect(&app).await, Vec::new());
    drop(within_a_minute("the service closes the connection", refused.read_to_end(&mut received)).await);
    assert!(received.is_empty(), "{}", String::from_utf8_lossy(&received));
    let probe = || app.call_admin("GET", "/readyz").header("connection", "close").send();
    probe().await.expect_status(200);
    // Idle connections to the admin address keep no probe out.
    for _ in 0..=ADMIN_CONNECTIONS {
        silent.push(TcpStream::connect(admin_address(&app)).await.expect("a connection"));
    }
    probe().await.expect_status(200);
}

#[tokio::test]
async fn the_admin_address_is_open_until_the_requests_of_a_shutdown_are_complete() {
    let app = start_with(|_| {}).await;
    let mut request = connect(&app).await;
    let head = "POST /streams/Order/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    request.write_all(head.as_bytes()).await.expect("the request is sent");
    let mut interim = [0; 25];
    request.read_exact(&mut interim).await.expect("100 Continue");
    app.app.shutdown.begin();
    within_a_minute("the address of the service is closed", async {
        while TcpStream::connect(app.base.trim_start_matches("http://")).await.is_ok() {
            pause_between_polls().await;
        }
    })
    .await;
    let ready = app.call_admin("GET", "/readyz").send().await.expect_status(503).json();
    assert_eq!(ready["checks"]["serving"], "shutting down", "{ready}");
    app.call_admin("GET", "/livez").send().await.expect_status(200);
    app.call_admin("GET", "/metrics").send().await.expect_status(200);

    request.write_all(&[b' '; 10]).await.expect("the body is sent");
    let mut response = String::new();
    request.read_to_string(&mut response).await.expect("a response");
    assert!(response.starts_with("HTTP/1.1 400"), "{response}");
    let address = admin_address(&app).to_owned();
    assert!(app.stop().await, "the shutdown is orderly");
    assert!(TcpStream::connect(address).await.is_err(), "the admin address is closed");
}

#[tokio::test]
async fn the_log_names_the_admin_address_and_the_health_check_uses_it() {
    let database = TestDatabase::create().await;
    let mut command = annals(Some(&database));
    command.env("ANNALS_LOG_LEVEL", "info").env("ANNALS_ADMIN_LISTEN", "127.0.0.1:0");
    let service = LoggedService::start(command).await;
    let lines = service.lines();
    let messages: Vec<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    let admin = messages.iter().position(|message| message.starts_with("probes and metrics are also on http://"));
    let admin = admin.expect("the admin address in the log");
    let listening = messages.iter().position(|message| message.starts_with("listening on "));
    assert!(listening > Some(admin), "the address of the service is in the last line of the start: {messages:#?}");
    let (_, rest) = messages[admin].split_once("http://").expect("a URL");
    let (address, _) = rest.split_once(',').expect("the end of the URL");

    let response = http_client().build().expect("a client").get(format!("http://{address}/metrics")).send().await;
    assert_eq!(response.expect("a response").status(), 200);
    let check = |listen: &str, admin: &str| {
        let mut command = annals(None);
        command.env("ANNALS_LISTEN", listen).env("ANNALS_ADMIN_LISTEN", admin).arg("healthcheck");
        output(command)
    };
    // No server listens at this address.
    const NOWHERE: &str = "127.0.0.1:1";
    let port = address.rsplit(':').next().expect("a port");
    for admin in [address.to_owned(), format!("0.0.0.0:{port}")] {
        let checked = check(NOWHERE, &admin).await;
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        assert!(String::from_utf8_lossy(&checked.stdout).contains("\"status\":\"ok\""));
    }
    let listen = service.base.trim_start_matches("http://");
    assert!(!check(listen, NOWHERE).await.status.success());
    // The system chooses an address with port 0, so the health check uses the address of the service.
    assert!(check(listen, "127.0.0.1:0").await.status.success());
}

#[tokio::test]
async fn an_admin_address_that_cannot_be_bound_stops_the_start() {
    let database = TestDatabase::create().await;
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let occupied_address = occupied.local_addr().expect("an address").to_string();
    for (listen, admin, reason) in [
        ("127.0.0.1:0", occupied_address.as_str(), "the server cannot listen on the address"),
        ("127.0.0.1:8080", "127.0.0.1:8080", "is the address of ANNALS_LISTEN: choose another port"),
    ] {
        let mut command = annals(Some(&database));
        command.env("ANNALS_LISTEN", listen).env("ANNALS_ADMIN_LISTEN", admin);
        let output = output(command).await;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{printed}");
        assert!(printed.contains(&format!("ANNALS_ADMIN_LISTEN={admin}")) && printed.contains(reason), "{printed}");
    }
}
