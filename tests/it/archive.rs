//! The archive: a month leaves the database, and every request answers as before; byte by byte, wherever it was interrupted.

use std::path::PathBuf;

use annals::archive::{Archive, Order};
use annals::clock::Clock;
use annals::store::archive::{Archiver, ArchivingError};
use annals::store::database::DatabaseConfig;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Session, TestApp, TestDatabase, Wanted, at, event_with_id, events, id};

/// A service with three months of history, and a folder for its archive.
struct History {
    app: TestApp,
    clock: Clock,
    folder: TempDir,
}

fn config(database: &TestDatabase, folder: &TempDir) -> DatabaseConfig {
    let archive = Archive::open(folder.path().to_str().expect("a path")).expect("the folder is there");
    DatabaseConfig { archive: Some(archive), ..database.config() }
}

impl History {
    /// November and December are over, January is not.
    async fn begin() -> Self {
        let (clock, folder) = (Clock::fixed(at("2026-11-01T00:00:00Z")), TempDir::new().expect("a folder"));
        let database = TestDatabase::create().await;
        let wanted = Wanted { clock: clock.clone(), ..Wanted::default() };
        let app = TestApp::start_with(config(&database, &folder), database, wanted).await;
        let history = Self { app, clock, folder };
        let reducer = json!({"language": "merge-patch", "source": "", "snapshot_every": 7});
        history.app.call("PUT", "/reducers/Cart").json(&reducer).send().await.expect_status(201);
        for (n, month) in ["2026-11", "2026-12", "2027-01"].iter().enumerate() {
            for day in 1..=9 {
                history.clock.set(at(&format!("{month}-{day:02}T08:00:00.{day:06}Z")));
                history.app.append("/streams/Order/always", &["A", "B"]).await;
                history.app.append(&format!("/streams/Order/{month}-{day}"), &["A"]).await;
                let body = json!({"events": [{"event_type": "Filled", "event_data": {"day": day, "price": 1.10, "é\n": [n, null]},
                    "metadata": {"by": "me"}, "correlation_id": id(day)}]});
                history.app.post("/streams/Cart/c 1", &body).send().await.expect_status(201);
            }
            let known = event_with_id(&id(100 + n as u32));
            history.app.post("/streams/Order/known", &known).send().await.expect_status(201);
        }
        history.app.app.store.keep_months().await.expect("maintenance runs");
        history.app.app.store.count_all_events().await.expect("it is counted");
        history
    }

    /// Another process on the same database, which does not hear of what this one does.
    async fn replica(&self) -> TestApp {
        let wanted = Wanted { clock: self.clock.clone(), ..Wanted::default() };
        TestApp::start_with(config(&self.app.database, &self.folder), self.app.database.clone(), wanted).await
    }

    async fn archiver(&self) -> Archiver {
        self.app.app.store.archiver().await.expect("nobody else archives")
    }

    /// Archives November and December.
    async fn archive(&self) {
        let mut archiver = self.archiver().await;
        let plan = archiver.plan(at("2027-01-01T00:00:00Z"), true).await.expect("a plan");
        for month in &plan.months {
            archiver.archive(month, &|_| {}).await.expect("it is archived");
        }
        archiver.close().await.expect("it ends");
    }

    async fn restore(&self, month: &str) {
        let mut archiver = self.archiver().await;
        archiver.restore(month, &|_| {}).await.expect("it comes back");
        archiver.close().await.expect("it ends");
    }

    async fn session(&self) -> Session {
        self.app.database.session().await
    }

    /// The one file of this name.
    fn file(&self, name: &str) -> PathBuf {
        let months = std::fs::read_dir(self.folder.path()).expect("a folder");
        months.map(|month| month.expect("a month").path().join(name)).min().expect("a file")
    }
}

/// Reads of everything that can be read, with what each answers.
async fn everything(app: &TestApp) -> Vec<(String, String)> {
    const LINES: &str = "application/x-ndjson";
    const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
    let mut answers = Vec::new();
    let known = [id(100), id(101), id(102)].map(|id| format!("/events/{id}"));
    let paths = [
        ("/streams/Order/always?limit=1000", "*/*"),
        ("/streams/Order/always?limit=5", "*/*"),
        ("/streams/Order/always?from_version=17&to_version=20", "*/*"),
        ("/streams/Order/always?direction=backward&limit=25", "*/*"),
        ("/streams/Order/always?direction=backward&to_version=19&limit=3", "*/*"),
        ("/streams/Order/always", LINES),
        ("/streams/Order/always?limit=3", CLOUD_EVENTS),
        ("/streams/Order/2026-11-3", "*/*"),
        ("/streams/Order/2026-12-9", "*/*"),
        ("/streams/Order/always/1", "*/*"),
        ("/streams/Order/always/36", "*/*"),
        ("/streams/Order/always/37", "*/*"),
        ("/streams/Order", "*/*"),
        ("/streams/Cart/c%201", LINES),
        ("/aggregates/Cart/c%201?snapshot=ignore", "*/*"),
        ("/aggregates/Order/always", "*/*"),
        ("/aggregates/Cart/c%201/state", "*/*"),
        ("/aggregates/Cart/c%201/state?version=3", "*/*"),
        ("/aggregates/Cart/c%201/state?version=12", "*/*"),
        ("/aggregates/Cart/c%201/state?at=2026-11-04T00:00:00Z", "*/*"),
        ("/aggregates/Cart/c%201/state?at=2026-12-09T08:00:00.000009Z", "*/*"),
        ("/aggregates/Cart/c%201/state?at=2026-12-31T00:00:00Z", "*/*"),
        ("/events", LINES),
        ("/events?limit=7", "*/*"),
        ("/events?after=30&limit=20", "*/*"),
        ("/events?event_type=B", LINES),
        ("/events?event_type=Filled&limit=4", "*/*"),
        ("/events?aggregate_type=Cart", LINES),
        ("/events?aggregate_type=Order&aggregate_id=always&after=5", LINES),
        ("/events?correlation_id=00000000-0000-4000-8000-000000000004", LINES),
        ("/events?occurred_from=2026-11-05T00:00:00Z&occurred_to=2026-12-02T12:00:00Z", LINES),
        ("/events?occurred_from=2026-12-05T00:00:00Z&limit=3", "*/*"),
        ("/events?occurred_to=2026-11-02T00:00:00Z", LINES),
        ("/events?occurred_to=2026-12-01T00:00:00Z&aggregate_type=Cart", LINES),
        ("/events?event_type=Nobody", LINES),
    ];
    let known = known.iter().map(|path| (path.as_str(), "*/*"));
    for (path, accept) in paths.into_iter().chain(known) {
        let reply = app.get(path).header("accept", accept).send().await.expect_status(200);
        // Whether a snapshot is there yet is told, and not what this is about.
        let text = reply.text();
        let text = match text.split_once(",\"snapshot_version\"") {
            Some((state, _)) => state.to_owned(),
            None => text,
        };
        answers.push((format!("{path} {accept}"), text));
    }
    answers
}

#[track_caller]
fn same(found: &[(String, String)], expected: &[(String, String)]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn archived_events_are_read_by_the_same_requests_and_equal_to_the_byte() {
    let history = History::begin().await;
    let replica = history.replica().await;
    let before = everything(&history.app).await;
    same(&everything(&replica).await, &before);

    history.archive().await;
    let mut session = history.session().await;
    let left = session.texts("SELECT DISTINCT to_char(occurred_at, 'YYYY-MM') FROM events").await;
    assert_eq!(left, ["2027-01"], "November and December are no longer in the database");
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('events_2026_11', 'events_2026_12')";
    assert_eq!(session.number(tables).await, 0);
    // One that has heard of it, one that has not, and one that begins now.
    same(&everything(&history.app).await, &before);
    same(&everything(&replica).await, &before);
    same(&everything(&history.replica().await).await, &before);

    // Identity and versions outlive the month.
    for n in [100, 101] {
        let replayed = history.app.post("/streams/Order/known", &event_with_id(&id(n))).send().await;
        assert_eq!(replayed.expect_status(200).header("idempotent-replayed"), Some("true"));
    }
    let other = json!({"events": [{"event_id": id(100), "event_type": "Happened", "event_data": {"n": 2}}]});
    history.app.post("/streams/Order/known", &other).send().await.expect_problem(409, "event_id_reused");
    history.app.post("/streams/Order/2026-11-3", &events(&["X"])).if_match(0).send().await.expect_status(412);
    let appended = history.app.post("/streams/Order/2026-11-3", &events(&["X"])).if_match(1).send().await;
    assert_eq!(appended.expect_status(201).json()["version"], 2);
    assert_eq!(history.app.get("/streams/Order/2026-11-3").send().await.versions(), [1, 2]);
    assert_eq!(history.app.get("/streams/Order/2026-11-3?direction=backward").send().await.versions(), [2, 1]);
}

#[tokio::test]
async fn an_event_stream_passes_from_the_archive_to_what_happens_now() {
    let history = History::begin().await;
    history.archive().await;
    let head = history.app.get("/events?after=head").send().await.json()["head"].as_i64().expect("a position");
    let mut follower = history.app.follow("/events?after=0").await;
    let mut cart = history.app.follow("/streams/Cart/c%201").await;
    history.app.append("/streams/Cart/c 1", &["Now"]).await;
    for position in 1..=head + 1 {
        assert_eq!(follower.event().await.json()["global_position"], position);
    }
    for version in 1..=28 {
        assert_eq!(cart.event().await.json()["version"], version);
    }
}

#[tokio::test]
async fn a_month_comes_back() {
    let history = History::begin().await;
    let before = everything(&history.app).await;
    history.archive().await;
    let replica = history.replica().await;
    history.restore("events_2026_12").await;
    same(&everything(&history.app).await, &before);
    same(&everything(&replica).await, &before);
    let mut session = history.session().await;
    let left = session.texts("SELECT DISTINCT to_char(occurred_at, 'YYYY-MM') FROM events ORDER BY 1").await;
    assert_eq!(left, ["2026-12", "2027-01"]);
    // It does not go again by itself.
    let mut archiver = history.archiver().await;
    let by_itself = archiver.plan(at("2027-01-01T00:00:00Z"), false).await.expect("a plan");
    assert!(by_itself.months.is_empty(), "{by_itself:?}");
    archiver.close().await.expect("it ends");
    // A month in the database beside an older one that is not; and then as it was.
    history.restore("events_2026_11").await;
    same(&everything(&history.app).await, &before);
    let unique = "SELECT count(*) FROM pg_index WHERE indrelid = 'events_2026_11'::regclass AND indisunique";
    assert_eq!(session.number(unique).await, 2);
    history.archive().await;
    same(&everything(&replica).await, &before);
    let unknown = history.archiver().await.restore("events_2020_01", &|_| {}).await;
    assert!(matches!(unknown, Err(ArchivingError::NotArchived(_))));
}

#[tokio::test]
async fn a_month_stays_while_a_projection_has_not_passed_it_and_while_it_is_not_counted() {
    let history = History::begin().await;
    let position = json!({"last_processed_position": 3});
    history.app.call("PUT", "/projections/slow").json(&position).send().await.expect_status(201);
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2027-01-01T00:00:00Z"), true).await.expect("a plan");
    let names: Vec<_> = plan.months.iter().map(|month| month.name.as_str()).collect();
    assert_eq!(names, ["events_2026_11", "events_2026_12"]);
    let refused = archiver.archive(&plan.months[0], &|_| {}).await;
    assert!(matches!(refused, Err(ArchivingError::ProjectionsBehind(names)) if names == "slow"));
    assert!(
        archiver.plan(at("2026-11-30T00:00:00Z"), true).await.expect("a plan").months.is_empty(),
        "it is not over then"
    );
    assert!(matches!(history.app.app.store.archiver().await, Err(ArchivingError::Busy)));

    history.app.call("DELETE", "/projections/slow").send().await.expect_status(204);
    let mut session = history.session().await;
    session.run("UPDATE statistics SET as_of_position = 3").await;
    let refused = archiver.archive(&plan.months[0], &|_| {}).await;
    assert!(matches!(refused, Err(ArchivingError::NotCounted(_))));
    assert_eq!(std::fs::read_dir(history.folder.path()).expect("a folder").count(), 0, "nothing was written");
}

#[tokio::test]
async fn archiving_goes_on_wherever_it_was_interrupted() {
    let history = History::begin().await;
    let before = everything(&history.app).await;
    let mut session = history.session().await;

    // While files were written.
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2027-01-01T00:00:00Z"), true).await.expect("a plan");
    session.run("UPDATE partitions SET archived_to = '2026-11-begun' WHERE name = 'events_2026_11'").await;
    let begun = history.folder.path().join("2026-11-begun");
    std::fs::create_dir(&begun).expect("a folder");
    std::fs::write(begun.join("by_position.parquet"), "half of a file").expect("a file");
    same(&everything(&history.app).await, &before);

    // Before the table was detached: a transaction that began before still uses it.
    let mut reader = history.session().await;
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert!(reader.number("SELECT count(*) FROM events").await > 50);
    let interrupted = archiver.archive(&plan.months[0], &|_| {}).await;
    assert!(matches!(interrupted, Err(ArchivingError::StillUsed(_))), "{interrupted:?}");
    archiver.close().await.expect("it ends");
    same(&everything(&history.app).await, &before);
    same(&everything(&history.replica().await).await, &before);
    assert!(reader.number("SELECT count(*) FROM events").await > 50, "its snapshot has them still");
    history.app.append("/streams/Order/meanwhile", &["A"]).await;
    reader.run("ROLLBACK").await;

    // Before the table was dropped.
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2027-01-01T00:00:00Z"), true).await.expect("a plan");
    assert_eq!((plan.leftovers.len(), plan.months.len()), (1, 1));
    archiver.remove(&plan.leftovers[0]).await.expect("it goes");
    archiver.remove(&plan.leftovers[0]).await.expect("it has gone already");
    archiver.archive(&plan.months[0], &|_| {}).await.expect("it is archived");
    let left = archiver.plan(at("2027-01-01T00:00:00Z"), true).await.expect("a plan");
    assert!(left.months.is_empty() && left.leftovers.is_empty());
    let answers = everything(&history.app).await;
    assert_eq!(answers[0], before[0]);
    let gone = "SELECT count(*) FROM pg_class WHERE relname IN ('events_2026_11', 'events_2026_12')";
    assert_eq!(session.number(gone).await, 0);
}

#[tokio::test]
async fn readers_miss_nothing_while_months_come_and_go() {
    let history = History::begin().await;
    let replica = history.replica().await;
    let requests = [
        ("/events?event_type=B", "application/x-ndjson"),
        ("/events", "application/x-ndjson"),
        ("/streams/Order/always?direction=backward&limit=1000", "*/*"),
        ("/aggregates/Cart/c%201/state?at=2026-12-09T09:00:00Z", "*/*"),
        ("/events?occurred_from=2026-11-05T00:00:00Z&occurred_to=2026-12-02T12:00:00Z", "application/x-ndjson"),
    ];
    let answer = async |app: &TestApp, path: &str, accept: &str| {
        let text = app.get(path).header("accept", accept).send().await.expect_status(200).text();
        text.split(",\"snapshot_version\"").next().expect("a piece").to_owned()
    };
    let mut expected = Vec::new();
    for (path, accept) in requests {
        expected.push(answer(&history.app, path, accept).await);
    }
    let coming_and_going = async {
        for _ in 0..4 {
            history.archive().await;
            history.restore("events_2026_11").await;
            history.restore("events_2026_12").await;
        }
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let reading = async |app: &TestApp| {
        let mut rounds = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            for ((path, accept), expected) in requests.iter().zip(&expected) {
                assert_eq!(&answer(app, path, accept).await, expected, "{path}");
            }
            rounds += 1;
        }
        rounds
    };
    let going = async {
        coming_and_going.await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let ((), here, there) = tokio::join!(going, reading(&history.app), reading(&replica));
    assert!(here > 0 && there > 0, "{here} and {there} rounds of reading");
}

#[tokio::test]
async fn what_was_changed_or_lost_outside_is_found_out() {
    let history = History::begin().await;
    history.archive().await;
    let file = history.file("by_position.parquet");
    let whole = std::fs::read(&file).expect("a file");
    let mut changed = whole.clone();
    changed[whole.len() / 3] ^= 0xff;
    std::fs::write(&file, &changed).expect("it is changed");
    history.replica().await.get("/events?limit=30").send().await.expect_problem(500, "internal");
    // Wherever it is, a changed byte is in a piece that does not fit any more.
    let folder = file.parent().and_then(|folder| folder.file_name()).and_then(|name| name.to_str()).expect("a name");
    for at in (4..whole.len()).step_by(whole.len() / 40) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&file, &changed).expect("it is changed");
        let archive = Archive::open(history.folder.path().to_str().expect("a path")).expect("it opens");
        let mut read = Ok(());
        for n in archive.groups(folder, Order::Position).await.unwrap_or(0..0) {
            read = read.and(archive.group(folder, Order::Position, n).await.map(drop));
        }
        let opened = archive.groups(folder, Order::Position).await.map(drop);
        assert!(opened.and(read).is_err(), "a change at byte {at} of {}", whole.len());
    }
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("it is cut");
    history.replica().await.get("/events?limit=30").send().await.expect_problem(500, "internal");
    std::fs::remove_file(&file).expect("it is gone");
    let gone = history.replica().await.get("/events?limit=30").send().await;
    gone.expect_problem(503, "database_unavailable");
    // What is in the database is served as ever.
    history.app.get("/events?after=75&limit=3").send().await.expect_status(200);
    history.app.append("/streams/Order/always", &["C"]).await;

    let elsewhere = TempDir::new().expect("another folder");
    let other = config(&history.app.database, &elsewhere);
    let started = annals::store::Store::open(&other, Clock::system(), Default::default()).await.expect("it opens");
    let refused = started.check_archive().await.expect_err("it is not the place").to_string();
    assert!(refused.contains("is not at ARCHIVE_URL"), "{refused}");
    assert!(started.archiver().await.is_err(), "no month goes to a place that does not have the others");

    let without = DatabaseConfig { archive: None, ..history.app.database.config() };
    let started = annals::store::Store::open(&without, Clock::system(), Default::default()).await.expect("it opens");
    let refused = started.check_archive().await.expect_err("a service could not read what it has to").to_string();
    assert!(refused.contains("ARCHIVE_URL"), "{refused}");
}

#[tokio::test]
async fn a_service_archives_by_itself_when_told_to() {
    let (clock, folder) = (Clock::fixed(at("2026-11-10T00:00:00Z")), TempDir::new().expect("a folder"));
    let database = TestDatabase::create().await;
    let first = TestApp::start_on(database.clone(), Wanted { clock: clock.clone(), ..Wanted::default() }).await;
    first.append("/streams/Order/1", &["A", "B"]).await;
    clock.set(at("2026-12-10T00:00:00Z"));
    first.append("/streams/Order/1", &["C"]).await;
    first.app.store.keep_months().await.expect("maintenance runs");
    first.app.store.count_all_events().await.expect("it is counted");
    first.stop().await;

    clock.set(at("2027-12-10T00:00:00Z"));
    let mut wanted = Wanted { clock: clock.clone(), ..Wanted::default() };
    wanted.settings.archive_after = Some(std::time::Duration::from_secs(365 * 24 * 3600));
    let app = TestApp::start_with(config(&database, &folder), database.clone(), wanted).await;
    crate::support::within_a_minute("the month is archived", async {
        while app.metric("annals_archived_months").await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(app.metric("annals_months_ahead").await, 3.0);
    assert_eq!(app.metric("annals_archive_failures_total").await, 0.0);
    assert_eq!(app.get("/streams/Order/1").send().await.versions(), [1, 2, 3]);
}

/// A process that learned of the months before they were closed, and never heard of them again.
#[tokio::test]
async fn a_process_that_slept_through_it_all_reads_right() {
    let (clock, folder) = (Clock::fixed(at("2026-11-05T00:00:00Z")), TempDir::new().expect("a folder"));
    let database = TestDatabase::create().await;
    let start = async || {
        let wanted = Wanted { clock: clock.clone(), ..Wanted::default() };
        TestApp::start_with(config(&database, &folder), database.clone(), wanted).await
    };
    let (app, mut stale) = (start().await, Vec::new());
    for month in ["2026-11", "2026-12", "2027-01", "2027-02"] {
        for day in 1..=5 {
            clock.set(at(&format!("{month}-{day:02}T00:00:00Z")));
            app.append("/streams/Order/x", &["A", "B"]).await;
            app.append("/streams/Cart/1", &["A"]).await;
        }
        let other = start().await;
        other.get("/events").send().await.expect_status(200);
        stale.push(other);
    }
    let requests = [
        ("/events", "application/x-ndjson"),
        ("/events?limit=4&after=12", "*/*"),
        ("/events?event_type=B", "application/x-ndjson"),
        ("/events?aggregate_type=Order&aggregate_id=x&event_type=A", "application/x-ndjson"),
        ("/events?occurred_from=2026-11-04T00:00:00Z&occurred_to=2027-01-02T00:00:00Z", "application/x-ndjson"),
        ("/streams/Order/x", "application/x-ndjson"),
        ("/streams/Order", "*/*"),
        ("/aggregates/Order/x", "*/*"),
    ];
    let read = async |app: &TestApp| {
        let mut answers = Vec::new();
        for (path, accept) in requests {
            answers.push(app.get(path).header("accept", accept).send().await.expect_status(200).text());
        }
        answers
    };
    let expected = read(&app).await;
    app.app.store.keep_months().await.expect("maintenance runs");
    app.app.store.count_all_events().await.expect("it is counted");
    // One by one, so that each request is the first of a process that has not heard.
    for (n, request) in requests.iter().enumerate() {
        let mut archiver = app.app.store.archiver().await.expect("nobody else archives");
        let plan = archiver.plan(at("2027-02-01T00:00:00Z"), true).await.expect("a plan");
        for month in &plan.months {
            archiver.archive(month, &|_| {}).await.expect("it is archived");
        }
        // An older month beside newer ones that are not here.
        if n % 2 == 1 {
            archiver.restore("events_2026_11", &|_| {}).await.expect("it comes back");
        }
        archiver.close().await.expect("it ends");
        for other in &stale {
            let (path, accept) = request;
            let answer = other.get(path).header("accept", accept).send().await.expect_status(200).text();
            assert_eq!(answer, expected[n], "{path}, round {n}");
        }
    }
    for other in &stale {
        assert_eq!(read(other).await, expected);
    }
}

#[tokio::test]
async fn a_copy_that_is_good_is_never_given_up_for_one_that_is_not() {
    let history = History::begin().await;
    let mut session = history.session().await;
    let mut reader = history.session().await;
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    assert!(reader.number("SELECT count(*) FROM events").await > 50);
    let mut archiver = history.archiver().await;
    let plan = archiver.plan(at("2026-12-01T00:00:00Z"), true).await.expect("a plan");
    let interrupted = archiver.archive(&plan.months[0], &|_| {}).await;
    assert!(matches!(interrupted, Err(ArchivingError::StillUsed(_))), "{interrupted:?}");
    reader.run("ROLLBACK").await;

    // The month is archived, its table still here, and its files are spoilt: nothing may drop the table.
    let file = history.file("by_position.parquet");
    let whole = std::fs::read(&file).expect("a file");
    std::fs::write(&file, &whole[..whole.len() - 1]).expect("it is cut");
    let plan = archiver.plan(at("2026-12-01T00:00:00Z"), true).await.expect("a plan");
    assert!(archiver.remove(&plan.leftovers[0]).await.is_err(), "the archive does not have it");
    let events = "SELECT count(*) FROM events_2026_11";
    assert_eq!(session.number(events).await, 37);
    assert!(archiver.restore("events_2026_11", &|_| {}).await.is_err(), "its files are not what was written");
    assert_eq!(session.number(events).await, 37, "what was here is here");
    std::fs::write(&file, &whole).expect("it is whole again");
    archiver.restore("events_2026_11", &|_| {}).await.expect("it comes back");
    assert_eq!(session.number(events).await, 37);
    assert_eq!(history.app.get("/events?limit=1000").send().await.versions().len(), 111);
}
