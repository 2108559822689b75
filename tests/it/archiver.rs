//! Promise P8: an archiver drops a table only after the archive is complete and verified. It resumes after an
//! interruption, and archives no partition that projections or statistics have not processed.

use annals::clock::Clock;
use annals::store::partitions::archiver::{ArchivingError, Include};
use serde_json::json;
use tempfile::TempDir;

use crate::archive::{History, assert_same, config, read_everything};
use crate::support::{TestApp, TestDatabase, TestOptions, at, pause_between_polls, within_a_minute};

#[tokio::test]
async fn a_partition_is_not_archived_before_projections_have_passed_it_and_statistics_include_it() {
    let history = History::create().await;
    let position = json!({"last_processed_position": 3});
    history.app.call("PUT", "/projections/slow").json(&position).send().await.expect_status(201);
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2027-01-01T00:00:00Z"), Include::All).await.expect("a plan");
    let names: Vec<_> = plan.partitions.iter().map(|partition| partition.name.as_str()).collect();
    assert_eq!(names, ["events_2026_11", "events_2026_12"]);
    let refused = archiver.archive(&plan.partitions[0], &|_| {}).await;
    assert!(matches!(refused, Err(ArchivingError::ProjectionsBehind(names)) if names == "slow"));
    let too_early = archiver.plan(at("2026-11-30T00:00:00Z"), Include::All).await.expect("a plan");
    assert!(too_early.partitions.is_empty(), "November was not over at that time: {too_early:?}");
    assert!(matches!(history.app.app.primary.archiver().await, Err(ArchivingError::Busy)));

    history.app.call("DELETE", "/projections/slow").send().await.expect_status(204);
    let mut session = history.session().await;
    session.run("UPDATE statistics SET as_of_position = 3").await;
    let refused = archiver.archive(&plan.partitions[0], &|_| {}).await;
    assert!(matches!(refused, Err(ArchivingError::NotCounted(_))));
    assert_eq!(std::fs::read_dir(history.folder.path()).expect("a folder").count(), 0, "nothing was written");
}

#[tokio::test]
async fn archiving_resumes_after_an_interruption_at_any_step() {
    let history = History::create().await;
    let before = read_everything(&history.app).await;
    let mut session = history.session().await;

    // Interrupted while the files were written.
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2027-01-01T00:00:00Z"), Include::All).await.expect("a plan");
    session.run("UPDATE partitions SET archived_to = '2026-11-begun' WHERE name = 'events_2026_11'").await;
    let begun = history.folder.path().join("2026-11-begun");
    std::fs::create_dir(&begun).expect("a folder");
    std::fs::write(begun.join("by_position.parquet"), "half of a file").expect("a file");
    assert_same(&read_everything(&history.app).await, &before);

    // Interrupted before the table was detached, because an older transaction still uses the table.
    let mut reader = history.session().await;
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert!(reader.number("SELECT count(*) FROM events").await > 50);
    let interrupted = archiver.archive(&plan.partitions[0], &|_| {}).await;
    assert!(matches!(interrupted, Err(ArchivingError::StillUsed(_))), "{interrupted:?}");
    archiver.close().await.expect("the archiver ends");
    assert_same(&read_everything(&history.app).await, &before);
    assert_same(&read_everything(&history.replica().await).await, &before);
    assert!(reader.number("SELECT count(*) FROM events").await > 50, "the snapshot of the reader still has the events");
    history.app.append("/streams/Order/meanwhile", &["A"]).await;
    reader.run("ROLLBACK").await;

    // Interrupted before the table was dropped.
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2027-01-01T00:00:00Z"), Include::All).await.expect("a plan");
    assert_eq!((plan.leftovers.len(), plan.partitions.len()), (1, 1));
    archiver.drop_table(&plan.leftovers[0]).await.expect("the table is dropped");
    archiver.drop_table(&plan.leftovers[0]).await.expect("a table that is already dropped is no error");
    archiver.archive(&plan.partitions[0], &|_| {}).await.expect("the partition is archived");
    let left = archiver.plan(at("2027-01-01T00:00:00Z"), Include::All).await.expect("a plan");
    assert!(left.partitions.is_empty() && left.leftovers.is_empty());
    // The append during the archiving has changed some of the other responses.
    assert_eq!(read_everything(&history.app).await[0], before[0]);
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('events_2026_11', 'events_2026_12')";
    assert_eq!(session.number(tables).await, 0);
}

#[tokio::test]
async fn a_service_archives_automatically_if_configured() {
    let (clock, folder) = (Clock::fixed(at("2026-11-10T00:00:00Z")), TempDir::new().expect("a folder"));
    let database = TestDatabase::create().await;
    let first =
        TestApp::start_on(database.clone(), TestOptions { clock: clock.clone(), ..TestOptions::default() }).await;
    first.append("/streams/Order/1", &["A", "B"]).await;
    clock.set(at("2026-12-10T00:00:00Z"));
    first.append("/streams/Order/1", &["C"]).await;
    first.app.primary.maintain_partitions().await.expect("maintenance runs");
    first.app.primary.count_all_events().await.expect("the events are counted");
    first.stop().await;

    clock.set(at("2027-12-10T00:00:00Z"));
    let mut options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
    options.settings.archive_after = Some(std::time::Duration::from_secs(365 * 24 * 3600));
    let app = TestApp::start_with_config(config(&database, &folder), database.clone(), options).await;
    within_a_minute("the partition is archived", async {
        while app.metric("annals_partitions_archived").await < 1.0 {
            pause_between_polls().await;
        }
    })
    .await;
    assert_eq!(app.metric("annals_partitions_ahead").await, 3.0);
    assert_eq!(app.metric("annals_archive_failures_total").await, 0.0);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2, 3]);
}

#[tokio::test]
async fn a_projection_that_holds_back_the_archive_is_named_in_the_statistics_and_in_the_refusal() {
    let (clock, folder) = (Clock::fixed(at("2026-11-10T00:00:00Z")), TempDir::new().expect("a folder"));
    let database = TestDatabase::create().await;
    let mut options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
    options.settings.archive_after = Some(std::time::Duration::from_secs(365 * 24 * 3600));
    let app = TestApp::start_with_config(config(&database, &folder), database, options).await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    let put = async |name: &str, position: u64| {
        let call = app.call("PUT", &format!("/projections/{name}"));
        call.json(&json!({ "last_processed_position": position })).send().await.expect_status(201);
    };
    put("current", 2).await;
    for n in 0..12 {
        put(&format!("stale-{n:02}"), 1).await;
    }
    let stale = async || app.get("/stats").send().await.expect_status(200).json()["stale_projections"].clone();
    assert_eq!(stale().await, json!([]), "the month is not over");
    clock.set(at("2026-12-10T00:00:00Z"));
    app.append("/streams/Order/1", &["C"]).await;
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    assert_eq!(stale().await, json!([]), "the month is younger than ARCHIVE_AFTER");

    clock.set(at("2027-12-10T00:00:00Z"));
    let listed = stale().await;
    assert_eq!(listed.as_array().map(Vec::len), Some(12), "{listed}");
    assert_eq!((&listed[0]["projection_name"], &listed[0]["last_processed_position"]), (&json!("stale-00"), &json!(1)));
    let mut archiver = app.app.primary.archiver().await.expect("an archiver");
    let plan = archiver.plan(at("2026-12-01T00:00:00Z"), Include::All).await.expect("a plan");
    let refused = archiver.archive(&plan.partitions[0], &|_| {}).await.expect_err("projections are behind");
    assert!(refused.to_string().contains("stale-09 and 2 more"), "{refused}");
}

#[tokio::test]
async fn an_intact_copy_is_never_replaced_by_a_damaged_one() {
    let history = History::create().await;
    let mut session = history.session().await;
    let mut reader = history.session().await;
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert!(reader.number("SELECT count(*) FROM events").await > 50);
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2026-12-01T00:00:00Z"), Include::All).await.expect("a plan");
    let interrupted = archiver.archive(&plan.partitions[0], &|_| {}).await;
    assert!(matches!(interrupted, Err(ArchivingError::StillUsed(_))), "{interrupted:?}");
    reader.run("ROLLBACK").await;

    // The partition is archived, and its table still exists. Its files are damaged, so the table must not be dropped.
    let file = history.file("by_position.parquet");
    let whole = std::fs::read(&file).expect("a file");
    std::fs::write(&file, &whole[..whole.len() - 1]).expect("the file is truncated");
    let plan = archiver.plan(at("2026-12-01T00:00:00Z"), Include::All).await.expect("a plan");
    assert!(archiver.drop_table(&plan.leftovers[0]).await.is_err(), "the archive is incomplete");
    let events = "SELECT count(*) FROM events_2026_11";
    assert_eq!(session.number(events).await, 37);
    assert!(archiver.restore("events_2026_11", &|_| {}).await.is_err(), "the files have changed");
    assert_eq!(session.number(events).await, 37, "the table is unchanged");
    std::fs::write(&file, &whole).expect("the file is repaired");
    archiver.restore("events_2026_11", &|_| {}).await.expect("the partition is restored");
    assert_eq!(session.number(events).await, 37);
    assert_eq!(history.app.get("/events?limit=1000").send().await.versions().len(), 111);
}
