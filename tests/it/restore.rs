//! Promise P1, P3, P4: restores as docs/how-to/backup-and-restore.md describes them. A backup is restored to a point in
//! time, and a dump is loaded into another cluster. Every event up to that point is readable, cursors beyond it get an
//! error, and appends continue.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use annals::store::admin::migrate;
use serde_json::{Value, json};

use crate::support::{
    DedicatedServer, TestApp, TestDatabase, TestOptions, copy_files, events, pause_between_polls, within_a_minute,
};

async fn service(database: TestDatabase) -> TestApp {
    migrate::migrate(&database.config()).await.expect("the schema is migrated");
    TestApp::start_on(database, TestOptions::default()).await
}

/// Appends events to several streams of two types.
async fn append_some(app: &TestApp, count: usize) {
    for n in 0..count {
        app.append(&format!("/streams/{}/{}", ["Order", "Invoice"][n % 2], n % 7), &["Happened"]).await;
    }
}

/// Returns the whole log, without the end line.
async fn log(app: &TestApp) -> Vec<Value> {
    let mut lines = app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    assert_eq!(lines.pop().expect("an end line")["end"]["count"], lines.len());
    lines
}

fn annals(server: &DedicatedServer, command: &[&str]) -> String {
    let mut annals = Command::new(env!("CARGO_BIN_EXE_annals"));
    let output = annals.args(command).env_clear().env("DATABASE_URL", server.url()).output().expect("the program runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}");
    printed
}

/// Writes a file that belongs to the owner of the folder.
fn write(files: &Path, name: &str, text: &str) {
    let (owner, file) = (std::fs::metadata(files).expect("the folder"), files.join(name));
    std::fs::write(&file, text).expect("the file is written");
    std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid())).expect("the owner of the file is set");
}

async fn epoch(app: &TestApp) -> i64 {
    app.get("/events?limit=1").send().await.expect_status(200).json()["epoch"].as_i64().expect("an epoch")
}

/// Checks that a restored store returns the log up to the restore, and continues after it in an epoch of its own.
async fn check_restored(restored: &DedicatedServer, epoch: i64, before: &[Value], lost: &[Value]) {
    annals(restored, &["verify"]);
    let app = service(restored.database()).await;
    assert_eq!(log(&app).await, before);
    let (last, end) = (before.len(), before.len() + lost.len());
    // A cursor beyond the last restored event gets the position to rewind to. A cursor at that event is still valid.
    if !lost.is_empty() {
        let refused =
            app.get(&format!("/events?after={epoch}:{end}")).send().await.expect_problem(409, "epoch_changed");
        assert_eq!(refused["rewind_to"], last);
    }
    let page = app.get(&format!("/events?after={epoch}:{last}")).send().await.expect_status(200).json();
    assert_eq!((&page["events"], &page["head"]), (&json!([]), &json!(last)));
    let new_epoch = page["epoch"].as_i64().expect("an epoch");
    assert!(new_epoch > epoch, "another history has another epoch");

    // A request with a restored event id is still a replay. A lost event can be appended again as a new event.
    let again = |event: &Value| {
        let body = json!({"events": [{"event_id": event["event_id"], "event_type": event["event_type"], "event_data": event["event_data"]}]});
        let stream = format!(
            "/streams/{}/{}",
            event["aggregate_type"].as_str().expect("a type"),
            event["aggregate_id"].as_str().expect("an id")
        );
        app.post(&stream, &body).send()
    };
    let replayed = again(&before[last / 2]).await.expect_status(200).json();
    assert_eq!(replayed["global_position"], before[last / 2]["global_position"]);
    for (n, event) in lost.iter().enumerate() {
        let written = again(event).await.expect_status(201).json();
        assert_eq!(written["global_position"], last + 1 + n);
    }
    let heads = app.get("/streams/Order?limit=1000").send().await.json();
    for stream in heads["streams"].as_array().expect("streams") {
        let path = format!("/streams/Order/{}", stream["aggregate_id"].as_str().expect("an id"));
        let version = stream["version"].as_u64().expect("a version");
        app.post(&path, &events(&["After"])).if_match(version).send().await.expect_status(201);
    }
    let after = log(&app).await;
    let positions: Vec<_> = after.iter().map(|event| event["global_position"].as_u64().expect("a position")).collect();
    assert_eq!(positions, (1..=after.len() as u64).collect::<Vec<_>>());
    assert!(app.stop().await);
    annals(restored, &["verify"]);
}

#[tokio::test]
async fn a_restore_to_a_point_in_time_begins_an_epoch_at_that_point() {
    let primary = DedicatedServer::start(&["wal_level=replica", "archive_mode=on", "shared_buffers=32MB"]).await;
    let (archived, backup) = (primary.folder("wal"), primary.folder("backup"));
    let mut session = primary.database().session().await;
    session.run(&format!("ALTER SYSTEM SET archive_command = 'cp %p {}/%f'", archived.display())).await;
    session.run("SELECT pg_reload_conf()").await;
    let app = service(primary.database()).await;
    append_some(&app, 40).await;

    // A base backup with the low-level API of PostgreSQL. The label contains the position at which recovery begins.
    session.run("SELECT pg_backup_start('a test', true)").await;
    copy_files(&primary.files(), &backup.join("pg"));
    let label = session.texts("SELECT labelfile FROM pg_backup_stop()").await.remove(0);

    append_some(&app, 30).await;
    let before = log(&app).await;
    let epoch = epoch(&app).await;
    let moment = session.texts("SELECT pg_current_wal_insert_lsn()::text").await.remove(0);
    append_some(&app, 5).await;
    let lost = log(&app).await.split_off(before.len());
    assert_eq!(lost.len(), 5);
    let segment = session.texts("SELECT pg_walfile_name(pg_current_wal_lsn())").await.remove(0);
    session.run("SELECT pg_switch_wal()").await;
    within_a_minute("the segment of the write-ahead log is archived", async {
        let done = format!("SELECT count(*) FROM pg_stat_archiver WHERE last_archived_wal >= '{segment}'");
        while session.number(&done).await == 0 {
            pause_between_polls().await;
        }
    })
    .await;
    assert!(app.stop().await);

    let prepare = |files: &Path| {
        for file in ["postmaster.pid", "postmaster.opts", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            std::fs::remove_file(files.join(file)).expect("the copy has the file");
        }
        write(files, "backup_label", &label);
        write(files, "recovery.signal", "");
        let settings = format!(
            "restore_command = 'cp {}/%f %p'\nrecovery_target_lsn = '{moment}'\nrecovery_target_action = 'promote'\n",
            archived.display()
        );
        write(files, "postgresql.auto.conf", &settings);
    };
    let restored = DedicatedServer::start_on_copy(&backup.join("pg"), &["shared_buffers=32MB"], prepare).await;
    let mut session = restored.database().session().await;
    within_a_minute("recovery ends", async {
        while session.number("SELECT pg_is_in_recovery()::integer::bigint").await == 1 {
            pause_between_polls().await;
        }
    })
    .await;
    check_restored(&restored, epoch, &before, &lost).await;
}

#[tokio::test]
async fn a_dump_is_loaded_into_another_cluster() {
    let (old, pg_dump) = DedicatedServer::start_with_program("pg_dump").await;
    let app = service(old.database()).await;
    append_some(&app, 50).await;
    let file = old.folder("dump").join("dump.sql");
    let dumped = Command::new(&pg_dump).args(["--dbname", &old.url(), "--file"]).arg(&file).status();
    assert!(dumped.expect("pg_dump runs").success());
    let before = log(&app).await;
    let epoch = epoch(&app).await;
    append_some(&app, 3).await;
    let lost = log(&app).await.split_off(before.len());
    assert!(app.stop().await);

    let (new, psql) = DedicatedServer::start_with_program("psql").await;
    let mut session = new.database().session().await;
    session.run("CREATE ROLE annals_app; CREATE ROLE annals_reader").await;
    let loaded = Command::new(psql)
        .args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--dbname", &new.url(), "--file"])
        .arg(&file)
        .output()
        .expect("psql runs");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    session.run("ANALYZE").await;
    check_restored(&new, epoch, &before, &lost).await;
}
