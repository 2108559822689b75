//! Promise P8: archiving a partition changes no byte of any response. Archive files that were changed or lost are
//! detected.

use std::path::PathBuf;

use annals::archive::manifest::Order;
use annals::archive::partition::ArchivedPartition;
use annals::archive::place::Archive;
use annals::clock::Clock;
use annals::store::connection::config::DatabaseConfig;
use annals::store::partitions::archiver::{Archiver, ArchivingError, Include};
use annals::store::primary::Primary;
use serde_json::json;
use tempfile::TempDir;

use crate::backward::pages_backward;
use crate::support::{Session, TestApp, TestDatabase, TestOptions, at, event_with_id, events, id};

/// A service with three months of events, and a folder for its archive.
pub struct History {
    pub app: TestApp,
    clock: Clock,
    pub folder: TempDir,
}

pub fn config(database: &TestDatabase, folder: &TempDir) -> DatabaseConfig {
    let archive = Archive::open(folder.path().to_str().expect("a path")).expect("the folder exists");
    DatabaseConfig { archive: Some(archive), ..database.config() }
}

/// Returns the place of an archived partition, as the catalogue names it.
pub async fn archived(session: &mut Session, name: &str) -> ArchivedPartition {
    let columns = "SELECT unnest(ARRAY[archived_to, archive_sha256]) FROM partitions WHERE archived_at IS NOT NULL";
    let found = session.texts(&format!("{columns} AND name = '{name}'")).await;
    let [folder, manifest_sha256]: [String; 2] = found.try_into().expect("the partition is archived");
    ArchivedPartition { name: name.to_owned(), folder, manifest_sha256 }
}

impl History {
    /// Creates a log. Its partitions of November and December are sealed, and its partition of January is open.
    pub async fn create() -> Self {
        let (clock, folder) = (Clock::fixed(at("2026-11-01T00:00:00Z")), TempDir::new().expect("a folder"));
        let database = TestDatabase::create().await;
        let options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
        let app = TestApp::start_with_config(config(&database, &folder), database, options).await;
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
        history.app.app.primary.maintain_partitions().await.expect("maintenance runs");
        history.app.app.primary.count_all_events().await.expect("the events are counted");
        history
    }

    /// Starts another service on the same database. The first service does not notify it of changes.
    pub async fn replica(&self) -> TestApp {
        let options = TestOptions { clock: self.clock.clone(), ..TestOptions::default() };
        TestApp::start_with_config(config(&self.app.database, &self.folder), self.app.database.clone(), options).await
    }

    pub async fn archiver(&self) -> Archiver {
        self.app.archiver().await
    }

    /// Archives November and December.
    pub async fn archive(&self) {
        let mut archiver = self.archiver().await;
        let plan = archiver.plan(at("2027-01-01T00:00:00Z"), Include::All).await.expect("a plan");
        for partition in &plan.partitions {
            archiver.archive(partition, &|_| {}).await.expect("the partition is archived");
        }
        archiver.close().await.expect("the archiver ends");
    }

    pub async fn restore(&self, partition: &str) {
        let mut archiver = self.archiver().await;
        archiver.restore(partition, &|_| {}).await.expect("the partition is restored");
        archiver.close().await.expect("the archiver ends");
    }

    pub async fn session(&self) -> Session {
        self.app.database.session().await
    }

    /// Returns the file of this name in the folder of the oldest partition.
    pub fn file(&self, name: &str) -> PathBuf {
        let partitions = std::fs::read_dir(self.folder.path()).expect("a folder");
        partitions.map(|partition| partition.expect("a partition").path().join(name)).min().expect("a file")
    }
}

/// Sends one request for each way to read events. Returns the requests with their responses.
pub async fn read_everything(app: &TestApp) -> Vec<(String, String)> {
    const LINES: &str = "application/x-ndjson";
    const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
    let mut responses = Vec::new();
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
        ("/aggregates/Cart/c%201/states", "*/*"),
        ("/aggregates/Cart/c%201/states?from_version=5&to_version=12", "*/*"),
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
        ("/events?event_type=Unknown", LINES),
    ];
    let known = known.iter().map(|path| (path.as_str(), "*/*"));
    for (path, accept) in paths.into_iter().chain(known) {
        let reply = app.get(path).header("accept", accept).send().await.expect_status(200);
        // Whether a snapshot exists depends on timing, so its version is not compared.
        let text = reply.text();
        let text = match text.split_once(",\"snapshot_version\"") {
            Some((state, _)) => state.to_owned(),
            None => text,
        };
        responses.push((format!("{path} {accept}"), text));
    }
    // A page may end early, so the events of all pages are compared.
    for query in [
        "limit=1000",
        "limit=7",
        "before=25&limit=20",
        "event_type=B",
        "aggregate_type=Cart&limit=4",
        "aggregate_type=Order&aggregate_id=always&before=50",
        "correlation_id=00000000-0000-4000-8000-000000000004",
        "occurred_from=2026-11-05T00:00:00Z&occurred_to=2026-12-02T12:00:00Z",
        "occurred_from=2026-12-05T00:00:00Z&event_type=Filled",
        "occurred_to=2026-11-02T00:00:00Z",
        "event_type=Unknown",
    ] {
        responses.push((format!("backward {query}"), format!("{:?}", pages_backward(app, query).await)));
    }
    responses
}

#[track_caller]
pub fn assert_same(found: &[(String, String)], expected: &[(String, String)]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn archived_events_are_read_by_the_same_requests_and_are_equal_byte_by_byte() {
    let history = History::create().await;
    let replica = history.replica().await;
    let before = read_everything(&history.app).await;
    assert_same(&read_everything(&replica).await, &before);

    history.archive().await;
    let mut session = history.session().await;
    let months = session.texts("SELECT DISTINCT to_char(occurred_at, 'YYYY-MM') FROM events").await;
    assert_eq!(months, ["2027-01"], "November and December are not in the database");
    let tables = "SELECT count(*) FROM pg_class WHERE relname IN ('events_2026_11', 'events_2026_12')";
    assert_eq!(session.number(tables).await, 0);
    // The service that archived, a service that ran meanwhile, and a service that starts after the archiving.
    assert_same(&read_everything(&history.app).await, &before);
    assert_same(&read_everything(&replica).await, &before);
    assert_same(&read_everything(&history.replica().await).await, &before);

    // After the partition was dropped from the database, event ids and versions are still known.
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
async fn an_event_stream_continues_from_the_archive_into_live_events() {
    let history = History::create().await;
    history.archive().await;
    let head = history.app.get("/events?after=head").send().await.json()["head"].as_i64().expect("a position");
    let mut subscriber = history.app.subscribe("/events?after=0").await;
    let mut cart = history.app.subscribe("/streams/Cart/c%201").await;
    history.app.append("/streams/Cart/c 1", &["Now"]).await;
    for position in 1..=head + 1 {
        assert_eq!(subscriber.event().await.json()["global_position"], position);
    }
    for version in 1..=28 {
        assert_eq!(cart.event().await.json()["version"], version);
    }
}

#[tokio::test]
async fn an_archived_partition_is_restored() {
    let history = History::create().await;
    let before = read_everything(&history.app).await;
    history.archive().await;
    let replica = history.replica().await;
    history.restore("events_2026_12").await;
    assert_same(&read_everything(&history.app).await, &before);
    assert_same(&read_everything(&replica).await, &before);
    let mut session = history.session().await;
    let months = session.texts("SELECT DISTINCT to_char(occurred_at, 'YYYY-MM') FROM events ORDER BY 1").await;
    assert_eq!(months, ["2026-12", "2027-01"]);
    // A restored partition is not archived again automatically.
    let mut archiver = history.archiver().await;
    let automatic = archiver.plan(at("2027-01-01T00:00:00Z"), Include::NeverRestored).await.expect("a plan");
    assert!(automatic.partitions.is_empty(), "{automatic:?}");
    archiver.close().await.expect("the archiver ends");
    // The older partition is also restored, and then both partitions are archived again.
    history.restore("events_2026_11").await;
    assert_same(&read_everything(&history.app).await, &before);
    let unique = "SELECT count(*) FROM pg_index WHERE indrelid = 'events_2026_11'::regclass AND indisunique";
    assert_eq!(session.number(unique).await, 2);
    history.archive().await;
    assert_same(&read_everything(&replica).await, &before);
    let unknown = history.archiver().await.restore("events_2020_01", &|_| {}).await;
    assert!(matches!(unknown, Err(ArchivingError::NotArchived(_))));
}

#[tokio::test]
async fn readers_miss_nothing_while_partitions_are_archived_and_restored() {
    let history = History::create().await;
    let replica = history.replica().await;
    let requests = [
        ("/events?event_type=B", "application/x-ndjson"),
        ("/events", "application/x-ndjson"),
        ("/streams/Order/always?direction=backward&limit=1000", "*/*"),
        ("/aggregates/Cart/c%201/state?at=2026-12-09T09:00:00Z", "*/*"),
        ("/events?occurred_from=2026-11-05T00:00:00Z&occurred_to=2026-12-02T12:00:00Z", "application/x-ndjson"),
    ];
    let read = async |app: &TestApp, path: &str, accept: &str| {
        let text = app.get(path).header("accept", accept).send().await.expect_status(200).text();
        text.split(",\"snapshot_version\"").next().expect("a part").to_owned()
    };
    let mut expected = Vec::new();
    for (path, accept) in requests {
        expected.push(read(&history.app, path, accept).await);
    }
    let moving = async {
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
                assert_eq!(&read(app, path, accept).await, expected, "{path}");
            }
            rounds += 1;
        }
        rounds
    };
    let moved = async {
        moving.await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let ((), first, second) = tokio::join!(moved, reading(&history.app), reading(&replica));
    assert!(first > 0 && second > 0, "the readers completed {first} and {second} rounds");
}

#[tokio::test]
async fn archive_files_that_were_changed_or_lost_are_detected() {
    let history = History::create().await;
    history.archive().await;
    let file = history.file("by_position.parquet");
    let whole = std::fs::read(&file).expect("a file");
    let mut changed = whole.clone();
    changed[whole.len() / 3] ^= 0xff;
    std::fs::write(&file, &changed).expect("the file is changed");
    history.replica().await.get("/events?limit=30").send().await.expect_problem(500, "internal");
    // A changed byte anywhere in the file makes the checksum of its range fail.
    let partition = archived(&mut history.session().await, "events_2026_11").await;
    for at in (4..whole.len()).step_by(whole.len() / 40) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&file, &changed).expect("the file is changed");
        let archive = Archive::open(history.folder.path().to_str().expect("a path")).expect("the archive opens");
        let mut read = Ok(());
        for n in archive.groups(&partition, Order::Position).await.unwrap_or(0..0) {
            read = read.and(archive.group(&partition, Order::Position, n).await.map(drop));
        }
        let opened = archive.groups(&partition, Order::Position).await.map(drop);
        assert!(opened.and(read).is_err(), "the change of byte {at} of {} was not detected", whole.len());
    }
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("the file is truncated");
    history.replica().await.get("/events?limit=30").send().await.expect_problem(500, "internal");
    std::fs::remove_file(&file).expect("the file is removed");
    let missing = history.replica().await.get("/events?limit=30").send().await;
    missing.expect_problem(503, "database_unavailable");
    // Events in the database are served as before.
    history.app.get("/events?after=75&limit=3").send().await.expect_status(200);
    history.app.append("/streams/Order/always", &["C"]).await;

    let elsewhere = TempDir::new().expect("another folder");
    let other = config(&history.app.database, &elsewhere);
    let primary = Primary::connect(&other, Clock::system(), Default::default()).await.expect("the store connects");
    let refused = primary.check_archive().await.expect_err("another archive is refused").to_string();
    assert!(refused.contains("ARCHIVE_URL does not have it"), "{refused}");
    assert!(primary.archiver().await.is_err(), "partitions must not be written to another archive");

    let without = DatabaseConfig { archive: None, ..history.app.database.config() };
    let primary = Primary::connect(&without, Clock::system(), Default::default()).await.expect("the store connects");
    let refused =
        primary.check_archive().await.expect_err("a configuration without the archive is refused").to_string();
    assert!(refused.contains("ARCHIVE_URL"), "{refused}");
}

/// The cached catalogue of each stale service is from a time before the partitions were sealed.
#[tokio::test]
async fn a_service_with_an_outdated_catalogue_reads_correctly() {
    let (clock, folder) = (Clock::fixed(at("2026-11-05T00:00:00Z")), TempDir::new().expect("a folder"));
    let database = TestDatabase::create().await;
    let start = async || {
        let options = TestOptions { clock: clock.clone(), ..TestOptions::default() };
        TestApp::start_with_config(config(&database, &folder), database.clone(), options).await
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
        let mut responses = Vec::new();
        for (path, accept) in requests {
            responses.push(app.get(path).header("accept", accept).send().await.expect_status(200).text());
        }
        responses
    };
    let expected = read(&app).await;
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    app.app.primary.count_all_events().await.expect("the events are counted");
    // Each round has one request, which is the first request of each stale service after the partitions were moved.
    for (n, request) in requests.iter().enumerate() {
        let mut archiver = app.archiver().await;
        let plan = archiver.plan(at("2027-02-01T00:00:00Z"), Include::All).await.expect("a plan");
        for partition in &plan.partitions {
            archiver.archive(partition, &|_| {}).await.expect("the partition is archived");
        }
        // In every second round, the oldest partition is restored, and the newer ones are in the archive.
        if n % 2 == 1 {
            archiver.restore("events_2026_11", &|_| {}).await.expect("the partition is restored");
        }
        archiver.close().await.expect("the archiver ends");
        for other in &stale {
            let (path, accept) = request;
            let response = other.get(path).header("accept", accept).send().await.expect_status(200).text();
            assert_eq!(response, expected[n], "{path}, round {n}");
        }
    }
    for other in &stale {
        assert_eq!(read(other).await, expected);
    }
}

#[tokio::test]
async fn consumer_groups_read_archived_partitions() {
    let history = History::create().await;
    let app = &history.app;
    let group = |name: &str, body| app.call("PUT", &format!("/groups/{name}")).json(&body).send();
    group("g", json!({"partitions": 1, "retry_after": []})).await.expect_status(201);
    let claim = |name: &str| app.call("POST", &format!("/groups/{name}/claims?limit=1000")).send();
    let acknowledge = |name: &str, claim: &serde_json::Value, failed: serde_json::Value| {
        let path = format!("/groups/{name}/claims/{}", claim["claim_id"].as_str().expect("an id"));
        let body = json!({"last_processed_position": claim["claimed_to"], "failed": failed});
        app.call("PUT", &path).json(&body).send()
    };
    let all = claim("g").await.expect_status(201).json();
    let failed = json!([{"global_position": 1, "reason": "it failed"}]);
    acknowledge("g", &all, failed).await.expect_status(200);
    // The group is beyond the months, and its parked stream does not hold them back.
    app.get("/groups/g").send().await.expect_status(200);
    history.archive().await;

    let other = history.replica().await;
    let parked = other.get("/groups/g/parked/Order/always").send().await.expect_status(200).json();
    assert_eq!((&parked["event"]["global_position"], &parked["waiting"]), (&json!(1), &json!(53)));
    app.call("POST", "/groups/g/retries").send().await.expect_status(200);
    let retry = claim("g").await.expect_status(201).json();
    let of_stream = app.get("/streams/Order/always?limit=1000").send().await.expect_status(200).json();
    assert_eq!(retry["events"], of_stream["events"]);
    acknowledge("g", &retry, json!([])).await.expect_status(200);
    assert_eq!(app.get("/groups/g").send().await.expect_status(200).json()["parked_streams"], 0);

    group("late", json!({"partitions": 1})).await.expect_status(201);
    assert_eq!(claim("late").await.expect_status(201).json()["events"], all["events"]);
}
