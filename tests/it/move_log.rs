//! Promise P1, P2, P6: a log moves to another database under load. Every acknowledged event is there at its position,
//! no event is written on both sides, and a move can be continued after a crash at any step.

use std::sync::Mutex;

use annals::clock::Clock;
use annals::store::connection::config::DatabaseConfig;
use annals::store::moves::log_move::{LogMove, MoveError, Step};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::archive::{History, config, read_everything};
use crate::cli::{annals, output, run};
use crate::support::{
    TestApp, TestDatabase, TestOptions, at, event_with_id, events, id, pause_between_polls, within_a_minute,
};

fn url(database: &TestDatabase) -> String {
    let socket = database.socket();
    format!("postgres://annals@localhost/{}?host={}", database.name, socket.parent().expect("a folder").display())
}

async fn moved(source: &TestDatabase, target: &TestDatabase) -> String {
    let (ok, printed, error) = run(source, &["move", "--to", &url(target)]).await;
    assert!(ok, "{error}");
    printed
}

async fn begin(source: &DatabaseConfig, target: &DatabaseConfig) -> Result<LogMove, MoveError> {
    LogMove::begin(source, target, Uuid::from_u128(7)).await
}

/// Returns the responses without what names an epoch: the numbers of epochs, and cursors.
fn without_epochs(responses: Vec<(String, String)>, epoch: &Value) -> Vec<(String, String)> {
    let (member, cursor) = (format!("\"epoch\":{epoch}"), format!("={epoch}:"));
    let without = |response: String| response.replace(&member, "\"epoch\":E").replace(&cursor, "=E:");
    responses.into_iter().map(|(request, response)| (request, without(response))).collect()
}

/// Removes the ages of unprocessed events, which grow.
fn without_ages(body: &mut Value) {
    for list in ["projections", "groups"] {
        for projection in body[list].as_array_mut().into_iter().flatten() {
            projection.as_object_mut().expect("an object").remove("lag_seconds");
        }
    }
}

async fn epoch(app: &TestApp) -> Value {
    app.get("/events?limit=1").send().await.expect_status(200).json()["epoch"].clone()
}

#[tokio::test]
async fn every_acknowledged_event_is_in_the_target_at_its_position() {
    let app = TestApp::start().await;
    let target = TestDatabase::create_empty().await;
    let acknowledged = Mutex::new(Vec::new());
    let write = async |writer: u32| {
        for n in 1.. {
            let reply = app.post(&format!("/streams/Order/{writer}-{}", n % 7), &events(&["A", "B"])).send().await;
            match reply.status {
                201 => acknowledged.lock().expect("the lock").push(reply.json()),
                _ => return reply.expect_problem(503, "log_moving"),
            }
        }
        unreachable!("the log moves")
    };
    let writers = futures_util::future::join_all((0..8).map(write));
    let database = app.database.clone();
    let (_, printed) = tokio::join!(within_a_minute("the writers end", writers), moved(&database, &target));
    assert!(printed.contains("restart the instances"), "{printed}");

    // The source refuses every write, and still serves reads.
    for (method, path, body) in [
        ("POST", "/streams/Order/new", events(&["A"])),
        ("PUT", "/projections/p", json!({"last_processed_position": 1})),
        ("PUT", "/groups/g", json!({})),
        ("PUT", "/reducers/Order", json!({"language": "merge-patch", "source": ""})),
        ("PUT", "/snapshots/Order/0-1", json!({"version": 1, "state": {}})),
    ] {
        app.call(method, path).json(&body).send().await.expect_problem(503, "log_moving");
    }
    let ready = within_a_minute("the source is not ready", async {
        loop {
            let ready = app.get("/readyz").send().await;
            if ready.status == 503 {
                return ready;
            }
            pause_between_polls().await;
        }
    });
    let ready = ready.await.text();
    assert!(ready.contains("the log is moving to another database"), "{ready}");

    let new = TestApp::start_on(target.clone(), TestOptions::default()).await;
    let acknowledged = acknowledged.into_inner().expect("the lock");
    assert!(!acknowledged.is_empty());
    for written in &acknowledged {
        let path =
            format!("/streams/Order/{}/{}", written["aggregate_id"].as_str().expect("an id"), written["version"]);
        let event = new.get(&path).send().await.expect_status(200).json();
        assert_eq!(event["global_position"], written["global_position"], "{written}");
    }
    let head = new.get("/events?direction=backward&limit=1").send().await.json()["head"].clone();
    assert_eq!(head, app.get("/events?direction=backward&limit=1").send().await.json()["head"]);
    assert_eq!(head.as_u64(), Some(acknowledged.len() as u64 * 2));
    // Cursors of the source stay valid, and new events are in a new epoch.
    let cursor = format!("{}:{head}", epoch(&app).await);
    let next = new.post("/streams/Order/new", &events(&["A"])).send().await.expect_status(201).json();
    assert_eq!(next["global_position"].as_u64(), head.as_u64().map(|head| head + 1));
    let page = new.get(&format!("/events?after={cursor}")).send().await.expect_status(200);
    assert_eq!(page.versions(), [1]);
    assert_ne!(epoch(&new).await, epoch(&app).await);
    let (ok, printed, error) = run(&target, &["verify"]).await;
    assert!(ok, "{printed}{error}");
    // Once complete, the move is not repeated, and not cancelled.
    for arguments in [&["move", "--to", &url(&target)][..], &["move", "--cancel"]] {
        let (ok, _, error) = run(&database, arguments).await;
        assert!(!ok && error.contains("has moved to the database"), "{error}");
    }
}

#[tokio::test]
async fn everything_of_a_log_moves_also_what_is_archived() {
    let history = History::create().await;
    history.archive().await;
    let app = &history.app;
    app.call("PUT", "/projections/p").json(&json!({"last_processed_position": 5})).send().await.expect_status(201);
    app.call("PUT", "/snapshots/Order/always")
        .json(&json!({"version": 3, "state": {"a": 1}}))
        .send()
        .await
        .expect_status(201);
    app.call("PUT", "/groups/g").json(&json!({"partitions": 1})).send().await.expect_status(201);
    let claim = app.call("POST", "/groups/g/claims").send().await.expect_status(201).json();
    let event = app.get("/streams/Order/2027-01-2/1").send().await.json();
    let erase = json!({"event_ids": [event["event_id"]], "reason": "a test"});
    app.post("/erasures", &erase).send().await.expect_status(201);
    let (ok, key, error) = run(&app.database, &["keys", "create", "--name", "k", "--grant", "read:*"]).await;
    assert!(ok, "{key}{error}");

    let target = TestDatabase::create_empty().await;
    moved(&app.database, &target).await;
    let options = TestOptions { clock: Clock::fixed(at("2027-01-20T00:00:00Z")), ..TestOptions::default() };
    let new = TestApp::start_with_config(config(&target, &history.folder), target.clone(), options).await;
    let before = without_epochs(read_everything(app).await, &epoch(app).await);
    let after = without_epochs(read_everything(&new).await, &epoch(&new).await);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    for path in ["/projections", "/groups", "/reducers", "/erasures", "/stats", "/aggregates/Cart/c%201/state"] {
        let [before, after] = [app, &new].map(|app| app.get(path).send());
        let (mut before, mut after) = (before.await.expect_status(200).json(), after.await.expect_status(200).json());
        without_ages(&mut before);
        without_ages(&mut after);
        assert_eq!(before["projections"], after["projections"], "{path}");
        assert_eq!(before["groups"], after["groups"], "{path}");
        assert_eq!(before["reducers"], after["reducers"], "{path}");
        // The target may have removed the bytes already.
        assert_eq!(before["erasures"][0]["hidden_at"], after["erasures"][0]["hidden_at"], "{path}");
        assert_eq!((&before["events"], &before["state"]), (&after["events"], &after["state"]), "{path}");
    }
    // A worker of the group continues its claim.
    let acknowledge = json!({"last_processed_position": claim["claimed_to"]});
    let path = format!("/groups/g/claims/{}", claim["claim_id"].as_str().expect("an id"));
    new.call("PUT", &path).json(&acknowledge).send().await.expect_status(200);
    // An append that the source has written is a replay, also if its event is archived.
    let replay = new.post("/streams/Order/known", &event_with_id(&id(100))).send().await.expect_status(200);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    let mut session = target.session().await;
    assert_eq!(session.number("SELECT count(*) FROM api_keys").await, 1);
    assert_eq!(session.number("SELECT count(*) FROM log_moves").await, 0);
    new.append("/streams/Order/always", &["A"]).await;
    new.append("/streams/Order/new", &["A"]).await;
    let mut verify = annals(Some(&target));
    verify.args(["verify"]).env("ARCHIVE_URL", history.folder.path());
    let verified = String::from_utf8(output(verify).await.stdout).expect("UTF-8");
    // The clock of the test is in the future, and everything else is right.
    assert_eq!((verified.matches("ok  ").count(), verified.matches("WRONG").count()), (6, 1), "{verified}");
    assert!(verified.contains("WRONG   no event in the future"), "{verified}");
}

#[tokio::test]
async fn a_move_continues_after_a_crash_at_each_step_and_can_be_cancelled() {
    let app = TestApp::start().await;
    let (source, target) = (app.database.config(), TestDatabase::create_empty().await);
    for n in 0..30 {
        app.append(&format!("/streams/Order/{n}"), &["A"; 20]).await;
    }
    // It ends after it has begun. Erasures wait from now on, and appends do not.
    drop(begin(&source, &target.config()).await.expect("the move begins"));
    let event = app.get("/streams/Order/1/1").send().await.json();
    let erase = json!({"event_ids": [event["event_id"]], "reason": "a test"});
    app.post("/erasures", &erase).send().await.expect_problem(503, "log_moving");
    app.append("/streams/Order/1", &["B"]).await;
    // No service starts on the incomplete log.
    let mut early = annals(Some(&target));
    early.env("ANNALS_LISTEN", "127.0.0.1:0");
    let early = output(early).await;
    let printed = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(!early.status.success() && printed.contains("annals move"), "{printed}");
    // It ends in the middle of the copy, and after it.
    let mut steps = 0;
    let mut log_move = within_a_minute("the lock is free", begin_again(&source, &target)).await;
    log_move.copy(&mut |_| steps += 1).await.expect("the events are copied");
    assert!(steps > 1);
    drop(log_move);
    app.append("/streams/Order/2", &["B"]).await;
    app.call("PUT", "/snapshots/Order/2").json(&json!({"version": 1, "state": {}})).send().await.expect_status(201);
    let (ok, printed, error) = run(&app.database, &["move", "--to", &url(&target), "--copy-only"]).await;
    assert!(ok && printed.contains("without --copy-only"), "{printed}{error}");
    // It is cancelled: the source accepts all writes again.
    let other = TestDatabase::create_empty().await;
    let (ok, _, error) = run(&app.database, &["move", "--to", &url(&other)]).await;
    assert!(!ok && error.contains("in progress"), "{error}");
    let mut session = app.database.session().await;
    session.run("UPDATE log_moves SET frozen_at = now()").await;
    let (ok, _, error) = run(&app.database, &["move", "--cancel"]).await;
    assert!(!ok && error.contains("name the target with --to"), "{error}");
    let (ok, printed, error) = run(&app.database, &["move", "--cancel", "--to", &url(&target)]).await;
    assert!(ok && printed.contains("accepts writes again"), "{printed}{error}");
    app.post("/erasures", &erase).send().await.expect_status(201);
    let (ok, _, error) = run(&app.database, &["move", "--cancel"]).await;
    assert!(!ok && error.contains("no move is in progress"), "{error}");
    // The former target belongs to another move now.
    let (ok, _, error) = run(&app.database, &["move", "--to", &url(&target)]).await;
    assert!(!ok && error.contains("a log of its own"), "{error}");

    // It ends after the target has taken over, and before the source has recorded that.
    let mut log_move = within_a_minute("the lock is free", begin_again(&source, &other)).await;
    log_move.copy(&mut |_| {}).await.expect("the events are copied");
    let mut frozen = false;
    log_move.copy(&mut |_| {}).await.expect("the events are copied");
    log_move.switch(&mut |step| frozen |= step == Step::Frozen).await.expect("the target takes over");
    assert!(frozen);
    session.run("UPDATE log_moves SET completed_at = NULL").await;
    let (ok, _, error) = run(&app.database, &["move", "--cancel", "--to", &url(&other)]).await;
    assert!(!ok && error.contains("has taken over already"), "{error}");
    let printed = moved(&app.database, &other).await;
    assert!(printed.contains("which refuses writes"), "{printed}");
    assert_eq!(session.number("SELECT count(*) FROM log_moves WHERE completed_at IS NOT NULL").await, 1);
    let new = TestApp::start_on(other, TestOptions::default()).await;
    assert_eq!(new.append("/streams/Order/1", &["C"]).await, 23);
    assert_eq!(new.get("/snapshots/Order/2").send().await.json()["version"], 1);
}

/// Begins a move again. PostgreSQL releases the lock of the connection before a moment after it was closed.
async fn begin_again(source: &DatabaseConfig, target: &TestDatabase) -> LogMove {
    loop {
        match begin(source, &target.config()).await {
            Ok(log_move) => return log_move,
            Err(MoveError::Archive(_)) => pause_between_polls().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The rest cannot be copied, because something else has written into the target: the source accepts appends again.
#[tokio::test]
async fn after_a_failed_switch_the_source_continues() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"; 20]).await;
    let target = TestDatabase::create_empty().await;
    let mut log_move = begin(&app.database.config(), &target.config()).await.expect("the move begins");
    log_move.copy(&mut |_| {}).await.expect("the events are copied");
    let mut session = target.session().await;
    session.run("UPDATE log_moves SET move_id = gen_random_uuid()").await;
    let mut frozen = false;
    let error = log_move.switch(&mut |step| frozen |= step == Step::Frozen).await.expect_err("the switch fails");
    assert!(frozen, "{error}");
    app.append("/streams/Order/1", &["B"]).await;
    app.call("PUT", "/projections/p").json(&json!({"last_processed_position": 1})).send().await.expect_status(201);
    // An instance of the service is connected to the target, and would have read the secret of another log.
    let (source, other) = (app.database.clone(), TestDatabase::create_empty().await);
    assert!(run(&other, &["migrate"]).await.0);
    let instance = TestApp::start_on(other.clone(), TestOptions::default()).await;
    let (ok, printed, error) = run(&source, &["move", "--cancel", "--to", &url(&target)]).await;
    assert!(ok, "{printed}{error}");
    let (ok, _, error) = run(&source, &["move", "--to", &url(&other)]).await;
    assert!(!ok && error.contains("stop the instances there"), "{error}");
    let app = instance.app.clone();
    assert!(instance.stop().await);
    app.readers.close().await;
    let mut session = other.session().await;
    let sessions = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'annals'";
    within_a_minute("the sessions end", async {
        while session.number(sessions).await > 0 {
            pause_between_polls().await;
        }
    })
    .await;
    moved(&source, &other).await;
    let new = TestApp::start_on(other, TestOptions::default()).await;
    assert_eq!(new.append("/streams/Order/1", &["C"]).await, 22);
}

#[tokio::test]
async fn a_target_must_be_an_empty_database_of_its_own() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let (ok, _, error) = run(&app.database, &["move", "--to", &url(&app.database)]).await;
    assert!(!ok && error.contains("the same database"), "{error}");
    let used = TestDatabase::create_empty().await;
    assert!(run(&used, &["migrate"]).await.0);
    let used = TestApp::start_on(used, TestOptions::default()).await;
    used.append("/streams/Order/1", &["A"]).await;
    let (ok, _, error) = run(&app.database, &["move", "--to", &url(&used.database)]).await;
    assert!(!ok && error.contains("a log of its own"), "{error}");
    for arguments in [&["move"][..], &["move", "--to", "mysql://x"], &["move", "--cancel", "--copy-only"]] {
        assert!(!run(&app.database, arguments).await.0, "{arguments:?}");
    }
    // Nothing has changed.
    app.append("/streams/Order/1", &["B"]).await;
    used.append("/streams/Order/1", &["B"]).await;
    let target = TestDatabase::create_empty().await;
    drop(begin(&app.database.config(), &target.config()).await.expect("the move begins"));
    let (ok, _, error) = run(&target, &["move", "--to", &url(&TestDatabase::create_empty().await)]).await;
    assert!(!ok && error.contains("is the target of a move"), "{error}");
}
