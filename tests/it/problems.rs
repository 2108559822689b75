//! Promise P10: every error has a stable code. Each code of the closed list is reached by a request of this file, and
//! its response agrees with the page that documents the code.
//!
//! [`provoke`] matches on the code without a wildcard, so a new code does not compile until it has a request. The test
//! sends the request, and compares the code of the response.

use annals::clock::Clock;
use annals::domain::quota::Quotas;
use annals::http::problem::code::Code;
use annals::keyring;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::{
    Proxy, Reply, TestApp, TestDatabase, TestOptions, event_with_id, events, id, pause_between_polls, send_raw,
};

const REDUCER: &str = "({ $any() { throw new Error('it fails') } })";

fn errors_folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/errors")
}

/// Returns the statuses that the page of a code lists.
fn documented_statuses(code: Code) -> Vec<u16> {
    let page =
        std::fs::read_to_string(errors_folder().join(format!("{}.md", code.as_str()))).expect("the page of the code");
    let statuses = page.lines().find_map(|line| line.strip_prefix("Status: ")).expect("a line with the status");
    statuses.split(", ").map(|status| status.parse().expect("a status")).collect()
}

async fn start_with(change: impl FnOnce(&mut TestOptions)) -> TestApp {
    let mut options = TestOptions::default();
    change(&mut options);
    TestApp::start_with(options).await
}

/// Starts a service behind a proxy that can break its connections to the database.
async fn start_behind_proxy() -> (TestApp, Proxy) {
    let database = TestDatabase::create().await;
    let proxy = Proxy::start(&database).await;
    (TestApp::start_with_config(proxy.config(&database), database, TestOptions::default()).await, proxy)
}

/// Starts a service that requires keys. Returns it with a key that may read orders and send two requests per minute.
async fn start_with_keys() -> (TestApp, String) {
    let app = start_with(|options| options.settings.needs_keys = true).await;
    let grants = ["read:Order".parse().expect("a grant")];
    let two = Quotas { requests: Some(2), ..Quotas::default() };
    let (key, new) = keyring::generate("a test".to_owned(), &grants, two, None).expect("randomness");
    app.app.primary.create_key(&new).await.expect("the key is stored");
    app.app.keyring.refresh(&app.app.primary).await.expect("the keys are read");
    (app, format!("Bearer {key}"))
}

/// Starts a service with a stream of three events, at the positions 1 to 3.
async fn start_with_stream() -> TestApp {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A", "B", "C"]).await;
    app
}

async fn put(app: &TestApp, path: &str, body: Value) -> Reply {
    app.call("PUT", path).json(&body).send().await
}

async fn put_projection(app: &TestApp, position: u64) -> Reply {
    put(app, "/projections/p", json!({"last_processed_position": position})).await
}

/// Starts a service with three events, which a worker has claimed. Returns it with the path of the claim.
async fn start_with_claim() -> (TestApp, String) {
    let app = start_with_stream().await;
    put(&app, "/groups/g", json!({"partitions": 1})).await.expect_status(201);
    let claim = app.call("POST", "/groups/g/claims").send().await.expect_status(201);
    let path = claim.header("location").expect("the path of the claim").to_owned();
    (app, path)
}

/// Sends a request whose response has this code, to a service of its own.
async fn provoke(code: Code) -> Reply {
    match code {
        Code::InvalidRequest => TestApp::start().await.get("/events?unknown=1").send().await,
        Code::Unauthenticated => start_with_keys().await.0.get("/events").send().await,
        Code::Forbidden => {
            let (app, key) = start_with_keys().await;
            app.get("/streams/Cart/1").header("authorization", &key).send().await
        }
        Code::QuotaExceeded => {
            let (app, key) = start_with_keys().await;
            for _ in 0..2 {
                app.get("/events").header("authorization", &key).send().await.expect_status(200);
            }
            app.get("/events").header("authorization", &key).send().await
        }
        Code::RouteNotFound => TestApp::start().await.get("/unknown").send().await,
        Code::StreamNotFound => TestApp::start().await.get("/streams/Order/1").send().await,
        Code::EventNotFound => TestApp::start().await.get(&format!("/events/{}", id(1))).send().await,
        Code::SnapshotNotFound => start_with_stream().await.get("/snapshots/Order/1").send().await,
        Code::ReducerNotFound => TestApp::start().await.get("/reducers/Order").send().await,
        Code::ProjectionNotFound => TestApp::start().await.get("/projections/p").send().await,
        Code::GroupNotFound => TestApp::start().await.get("/groups/g").send().await,
        Code::ClaimNotFound => {
            let (app, claim) = start_with_claim().await;
            app.call("DELETE", &claim).send().await.expect_status(204);
            app.get(&claim).send().await
        }
        Code::ParkedStreamNotFound => start_with_claim().await.0.get("/groups/g/parked/Order/1").send().await,
        Code::GroupDiffers => {
            let (app, _) = start_with_claim().await;
            put(&app, "/groups/g", json!({"filter": {"aggregate_type": ["Order"]}})).await
        }
        Code::ClaimsOpen => put(&start_with_claim().await.0, "/groups/g", json!({"partitions": 2})).await,
        Code::ClaimLost => {
            let (app, claim) = start_with_claim().await;
            app.call("DELETE", &claim).send().await.expect_status(204);
            put(&app, &claim, json!({"last_processed_position": 3})).await
        }
        Code::TooManyParked => {
            let (app, claim) = start_with_claim().await;
            app.call("DELETE", &claim).send().await.expect_status(204);
            let parked = "INSERT INTO claims
                SELECT (jsonb_populate_record(c, jsonb_build_object('step', c.step + 1, 'parked', 10000))).*
                  FROM claims c
                 ORDER BY c.step DESC
                 LIMIT 1";
            app.database.session().await.run(parked).await;
            app.get("/groups/g").send().await.expect_status(200);
            let claim = app.call("POST", "/groups/g/claims").send().await.expect_status(201);
            let failed = json!([{"global_position": 1, "reason": "it failed"}]);
            let path = claim.header("location").expect("the path of the claim");
            put(&app, path, json!({"last_processed_position": 1, "failed": failed})).await
        }
        Code::MovedByGroup => {
            put(&start_with_claim().await.0, "/projections/g", json!({"last_processed_position": 1})).await
        }
        Code::PositionBeyondClaim => {
            let (app, claim) = start_with_claim().await;
            put(&app, &claim, json!({"last_processed_position": 4})).await
        }
        Code::ErasureNotFound => TestApp::start().await.get("/erasures/1").send().await,
        Code::ErasureTooLarge => {
            let app = TestApp::start().await;
            for _ in 0..11 {
                app.append("/streams/Order/1", &["A"; 1_000]).await;
            }
            let streams = json!([{"aggregate_type": "Order", "aggregate_id": "1"}]);
            app.post("/erasures", &json!({"reason": "a test", "streams": streams})).send().await
        }
        Code::ProblemNotFound => TestApp::start().await.get("/problems/unknown").send().await,
        Code::MethodNotAllowed => TestApp::start().await.call("DELETE", "/events").send().await,
        Code::NotAcceptable => TestApp::start().await.get("/events").header("accept", "text/html").send().await,
        Code::UriTooLong => {
            let request = format!("GET /events?after={} HTTP/1.1\r\nHost: localhost\r\n\r\n", "1".repeat(66_000));
            send_raw(&TestApp::start().await, request.as_bytes()).await
        }
        Code::HeadersTooLarge => {
            TestApp::start().await.get("/events").header("x-large", &"x".repeat(200_000)).send().await
        }
        Code::ClockSkew => {
            let app = start_with(|options| options.clock = Clock::behind(TimeDelta::days(2))).await;
            app.post("/streams/Order/1", &events(&["A"])).send().await
        }
        Code::EventIdReused => {
            let app = TestApp::start().await;
            app.post("/streams/Order/1", &event_with_id(&id(1))).send().await.expect_status(201);
            app.post("/streams/Order/2", &event_with_id(&id(1))).send().await
        }
        Code::EventPartlyKnown => {
            let app = TestApp::start().await;
            let mut body = event_with_id(&id(1));
            app.post("/streams/Order/1", &body).send().await.expect_status(201);
            let new = event_with_id(&id(2))["events"][0].clone();
            body["events"].as_array_mut().expect("events").push(new);
            app.post("/streams/Order/1", &body).send().await
        }
        Code::EpochChanged => {
            let app = start_with_stream().await;
            app.app.primary.begin_epoch("a test").await.expect("the epoch begins");
            app.append("/streams/Order/1", &["D"]).await;
            app.get("/events?after=1:4").send().await
        }
        Code::SnapshotStale => {
            let app = start_with_stream().await;
            put(&app, "/snapshots/Order/1", json!({"version": 2, "state": {}})).await.expect_status(201);
            put(&app, "/snapshots/Order/1", json!({"version": 1, "state": {}})).await
        }
        Code::ReducerExists => {
            let app = start_with_stream().await;
            put(&app, "/reducers/Order", json!({"language": "merge-patch"})).await.expect_status(201);
            put(&app, "/snapshots/Order/1", json!({"version": 1, "state": {}})).await
        }
        Code::NoReducer => start_with_stream().await.get("/aggregates/Order/1/state").send().await,
        Code::PositionRegressed => {
            let app = start_with_stream().await;
            put_projection(&app, 2).await.expect_status(201);
            put_projection(&app, 1).await
        }
        Code::PositionConflict => {
            let app = start_with_stream().await;
            put_projection(&app, 2).await.expect_status(201);
            app.call("PUT", "/projections/p").json(&json!({"last_processed_position": 3})).if_match(1).send().await
        }
        Code::VersionConflict => {
            start_with_stream().await.post("/streams/Order/1", &events(&["D"])).if_match(2).send().await
        }
        Code::PayloadTooLarge => {
            let app = TestApp::start().await;
            let body = json!({"events": [{"event_type": "E", "event_data": "x".repeat(1024 * 1024)}]});
            app.post("/streams/Order/1", &body).send().await
        }
        Code::UnsupportedMediaType => {
            TestApp::start().await.call("POST", "/streams/Order/1").body(events(&["A"]).to_string()).send().await
        }
        Code::HostRefused => TestApp::start().await.get("/events").header("host", "rebound.example").send().await,
        Code::InvalidEventData => {
            let body = json!({"events": [{"event_type": "E", "event_data": "\u{0}"}]});
            TestApp::start().await.post("/streams/Order/1", &body).send().await
        }
        Code::InvalidReducer => {
            let app = TestApp::start().await;
            put(&app, "/reducers/Order", json!({"language": "merge-patch", "source": "x"})).await
        }
        Code::ReducerFailed => {
            let body =
                json!({"language": "javascript", "source": REDUCER, "events": [{"event_type": "E", "event_data": 1}]});
            TestApp::start().await.post("/reducers/Order/test", &body).send().await
        }
        Code::VersionBeyondHead => {
            let app = start_with_stream().await;
            put(&app, "/snapshots/Order/1", json!({"version": 4, "state": {}})).await
        }
        Code::PositionBeyondHead => put_projection(&start_with_stream().await, 4).await,
        Code::Internal => {
            let app = TestApp::start().await;
            app.database.session().await.run("ALTER TABLE projection_positions RENAME TO renamed").await;
            app.get("/projections").send().await
        }
        Code::Overloaded => {
            let app = start_with(|options| options.settings.queue.bytes = 1_000).await;
            let body = json!({"events": [{"event_type": "E", "event_data": "x".repeat(2_000)}]});
            app.post("/streams/Order/1", &body).send().await
        }
        Code::DatabaseUnavailable => {
            let (app, proxy) = start_behind_proxy().await;
            proxy.down();
            app.get("/streams/Order/1").send().await
        }
        Code::LogMoving => {
            let app = start_with_stream().await;
            let moving = "INSERT INTO log_moves (move_id, side, other) VALUES (gen_random_uuid(), 'source', 'another');
                          SELECT set_move_triggers(p_refused => 'all')";
            app.database.session().await.run(moving).await;
            app.post("/streams/Order/1", &events(&["B"])).send().await
        }
        Code::OutcomeUnknown => {
            let (app, proxy) = start_behind_proxy().await;
            app.append("/streams/Order/1", &["A"]).await;
            proxy.drop_next_result_and_go_down();
            app.post("/streams/Order/1", &events(&["B"])).send().await
        }
        Code::TooManySubscribers => {
            let app = start_with(|options| options.settings.feed.subscribers = 1).await;
            let _subscriber = app.subscribe("/events").await;
            app.get("/events").header("accept", "text/event-stream").send().await
        }
        Code::ReplicaBehind => start_with_stream().await.get("/events?min_position=4").send().await,
        Code::ShuttingDown => {
            let app = start_with_stream().await;
            put_projection(&app, 1).await.expect_status(201);
            let waiting = app.get("/projections/p?wait_for=2&timeout=60").send();
            let reads = "annals_db_pool_acquire_seconds_count";
            let before = app.metric(reads).await;
            let shutdown = async {
                while app.metric(reads).await <= before {
                    pause_between_polls().await;
                }
                app.app.shutdown.begin();
            };
            tokio::join!(waiting, shutdown).0
        }
        Code::ProjectionBehind => {
            let app = start_with_stream().await;
            put_projection(&app, 1).await.expect_status(201);
            app.get("/projections/p?wait_for=2&timeout=1").send().await
        }
    }
}

#[test]
fn every_code_is_reached_and_its_response_agrees_with_its_page() {
    // Without optimisation, one poll of `provoke` needs the stack of all of its requests together.
    const STACK_BYTES: usize = 16 * 1024 * 1024;
    let provoking = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(provoke_every_code);
    provoking.expect("a thread").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn provoke_every_code() {
    for code in Code::ALL {
        // The service and its connections end with the runtime.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let reply = runtime.block_on(provoke(*code));
        let (status, name) = (reply.status, code.as_str());
        let problem = reply.expect_problem(status, name);
        assert_eq!(problem["title"], code.title(), "{name}");
        assert_eq!(status, code.status().as_u16(), "{name}");
        assert!(documented_statuses(*code).contains(&status), "the page of {name} does not list the status {status}");
    }
}

#[tokio::test]
async fn a_version_conflict_of_several_streams_has_its_second_documented_status() {
    let app = start_with_stream().await;
    let append = json!({"aggregate_type": "Order", "aggregate_id": "1", "expected_version": 2,
                        "events": [{"event_type": "D", "event_data": 1}]});
    let reply = app.post("/appends", &json!({ "appends": [append] })).send().await;
    assert_eq!(documented_statuses(Code::VersionConflict), [409, 412]);
    reply.expect_problem(409, "version_conflict");
}

#[tokio::test]
async fn every_code_has_a_page() {
    let app = TestApp::start().await;
    for code in Code::ALL {
        let page = app.get(&format!("/problems/{}", code.as_str())).send().await.expect_status(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.text().contains(code.title()) && page.text().contains(code.as_str()), "{}", code.as_str());
    }
    app.get("/problems/unknown").send().await.expect_problem(404, "problem_not_found");
    app.get("/problems/internal?x=1").send().await.expect_invalid("parameter", "x");
}

/// Compares the table of codes in `docs/reference/errors.md`: the status, the code and the title of each row.
#[test]
fn the_documentation_lists_every_code_and_no_other() {
    let text = std::fs::read_to_string(errors_folder().with_extension("md")).expect("docs/reference/errors.md");
    let is_row = |line: &&str| line.starts_with("| ") && line.contains("](errors/");
    let mut documented: Vec<String> = text
        .lines()
        .filter(is_row)
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let code = cells[2].split('`').nth(1).expect("a code");
            assert_eq!(cells[2], format!("[`{code}`](errors/{code}.md)"), "{row}");
            format!("{} {code}: {}", cells[1], cells[3])
        })
        .collect();
    let mut known: Vec<String> = Code::ALL
        .iter()
        .map(|code| {
            let statuses: Vec<String> = documented_statuses(*code).iter().map(u16::to_string).collect();
            format!("{} {}: {}", statuses.join(", "), code.as_str(), code.title())
        })
        .collect();
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
}
