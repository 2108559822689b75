//! Promise P5: a login of the database can do no more than its role permits. One without rights cannot stop appends, and
//! the role of the service cannot move the log far ahead.

use annals::clock::Clock;
use annals::store::connection::config::DatabaseConfig;
use chrono::TimeDelta;
use serde_json::json;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;

use crate::support::{
    AppendCall, Cache, Procedure, Session, TestApp, TestDatabase, TestOptions, at, events, migrate_schema, sqlstate,
};

/// Creates a login in some roles. Returns the configuration of its connections.
async fn login(database: &TestDatabase, name: &str, roles: &str) -> DatabaseConfig {
    let login = format!("{name}_{}", database.name);
    let grant = if roles.is_empty() { String::new() } else { format!("IN ROLE {roles}") };
    database.session().await.run(&format!("CREATE ROLE {login} LOGIN {grant}")).await;
    let mut config = database.config();
    config.servers = vec![config.servers.remove(0).username(&login)];
    config
}

/// Becomes a login that is a member of the role of the service alone.
async fn as_service(database: &TestDatabase, session: &mut Session) {
    let config = login(database, "service", "annals_app").await;
    session.run(&format!("SET SESSION AUTHORIZATION {}", config.servers[0].get_username())).await;
}

/// Calls an append procedure. Returns its results.
async fn append(session: &mut Session, call: &AppendCall) -> PgRow {
    let row = sqlx::query(AssertSqlSafe(call.to_procedure())).fetch_one(&mut session.0).await;
    row.unwrap_or_else(|error| panic!("{call:?}: {error}"))
}

async fn refusal(session: &mut Session, sql: &str) -> Option<String> {
    let result = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut session.0).await;
    result.err().and_then(|error| sqlstate(&error))
}

#[tokio::test]
async fn a_login_without_rights_cannot_stop_appends_or_new_partitions() {
    let app = TestApp::start().await;
    let outsider = login(&app.database, "outsider", "").await;
    let mut session = app.database.session().await;
    session.run(&format!("SET SESSION AUTHORIZATION {}", outsider.servers[0].get_username())).await;
    for table in ["append_lock", "partition_lock", "events"] {
        for mode in ["ACCESS SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"] {
            let refused = refusal(&mut session, &format!("BEGIN; LOCK TABLE {table} IN {mode} MODE")).await;
            assert_eq!(refused.as_deref(), Some("42501"), "{table} {mode}");
            session.rollback().await;
        }
    }
    // It can take any advisory lock, and appends do not wait for one.
    session.run("SELECT pg_advisory_lock('events'::regclass::oid::integer, n) FROM generate_series(0, 9) n").await;
    assert_eq!(app.append("/streams/Order/1", &["A"]).await, 1);
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    // The reader of the tables cannot lock them either.
    session.run("RESET SESSION AUTHORIZATION; SET ROLE annals_reader; BEGIN").await;
    let refused = refusal(&mut session, "LOCK TABLE append_lock IN EXCLUSIVE MODE").await;
    assert_eq!(refused.as_deref(), Some("42501"));
}

#[tokio::test]
async fn the_service_runs_with_a_login_that_is_only_a_member_of_the_app_role() {
    let database = TestDatabase::create().await;
    // Another process has written events of a month that is over, as the owner.
    let clock = Clock::fixed(at("2026-09-10T00:00:00Z"));
    let options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
    let owner = TestApp::start_on(database.clone(), options).await;
    owner.append("/streams/Order/1", &["A", "B"]).await;
    owner.stop().await;

    let config = login(&database, "service", "annals_app").await;
    let app = TestApp::start_with_config(config, database.clone(), TestOptions::default()).await;
    app.post("/streams/Order/1", &events(&["C"])).if_match(2).send().await.expect_status(201);
    let reducer = json!({"language": "merge-patch", "source": ""});
    app.call("PUT", "/reducers/Order").json(&reducer).send().await.expect_status(201);
    app.get("/aggregates/Order/1/state").send().await.expect_status(200);
    app.call("PUT", "/snapshots/Cart/1").json(&json!({"version": 1, "state": {}})).send().await.expect_status(404);
    app.call("PUT", "/projections/p").json(&json!({"last_processed_position": 3})).send().await.expect_status(201);
    app.get("/stats").send().await.expect_status(200);
    app.get("/readyz").send().await.expect_status(200);
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    let mut session = database.session().await;
    let sealed = "SELECT name FROM partitions WHERE sealed_at IS NOT NULL";
    assert!(session.texts(sealed).await.contains(&"events_2026_09".to_owned()));
    assert_eq!(
        session.number("SELECT version::bigint FROM streams").await,
        2,
        "the version at the end of the sealed month"
    );
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2, 3]);
    // It cannot change the log or its catalogue.
    for statement in [
        "INSERT INTO epochs (epoch, first_position, reason) VALUES (9, 1, 'x')",
        "UPDATE partitions SET sealed_at = NULL",
        "DELETE FROM event_ids",
        "UPDATE streams SET version = 9",
        "SELECT setval('position_bound', 9)",
        "SELECT begin_epoch('x')",
    ] {
        let mut session = database.session().await;
        session.run("SET ROLE annals_app").await;
        assert_eq!(refusal(&mut session, statement).await.as_deref(), Some("42501"), "{statement}");
    }
}

#[tokio::test]
async fn the_app_role_cannot_move_positions_versions_or_times_far_ahead() {
    let database = TestDatabase::create_empty().await;
    migrate_schema(&database.config()).await;
    let mut session = database.session().await;
    session.run("SELECT create_partition(now())").await;
    as_service(&database, &mut session).await;
    let mut owner = database.session().await;
    let mut last = 0;
    for procedure in Procedure::ALL {
        let first = 10 * (procedure == Procedure::Batch) as u32 + 1;
        let call = AppendCall::new(procedure, format!("{procedure:?}"), AppendCall::ANY, first);
        let row = append(&mut session, &call).await;
        last += 1;
        let honest = Cache::from_row(&row);
        assert_eq!(honest.log_position, last);

        // The caller claims an end of the log, a version and a time that never were. They are read again.
        for (n, claimed) in [
            Cache { log_position: 5_000_000, ..honest.clone() },
            Cache { stream: Some((1, 2_000_000)), ..honest.clone() },
            Cache { log_time: honest.log_time + TimeDelta::days(400), ..honest.clone() },
        ]
        .into_iter()
        .enumerate()
        {
            let event = first + 1 + u32::try_from(n).expect("a small number");
            let call = AppendCall::new(procedure, format!("{procedure:?}"), AppendCall::ANY, event);
            let current = owner.number("SELECT last_value FROM append_generation").await;
            let cache = Cache { generation: current, ..claimed };
            let row = append(&mut session, &AppendCall { cache: Some(cache), ..call }).await;
            last += 1;
            let after = Cache::from_row(&row);
            assert_eq!(after.log_position, last, "{procedure:?} {n}");
            assert!(after.log_time < honest.log_time + TimeDelta::days(1), "{procedure:?} {n}");
        }
        let versions = format!("SELECT max(version)::bigint FROM events WHERE aggregate_id = '{procedure:?}'");
        assert_eq!(session.number(&versions).await, 4, "{procedure:?}");

        let late = AppendCall { now: Some("2036-01-01T00:00:00Z"), ..AppendCall::new(procedure, "late", 0, first + 8) };
        assert_eq!(refusal(&mut session, &late.to_procedure()).await.as_deref(), Some("AN003"), "{procedure:?}");
    }
    // The times of events are for imports, which the owner runs.
    let timed = AppendCall::new(Procedure::Batch, "timed", 0, 40).to_procedure();
    for times in ["ARRAY[now()]", "ARRAY[timestamptz '2036-01-01Z', NULL]"] {
        let timed = timed.replace("p_event_times => NULL", &format!("p_event_times => {times}"));
        assert_eq!(refusal(&mut session, &timed).await.as_deref(), Some("AN003"), "{times}");
    }
    let floor = AppendCall::new(Procedure::Batch, "floor", 0, 50).to_procedure();
    let far = floor.replace("p_position_floor => 0", "p_position_floor => 9000000");
    assert_ne!(floor, far, "the call has the parameter");
    assert_eq!(refusal(&mut session, &far).await.as_deref(), Some("AN003"));
    assert_eq!(session.number("SELECT max(global_position) FROM events").await, last);
}

#[tokio::test]
async fn no_partition_is_created_for_a_month_that_no_event_can_be_in_soon() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let mut session = app.database.session().await;
    as_service(&app.database, &mut session).await;
    let partitions = session.number("SELECT count(*) FROM partitions").await;
    for month in ["now() + interval '3 years'", "timestamptz '9999-01-01Z'", "now() - interval '2 months'"] {
        let refused = refusal(&mut session, &format!("SELECT create_partition({month})")).await;
        assert_eq!(refused.as_deref(), Some("AN003"), "{month}");
    }
    assert_eq!(session.number("SELECT count(*) FROM partitions").await, partitions);
    session.run("SELECT create_partition(now() + interval '4 months')").await;
    assert_eq!(session.number("SELECT count(*) FROM partitions").await, partitions + 1);
    // A month that is not over is not sealed.
    let seal =
        "SELECT seal_partition(starts_at, ends_at) FROM partitions WHERE sealed_at IS NULL ORDER BY starts_at LIMIT 1";
    assert_eq!(refusal(&mut session, seal).await.as_deref(), Some("P0001"));
}

#[tokio::test]
async fn a_partition_is_sealed_only_after_its_streams_and_the_partitions_before_it() {
    let (app, clock) = TestApp::start_at("2026-08-10T00:00:00Z").await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    clock.set(at("2026-09-10T00:00:00Z"));
    app.append("/streams/Order/1", &["C"]).await;
    clock.set(at("2026-10-10T00:00:00Z"));
    app.append("/streams/Order/1", &["D"]).await;
    let mut session = app.database.session().await;
    as_service(&app.database, &mut session).await;
    let seal =
        |month: &str| format!("SELECT seal_partition(starts_at, ends_at) FROM partitions WHERE name = '{month}'");
    for month in ["events_2026_08", "events_2026_09"] {
        assert_eq!(refusal(&mut session, &seal(month)).await.as_deref(), Some("P0001"), "{month}");
    }
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    let generation = "SELECT last_value FROM append_generation";
    let mut owner = app.database.session().await;
    let before = owner.number(generation).await;
    session.run(&seal("events_2026_08")).await;
    assert_eq!(owner.number(generation).await, before, "it is sealed already");
    assert_eq!(app.append("/streams/Order/1", &["E"]).await, 5);
}
