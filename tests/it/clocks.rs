//! Promise P7, P10: a clock that is wrong cannot move the time of the log far into the future, and is reported.

use annals::clock::Clock;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::cli::{annals, output};
use crate::support::{TestApp, TestOptions, event_with_id, events, id, pause_between_polls, within_a_minute};

/// Starts a service whose clock is behind the clock of PostgreSQL.
async fn start_behind(behind: TimeDelta) -> TestApp {
    TestApp::start_with(TestOptions { clock: Clock::behind(behind), ..TestOptions::default() }).await
}

#[tokio::test]
async fn an_append_that_would_move_the_log_a_day_ahead_is_refused_and_writes_nothing() {
    let app = start_behind(TimeDelta::hours(25)).await;
    let event = json!({"event_type": "A", "event_data": 1});
    let several = json!({"events": [event, event]});
    for body in [&events(&["A"]), &several] {
        let reply = app.post("/streams/Order/1", body).send().await;
        assert!(reply.header("retry-after").is_some());
        reply.expect_problem(503, "clock_skew");
    }
    assert_eq!(app.database.session().await.number("SELECT count(*) FROM event_ids").await, 0);
    assert_eq!(app.metric("annals_appends_total{result=\"clock_skew\"}").await, 2.0);
    // If the clock of PostgreSQL is behind, events get its time.
    let behind = start_behind(TimeDelta::hours(-25)).await;
    behind.append("/streams/Order/1", &["A"]).await;
}

#[tokio::test]
async fn a_difference_of_less_than_a_day_is_accepted_and_reported() {
    let app = start_behind(TimeDelta::hours(23)).await;
    app.append("/streams/Order/1", &["A"]).await;
    within_a_minute("the difference is measured", async {
        while app.metric("annals_log_ahead_seconds").await < 80_000.0 {
            pause_between_polls().await;
        }
    })
    .await;
    assert!(app.metric("annals_database_clock_ahead_seconds").await > 80_000.0);
    let details = app.get("/readyz?verbose").send().await.expect_status(200).json()["details"].clone();
    for name in ["database_clock_ahead_seconds", "log_ahead_seconds"] {
        let seconds: f64 = details[name].as_str().expect("text").parse().expect("a number");
        assert!(seconds > 80_000.0, "{details}");
    }
}

/// Replays and conflicts write nothing, so they get their own responses, in a batch with refused appends, too.
#[tokio::test]
async fn replays_and_conflicts_are_decided_although_the_clocks_disagree() {
    let right = TestApp::start().await;
    right.post("/streams/Order/1", &event_with_id(&id(1))).send().await.expect_status(201);
    let options = TestOptions { clock: Clock::behind(TimeDelta::days(2)), ..TestOptions::default() };
    let app = TestApp::start_on(right.database.clone(), options).await;
    let replay = app.post("/streams/Order/1", &event_with_id(&id(1))).send();
    let conflict = app.post("/streams/Order/1", &events(&["B"])).if_match(7).send();
    let refused = app.post("/streams/Order/1", &events(&["B"])).send();
    let (replay, conflict, refused) = tokio::join!(replay, conflict, refused);
    replay.expect_status(200);
    conflict.expect_problem(412, "version_conflict");
    refused.expect_problem(503, "clock_skew");
}

/// An import may have written times in the future. Later appends get the time of the last event.
#[tokio::test]
async fn a_log_that_is_already_ahead_accepts_appends_and_verify_reports_it() {
    let ahead = Clock::fixed("2060-01-01T00:00:00Z".parse().expect("a time"));
    let app = TestApp::start_with(TestOptions { clock: ahead, ..TestOptions::default() }).await;
    app.append("/streams/Order/1", &["A"]).await;
    let database = app.database.clone();
    let right = TestApp::start_on(database.clone(), TestOptions::default()).await;
    right.append("/streams/Order/1", &["B"]).await;
    let events = right.get("/streams/Order/1").send().await.json()["events"].clone();
    assert_eq!(events[0]["occurred_at"], events[1]["occurred_at"]);

    let mut command = annals(Some(&database));
    command.args(["verify", "--json"]);
    let output = output(command).await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let clocks = report["checks"].as_array().expect("checks").iter().find(|check| check["name"] == "clocks");
    let finding = clocks.expect("the check")["findings"][0].as_str().expect("a finding").to_owned();
    assert!(finding.contains("in the future"), "{finding}");
}
