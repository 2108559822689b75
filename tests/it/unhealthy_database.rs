//! Promise P1, P4, P10: the database fails while requests are in progress. Requests get clear errors, no event is lost,
//! and no event is written twice.

use serde_json::json;

use crate::support::{
    Proxy, TestApp, TestDatabase, TestOptions, event_with_id, events, id, pause_between_polls, within_a_minute,
};

async fn start_behind_proxy() -> (TestApp, Proxy) {
    let database = TestDatabase::create().await;
    let proxy = Proxy::start(&database).await;
    (TestApp::start_with_config(proxy.config(&database), database, TestOptions::default()).await, proxy)
}

async fn wait_until_ready(app: &TestApp) {
    within_a_minute("the service is ready", async {
        while app.get("/readyz").send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
}

/// Returns the reason of the writer once the service is not ready.
async fn wait_until_not_ready(app: &TestApp) -> String {
    let reason = async {
        loop {
            let reply = app.get("/readyz").send().await;
            let reason = reply.json()["checks"]["writer"].as_str().expect("a reason").to_owned();
            if reply.status == 503 && reason != "ok" {
                return reason;
            }
        }
    };
    within_a_minute("the service is not ready", reason).await
}

/// Readiness says what an append would meet, although no append is sent.
#[tokio::test]
async fn a_service_whose_appends_would_fail_is_not_ready_and_becomes_ready_again() {
    let app = TestApp::start().await;
    wait_until_ready(&app).await;
    let mut session = app.database.session().await;
    let disconnect = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = 'annals'";
    let database = app.database.name.clone();
    // The server becomes read-only for new sessions.
    session.run(&format!("ALTER DATABASE {database} SET default_transaction_read_only = on")).await;
    session.number(disconnect).await;
    let reason = wait_until_not_ready(&app).await;
    assert!(reason.contains("read-only"), "{reason}");
    session.run("SET default_transaction_read_only = off").await;
    session.run(&format!("ALTER DATABASE {database} RESET default_transaction_read_only")).await;
    session.number(disconnect).await;
    wait_until_ready(&app).await;
    app.append("/streams/Order/1", &["A"]).await;
}

#[tokio::test]
async fn an_append_whose_result_is_lost_after_the_commit_is_submitted_again() {
    let (app, proxy) = start_behind_proxy().await;
    app.append("/streams/Order/1", &["A"]).await;
    proxy.drop_next_result();
    let reply = app.post("/streams/Order/1", &events(&["B"])).if_match(1).send().await;
    assert!(proxy.has_dropped_result());
    // The first call of the procedure has written the event, and the second call has found it.
    assert_eq!(reply.expect_status(200).json()["version"], 2);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2]);
    assert_eq!(app.append("/streams/Order/1", &["C"]).await, 3);
}

#[tokio::test]
async fn an_unknown_outcome_is_reported_and_resolved_by_a_retry() {
    let (app, proxy) = start_behind_proxy().await;
    app.append("/streams/Order/1", &["A"]).await;
    proxy.drop_next_result_and_go_down();
    let body = event_with_id(&id(1));
    let unknown = app.post("/streams/Order/1", &body).if_match(1).send().await;
    unknown.expect_problem(503, "outcome_unknown");
    proxy.up();
    let retried = app.post("/streams/Order/1", &body).if_match(1).send().await.expect_status(200);
    assert_eq!(retried.header("idempotent-replayed"), Some("true"));
    assert_eq!(retried.json()["version"], 2);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2]);
}

#[tokio::test]
async fn without_the_database_requests_get_503_and_the_service_recovers_by_itself() {
    let (app, proxy) = start_behind_proxy().await;
    app.append("/streams/Order/1", &["A"]).await;
    let event_id = app.get("/streams/Order/1/1").send().await.json()["event_id"].as_str().expect("an id").to_owned();
    proxy.down();
    let appends = json!({"appends": [{"aggregate_type": "A", "aggregate_id": "1", "events": [{"event_type": "E", "event_data": 1}]}]});
    // The idle connection of the writer may break during the first call, whose outcome is then unknown.
    let first = app.post("/streams/Order/2", &event_with_id(&id(2))).send().await.expect_status(503).json();
    assert!(first["code"] == "outcome_unknown" || first["code"] == "database_unavailable", "{first}");
    app.post("/streams/Order/1", &events(&["B"])).send().await.expect_problem(503, "database_unavailable");
    app.post("/appends", &appends).send().await.expect_problem(503, "database_unavailable");
    for path in ["/streams/Order/1", "/streams/Order/1/1", "/streams/Order", &format!("/events/{event_id}")] {
        app.get(path).send().await.expect_problem(503, "database_unavailable");
    }
    let ready = app.get("/readyz").send().await.expect_status(503).json();
    assert_eq!(ready["status"], "unavailable");
    assert_ne!(ready["checks"]["database"], "ok");
    assert_ne!(ready["checks"]["writer"], "ok");
    app.get("/livez").send().await.expect_status(200);
    app.get("/metrics").send().await.expect_status(200);

    proxy.up();
    wait_until_ready(&app).await;
    assert_eq!(app.append("/streams/Order/1", &["B"]).await, 2);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2]);
}

/// The machine of the server loses its power: no packet ends a connection. All reads wait for statements in progress.
#[tokio::test]
async fn after_the_server_has_vanished_the_service_recovers_by_itself() {
    let (app, proxy) = start_behind_proxy().await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut session = app.database.session().await;
    session.run("BEGIN").await;
    session.run("LOCK TABLE streams IN ACCESS EXCLUSIVE MODE").await;
    let read = || app.get("/streams/Order/1").send();
    let reads = futures_util::future::join_all((0..10).map(|_| read()));
    let vanish = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock'";
        within_a_minute("reads wait", async {
            while session.number(waiting).await < 6 {
                pause_between_polls().await;
            }
        })
        .await;
        proxy.vanish();
        session.run("ROLLBACK").await;
        let not_ready = async {
            while app.get("/readyz").send().await.status != 503 {
                pause_between_polls().await;
            }
        };
        within_a_minute("the service is not ready", not_ready).await;
        proxy.up();
        wait_until_ready(&app).await;
    };
    let (replies, ()) = tokio::join!(within_a_minute("each read is answered", reads), vanish);
    for reply in replies {
        assert!(reply.status == 503 || reply.status == 200, "{reply:?}");
    }
    assert_eq!(read().await.versions(), [1]);
    assert_eq!(app.append("/streams/Order/1", &["B"]).await, 2);
}

#[tokio::test]
async fn a_terminated_backend_fails_no_append() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut session = app.database.session().await;
    for round in 0..5u64 {
        let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                          WHERE datname = current_database() AND application_name = 'annals'";
        let appended = app.post("/streams/Order/1", &event_with_id(&id(round as u32))).if_match(round + 1);
        let (reply, _) = tokio::join!(appended.send(), session.number(terminate));
        assert!(reply.status == 201 || reply.status == 200, "{reply:?}");
        assert_eq!(reply.json()["version"], round + 2);
    }
    assert_eq!(session.number("SELECT count(*) FROM events").await, 6);
}

#[tokio::test]
async fn after_a_table_was_dropped_appends_get_503_and_reads_500() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    app.database.session().await.run("DROP TABLE event_ids").await;
    app.post("/streams/Order/1", &events(&["B"])).send().await.expect_problem(503, "database_unavailable");
    app.get(&format!("/events/{}", id(1))).send().await.expect_problem(500, "internal");
}
