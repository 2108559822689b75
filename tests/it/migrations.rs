//! The schema: made once, by whoever comes first, in a database that is ours; and who may do what in it.

use annals::store::migrate::{self, SchemaError};

use crate::support::{TestApp, TestDatabase, events};

#[tokio::test]
async fn migrating_twice_and_at_once_is_the_same_as_once() {
    let database = TestDatabase::create_empty().await;
    let config = database.config();
    let runs = futures_util::future::join_all((0..4).map(|_| migrate::migrate(&config))).await;
    let applied: usize = runs.into_iter().map(|run| run.expect("it migrates").len()).sum();
    assert!(applied >= 4);
    assert!(migrate::migrate(&config).await.expect("it migrates").is_empty());
    migrate::check(&config).await.expect("the schema is right");
    let mut session = database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM annals_migrations").await, migrate::known_version());
}

#[tokio::test]
async fn tables_that_somebody_else_made_stop_the_start() {
    let database = TestDatabase::create_empty().await;
    database.session().await.run("CREATE TABLE events (id int); CREATE TABLE snapshots (id int)").await;
    let error = migrate::migrate(&database.config()).await.expect_err("it is not ours");
    assert!(matches!(&error, SchemaError::ForeignTables(names) if names == "events, snapshots"), "{error}");
    assert!(error.to_string().contains("DATABASE_NAME"), "{error}");
    assert_eq!(database.session().await.number("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_with_the_remedy() {
    let database = TestDatabase::create_empty().await;
    let error = migrate::check(&database.config()).await.expect_err("nothing is there");
    assert!(matches!(error, SchemaError::TooOld { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("annals migrate"), "{error}");
    migrate::migrate(&database.config()).await.expect("it migrates");
    let newer = "INSERT INTO annals_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'from the future', true, '', 0)";
    database.session().await.run(newer).await;
    for error in [migrate::check(&database.config()).await, migrate::migrate(&database.config()).await.map(drop)] {
        let error = error.expect_err("it is newer");
        assert!(matches!(error, SchemaError::TooNew { found: 9999, .. }), "{error}");
    }
}

#[tokio::test]
async fn the_tables_live_in_the_schema_that_the_login_works_in() {
    let database = TestDatabase::create_empty().await;
    let mut session = database.session().await;
    session.run("CREATE SCHEMA history").await;
    session.run(&format!("ALTER DATABASE {} SET search_path = history", database.name)).await;
    let app = TestApp::start_on(database.clone(), Default::default());
    migrate::migrate(&database.config()).await.expect("it migrates");
    let app = app.await;
    assert_eq!(app.append("/streams/Order/1", &["A"]).await, 1);
    assert_eq!(session.number("SELECT count(*) FROM history.events").await, 1);
    assert_eq!(session.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);
}

#[tokio::test]
async fn the_role_that_serves_cannot_write_history_but_through_the_procedure() {
    let app = TestApp::start().await;
    app.append("/streams/Order/1", &["A"]).await;
    let roles =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'annals'";
    let mut session = app.database.session().await;
    assert!(session.number(roles).await > 0);
    session.run("SET ROLE annals_app").await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, 1);
    for sql in [
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET version = 2",
        "DELETE FROM events",
        "TRUNCATE events",
        "INSERT INTO event_ids SELECT * FROM event_ids",
        "DELETE FROM event_ids",
        "UPDATE streams SET version = 2",
        "DELETE FROM partitions",
        "UPDATE epochs SET epoch = 2",
        "DROP TABLE events",
    ] {
        let refused = sqlx::query(sql).execute(&mut session.0).await.expect_err(sql);
        let code = refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("42501"), "{sql}: {refused}");
    }
    session.run("RESET ROLE; SET ROLE annals_reader").await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, 1);
    sqlx::query("DELETE FROM projection_positions").execute(&mut session.0).await.expect_err("a reader reads");
    session.run("RESET ROLE").await;
}

#[tokio::test]
async fn an_append_inside_an_open_transaction_is_refused_by_postgresql() {
    let database = TestDatabase::create().await;
    let mut session = database.session().await;
    session.run("SELECT create_event_month(now())").await;
    session.run("BEGIN").await;
    let batch = "CALL append_events(ARRAY['T'], ARRAY['1'], ARRAY[0], ARRAY[1], ARRAY[1], ARRAY[0], ARRAY[0], ARRAY[0],
                 ARRAY[1], ARRAY[0], ARRAY[gen_random_uuid()], ARRAY['E'], ARRAY['1']::jsonb[], NULL, NULL, NULL, NULL, false, 0,
                 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";
    let single = "CALL append_event('T', '1', 0, gen_random_uuid(), 'E', '1', NULL, NULL, NULL, false, 0,
                  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)";
    for call in [batch, single] {
        let refused = sqlx::raw_sql(call).execute(&mut session.0).await.expect_err("it commits");
        let code = refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("2D000"));
        session.run("ROLLBACK; BEGIN").await;
    }
    session.end().await;
    session.run("SET default_transaction_isolation = 'repeatable read'").await;
    for call in [batch, single] {
        let refused = sqlx::raw_sql(call).execute(&mut session.0).await.expect_err("the snapshot would be old");
        assert!(refused.to_string().contains("READ COMMITTED"), "{refused}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_script_is_refused() {
    let beside = TestDatabase::create_empty().await;
    let name = format!("latin_{}", beside.name);
    let create = format!("CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0");
    beside.session().await.run(&create).await;
    let error = migrate::migrate(&beside.beside(&name).config()).await.expect_err("it is LATIN1");
    assert!(matches!(&error, SchemaError::NotUtf8(encoding) if encoding == "LATIN1"), "{error}");
}

#[tokio::test]
async fn a_role_that_was_given_nothing_is_not_taken() {
    let database = TestDatabase::create().await;
    // As after a restore without privileges.
    let revoke = "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM annals_app";
    database.session().await.run(revoke).await;
    let app = TestApp::start_on(database, Default::default()).await;
    assert_eq!(app.append("/streams/Order/1", &["A"]).await, 1);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1]);
}

#[tokio::test]
async fn a_login_that_may_create_no_role_works_all_the_same() {
    let database = TestDatabase::create_empty().await;
    let login = format!("plain_{}", database.name);
    let mut session = database.session().await;
    session.run(&format!("CREATE ROLE {login} LOGIN; ALTER DATABASE {} OWNER TO {login}", database.name)).await;
    let mut config = database.config();
    config.options = config.options.username(&login);
    migrate::migrate(&config).await.expect("it migrates");
    let app = TestApp::start_with(config, database.clone(), Default::default()).await;
    app.post("/streams/Order/1", &events(&["A"])).if_match(0).send().await.expect_status(201);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1]);
    app.app.store.keep_months().await.expect("it keeps months");
}
