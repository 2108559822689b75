//! Promise P1, P2, P7, P8, P9: `annals verify` has no findings for an intact store, and finds every kind of damage in a
//! damaged store.

use annals::archive::place::Archive;
use annals::clock::Clock;
use annals::store::connection::config::DatabaseConfig;
use annals::store::partitions::archiver::Include;
use serde_json::{Value, json};

use crate::cli::{annals, output};
use crate::support::{
    Session, TestApp, TestDatabase, TestOptions, at, event_with_id, events, id, pause_between_polls, within_a_minute,
};

pub fn config(database: &TestDatabase, folder: &str) -> DatabaseConfig {
    let archive = Archive::open(folder).expect("the folder exists");
    DatabaseConfig { archive: Some(archive), ..database.config() }
}

/// Runs the command. Returns its exit status and its report.
pub async fn verify(database: &TestDatabase, folder: &str, arguments: &[&str]) -> (i32, Value) {
    let mut command = annals(Some(database));
    command.env("ARCHIVE_URL", folder).arg("verify").arg("--json").args(arguments);
    let output = output(command).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (output.status.code().expect("the command was not killed"), report)
}

/// Returns the findings of a check.
pub fn findings(report: &Value, name: &str) -> String {
    let checks = report["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == name).expect("the check");
    check["findings"].to_string()
}

/// Creates a log of three months whose first partition is archived, with snapshots of a reducer and of a client.
pub async fn history(folder: &str) -> TestDatabase {
    let database = TestDatabase::create().await;
    let clock = Clock::fixed(at("2025-11-03T00:00:00Z"));
    let options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
    let app = TestApp::start_with_config(config(&database, folder), database.clone(), options).await;
    let reducer = json!({"language": "merge-patch", "source": "", "snapshot_every": 5});
    app.call("PUT", "/reducers/Cart").json(&reducer).send().await.expect_status(201);
    for (known, month) in (1..).zip(["2025-11", "2025-12", "2026-01"]) {
        clock.set(at(&format!("{month}-10T00:00:00Z")));
        for n in 0..12 {
            app.append(&format!("/streams/Order/{}", n % 5), &["A", "B"]).await;
            app.append("/streams/Cart/1", &["A"]).await;
        }
        app.post("/streams/Order/known", &event_with_id(&id(known))).send().await.expect_status(201);
    }
    let snapshot = json!({"version": 3, "state": {"by": "a client"}});
    app.call("PUT", "/snapshots/Order/1").json(&snapshot).send().await.expect_status(201);
    within_a_minute("the snapshot of the reducer is stored", async {
        while app.get("/snapshots/Cart/1").send().await.status != 200 {
            pause_between_polls().await;
        }
    })
    .await;
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    app.app.primary.count_all_events().await.expect("the events are counted");
    let mut archiver = app.archiver().await;
    let plan = archiver.plan(at("2025-12-02T00:00:00Z"), Include::All).await.expect("a plan");
    assert_eq!(plan.partitions.len(), 1);
    archiver.archive(&plan.partitions[0], &|_| {}).await.expect("the partition is archived");
    archiver.close().await.expect("the archiver ends");
    app.stop().await;
    database
}

#[tokio::test]
async fn an_intact_store_has_no_findings_and_since_last_checks_only_new_events() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    let database = history(path).await;
    let (status, report) = verify(&database, path, &[]).await;
    assert_eq!((status, &report["ok"], &report["to_position"]), (0, &json!(true), &json!(111)), "{report:#}");
    let checked: Vec<_> =
        report["checks"].as_array().expect("checks").iter().map(|check| check["checked"].clone()).collect();
    assert_eq!(checked, [111, 7, 111, 9, 2, 1, 1], "{report:#}");

    let (status, report) = verify(&database, path, &["--since-last"]).await;
    assert_eq!(
        (status, &report["after_position"], &report["checks"][0]["checked"]),
        (0, &json!(111), &json!(0)),
        "{report:#}"
    );
    let app = TestApp::start_with_config(config(&database, path), database.clone(), TestOptions::default()).await;
    app.post("/streams/Order/0", &events(&["C", "D"])).send().await.expect_status(201);
    app.append("/streams/Order/new", &["A"]).await;
    app.stop().await;
    let (status, report) = verify(&database, path, &["--since-last"]).await;
    assert_eq!(
        (status, &report["checks"][0]["checked"], &report["checks"][2]["checked"]),
        (0, &json!(3), &json!(3)),
        "{report:#}"
    );
}

#[tokio::test]
async fn every_kind_of_damage_is_found_and_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    let database = history(path).await;
    let mut session = owner_session(&database).await;
    let all = "SELECT count(*) FROM events";
    let before = session.number(all).await;
    // The damage, the check that finds it, and a part of the finding.
    for (damage, check, finding) in [
        ("DELETE FROM events_2025_12 WHERE global_position = 45", "order", "follows position 44"),
        ("DELETE FROM events_2025_12 WHERE global_position = 45", "versions", "follow version"),
        ("UPDATE events_2025_12 SET occurred_at = '2025-12-30' WHERE global_position = 45", "order", "follows position 45"),
        ("UPDATE partitions SET events = 1 WHERE name = 'events_2025_12'", "order", "catalogue says"),
        ("UPDATE streams SET version = version - 1 WHERE aggregate_id = '2'", "versions", "streams says version"),
        ("UPDATE streams SET first_occurred_at = '2020-01-01' WHERE aggregate_id = '2'", "versions", "its first event occurred at"),
        ("DELETE FROM streams WHERE aggregate_id = '3'", "versions", "not in the table streams"),
        ("UPDATE events_2026_01 SET version = 99 WHERE global_position = 80", "versions", "follow version"),
        ("DELETE FROM event_ids WHERE global_position = 90", "ids", "its id is not in the table event_ids"),
        ("DELETE FROM event_ids WHERE global_position = 5", "ids", "archived"),
        ("UPDATE event_ids SET version = 77 WHERE global_position = 90", "ids", "another place"),
        ("UPDATE event_ids SET stream_no = 0 WHERE global_position = 90", "ids", "another stream"),
        ("UPDATE events_2026_01 SET event_data = '{\"n\": 2}' WHERE global_position = 90", "ids", "not what was written"),
        ("INSERT INTO event_ids SELECT gen_random_uuid(), 1, 1, 3, now(), 0", "ids", "number of events is 112 in the table event_ids"),
        ("UPDATE snapshots SET state = '{\"n\": 5}' WHERE aggregate_type = 'Order'", "snapshots", "checksum"),
        ("UPDATE snapshots SET state = '{\"n\": 5}', checksum = snapshot_checksum(aggregate_type, aggregate_id, version,
             '{\"n\": 5}', occurred_at, reducer, revision) WHERE aggregate_type = 'Cart'", "snapshots", "another state"),
        ("UPDATE snapshots SET version = 999, checksum = snapshot_checksum(aggregate_type, aggregate_id, 999, state,
             occurred_at, reducer, revision) WHERE aggregate_type = 'Order'", "snapshots", "does not have this version"),
        // The newest event leaves no gap in the log. Other tables still name it.
        ("DELETE FROM events_2026_01 WHERE global_position = 111", "records", "event_ids has positions up to 111"),
        ("DELETE FROM events_2026_01 WHERE global_position = 111", "records", "statistics are counted up to position 111"),
        ("INSERT INTO verification VALUES (112, 1, now())", "records", "verified up to position 112"),
        ("INSERT INTO streams (stream_no, aggregate_type, aggregate_id, first_occurred_at)
            VALUES (1, 'Order', 'lost', '2026-01-05')", "records", "Order/lost is in the table streams, and has no event"),
        ("UPDATE snapshots SET version = 999 WHERE aggregate_type = 'Order'", "records", "does not have this version"),
        ("INSERT INTO projection_positions VALUES ('ahead', 112, now(), 1)", "records", "beyond the head"),
        ("UPDATE event_counts SET events = events + 1 WHERE aggregate_type = 'Cart'", "records", "of the type Cart"),
        ("UPDATE stream_counts SET streams = streams + 1 WHERE at_least = 1", "records", "streams of the type Order"),
        ("UPDATE snapshot_counts SET snapshots = 7", "records", "is 7 in the statistics"),
        ("SELECT setval('append_generation', 1, false)", "records", "the append generation is 1"),
        ("SELECT setval('streams_stream_no_seq', 2)", "records", "the sequence of stream numbers is at 2"),
        ("UPDATE partitions SET archive_sha256 = 'x' WHERE archived_at IS NOT NULL", "archive", "manifest"),
    ] {
        // The tables are restored from copies.
        copy_tables(&mut session).await;
        session.run(damage).await;
        let (status, report) = verify(&database, path, &[]).await;
        let found = findings(&report, check);
        assert!(status == 1 && report["ok"] == false && found.contains(finding), "{damage}: {status} {report:#}");
        restore_tables(&mut session).await;
    }
    assert_eq!(session.number(all).await, before);
    let (status, report) = verify(&database, path, &[]).await;
    assert_eq!(status, 0, "{report:#}");

    // The archive has a changed file, and then its folder is missing.
    let partition = std::fs::read_dir(folder.path()).expect("a folder").next().expect("a partition");
    let partition = partition.expect("a partition").path();
    let file = partition.join("by_aggregate.parquet");
    let mut bytes = std::fs::read(&file).expect("a file");
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    std::fs::write(&file, &bytes).expect("the file is changed");
    let (status, report) = verify(&database, path, &[]).await;
    assert_eq!(status, 1, "{report:#}");
    assert!(
        findings(&report, "archive").contains("by_aggregate.parquet is not the file that was written"),
        "{report:#}"
    );
    assert!(findings(&report, "versions").contains("not verified"), "{report:#}");
    assert_eq!(findings(&report, "order"), "[]", "the catalogue is intact");
    std::fs::remove_dir_all(&partition).expect("the folder is removed");
    let (status, report) = verify(&database, path, &[]).await;
    assert!(status == 1 && findings(&report, "archive").contains("events_2025_11"), "{report:#}");
    let mut command = annals(Some(&database));
    command.arg("verify");
    let output = output(command).await;
    assert_eq!(
        output.status.code(),
        Some(2),
        "without the archive the log cannot be verified: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}

const TABLES: [&str; 14] = [
    "events_2025_12",
    "events_2026_01",
    "event_ids",
    "streams",
    "snapshots",
    "partitions",
    "projection_positions",
    "statistics",
    "event_counts",
    "stream_counts",
    "snapshot_counts",
    "snapshot_changes",
    "verification",
    "epochs",
];

/// Opens a session of the owner, and disables the triggers that refuse changes.
pub async fn owner_session(database: &TestDatabase) -> Session {
    let mut session = database.session().await;
    session.run("ALTER TABLE event_ids DISABLE TRIGGER event_ids_immutable").await;
    for partition in ["events_2025_12", "events_2026_01"] {
        session.run(&format!("ALTER TABLE {partition} DISABLE TRIGGER {partition}_immutable")).await;
    }
    session
}

/// Copies the tables that a test damages.
pub async fn copy_tables(session: &mut Session) {
    for table in TABLES {
        session.run(&format!("CREATE TABLE copy_of_{table} AS TABLE {table}")).await;
    }
}

/// Restores the tables from their copies, and removes the copies.
pub async fn restore_tables(session: &mut Session) {
    for table in TABLES {
        session.run(&format!("DELETE FROM {table}")).await;
        let columns = format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
        );
        let columns = session.texts(&columns).await.remove(0);
        session.run(&format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM copy_of_{table}")).await;
        session.run(&format!("DROP TABLE copy_of_{table}")).await;
    }
    for sequence in ["append_generation", "streams_stream_no_seq"] {
        session.run(&format!("SELECT setval('{sequence}', 1000)")).await;
    }
}
