//! Promise P1: the schema is created once, by the process that starts first. The role of the service cannot change
//! stored events. It appends through the procedure, and the procedure commits.

use annals::store::admin::migrate::{self, SchemaError};
use sqlx::AssertSqlSafe;

use crate::support::{AppendCall, Procedure, TestApp, TestDatabase, events, sqlstate};

#[tokio::test]
async fn concurrent_and_repeated_migrations_apply_each_file_once() {
    let database = TestDatabase::create_empty().await;
    let config = database.config();
    let runs = futures_util::future::join_all((0..4).map(|_| migrate::migrate(&config))).await;
    let applied: usize = runs.into_iter().map(|run| run.expect("the migration succeeds").len()).sum();
    let known = usize::try_from(migrate::known_version()).expect("a version");
    assert_eq!(applied, known + migrate::FUNCTION_FILES.len());
    assert!(migrate::migrate(&config).await.expect("the migration succeeds").is_empty());
    migrate::check(&config).await.expect("the schema is the one that this program needs");
    let mut session = database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM annals_migrations").await, migrate::known_version());
    let functions = session.number("SELECT count(*) FROM annals_functions").await;
    assert_eq!(usize::try_from(functions), Ok(migrate::FUNCTION_FILES.len()));
}

#[tokio::test]
async fn foreign_tables_of_the_same_names_stop_the_migration() {
    let database = TestDatabase::create_empty().await;
    database.session().await.run("CREATE TABLE events (id int); CREATE TABLE snapshots (id int)").await;
    let error = migrate::migrate(&database.config()).await.expect_err("Annals did not create the tables");
    assert!(matches!(&error, SchemaError::ForeignTables(names) if names == "events, snapshots"), "{error}");
    assert!(error.to_string().contains("DATABASE_NAME"), "{error}");
    assert_eq!(database.session().await.number("SELECT count(*) FROM events").await, 0);
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_with_a_remedy() {
    let database = TestDatabase::create_empty().await;
    let error = migrate::check(&database.config()).await.expect_err("the database is empty");
    assert!(matches!(error, SchemaError::TooOld { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("annals migrate"), "{error}");
    migrate::migrate(&database.config()).await.expect("the migration succeeds");
    let newer = "INSERT INTO annals_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'from the future', true, '', 0)";
    database.session().await.run(newer).await;
    for error in [migrate::check(&database.config()).await, migrate::migrate(&database.config()).await.map(drop)] {
        let error = error.expect_err("the schema is newer");
        assert!(matches!(error, SchemaError::TooNew { found: 9999, .. }), "{error}");
    }
}

#[tokio::test]
async fn the_tables_are_created_in_the_schema_of_the_search_path() {
    let database = TestDatabase::create_empty().await;
    let mut session = database.session().await;
    session.run("CREATE SCHEMA history").await;
    session.run(&format!("ALTER DATABASE {} SET search_path = history", database.name)).await;
    let app = TestApp::start_on(database.clone(), Default::default());
    migrate::migrate(&database.config()).await.expect("the migration succeeds");
    let app = app.await;
    assert_eq!(app.append("/streams/Order/1", &["A"]).await, 1);
    assert_eq!(session.number("SELECT count(*) FROM history.events").await, 1);
    assert_eq!(session.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);
}

#[tokio::test]
async fn the_role_of_the_service_writes_events_only_through_the_procedure() {
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
        assert_eq!(sqlstate(&refused).as_deref(), Some("42501"), "{sql}: {refused}");
    }
    session.run("RESET ROLE; SET ROLE annals_reader").await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, 1);
    sqlx::query("DELETE FROM projection_positions").execute(&mut session.0).await.expect_err("the role may only read");
    session.run("RESET ROLE").await;
}

#[tokio::test]
async fn an_append_inside_an_open_transaction_or_with_an_old_snapshot_is_refused() {
    let database = TestDatabase::create().await;
    let mut session = database.session().await;
    session.run("SELECT create_partition(now())").await;
    session.run("BEGIN").await;
    let call = AppendCall::new(Procedure::Batch, "1", 0, 1).to_procedure();
    let refused = sqlx::raw_sql(AssertSqlSafe(call.clone()))
        .execute(&mut session.0)
        .await
        .expect_err("the procedure cannot commit");
    assert_eq!(sqlstate(&refused).as_deref(), Some("2D000"), "{refused}");
    session.rollback().await;
    session.run("SET default_transaction_isolation = 'repeatable read'").await;
    let refused =
        sqlx::raw_sql(AssertSqlSafe(call)).execute(&mut session.0).await.expect_err("the isolation level is refused");
    assert!(refused.to_string().contains("READ COMMITTED"), "{refused}");
}

#[tokio::test]
async fn a_database_with_an_encoding_other_than_utf8_is_refused() {
    let database = TestDatabase::create_empty().await;
    let name = format!("latin_{}", database.name);
    let create = format!("CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0");
    database.session().await.run(&create).await;
    let error = migrate::migrate(&database.sibling(&name).config()).await.expect_err("the encoding is LATIN1");
    assert!(matches!(&error, SchemaError::NotUtf8(encoding) if encoding == "LATIN1"), "{error}");
}

#[tokio::test]
async fn a_role_without_rights_is_not_used() {
    let database = TestDatabase::create().await;
    // A restore without privileges has the same effect.
    let revoke = "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM annals_app";
    database.session().await.run(revoke).await;
    let app = TestApp::start_on(database, Default::default()).await;
    assert_eq!(app.append("/streams/Order/1", &["A"]).await, 1);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1]);
}

#[tokio::test]
async fn a_login_that_may_not_create_roles_migrates_and_serves() {
    let database = TestDatabase::create_empty().await;
    let login = format!("plain_{}", database.name);
    let mut session = database.session().await;
    session.run(&format!("CREATE ROLE {login} LOGIN; ALTER DATABASE {} OWNER TO {login}", database.name)).await;
    let mut config = database.config();
    config.servers = vec![config.servers.remove(0).username(&login)];
    migrate::migrate(&config).await.expect("the migration succeeds");
    let app = TestApp::start_with_config(config, database.clone(), Default::default()).await;
    app.post("/streams/Order/1", &events(&["A"])).if_match(0).send().await.expect_status(201);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1]);
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
}

#[tokio::test]
async fn a_changed_function_is_replaced_unless_a_newer_program_has_applied_it() {
    let database = TestDatabase::create().await;
    let config = database.config();
    let mut session = database.session().await;
    let changed = "UPDATE annals_functions SET sha256 = 'another' WHERE name = 'stream_head'";
    session.run(changed).await;
    let error = migrate::check(&config).await.expect_err("a function is outdated");
    assert!(matches!(&error, SchemaError::FunctionsOutdated(names) if names == "stream_head"), "{error}");
    assert_eq!(migrate::migrate(&config).await.expect("the migration succeeds"), ["function stream_head"]);
    migrate::check(&config).await.expect("the function is replaced");

    session.run(changed).await;
    session.run("UPDATE annals_functions SET program_version = '999.0.0' WHERE name = 'stream_head'").await;
    migrate::check(&config).await.expect("the function of a newer program is accepted");
    assert!(migrate::migrate(&config).await.expect("the migration succeeds").is_empty());
}
