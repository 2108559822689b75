//! Promise P8: files of the archive that were changed, replaced, truncated or lost are never served. Reads refuse them,
//! `annals verify` reports them, and reads work again as soon as the files are restored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals::archive::digest::EventDigest;
use annals::archive::manifest::Order;
use annals::archive::partition::ArchivedPartition;
use annals::archive::place::Archive;
use annals::domain::event::StoredEvent;
use annals::store::connection::config::DatabaseConfig;
use annals::store::partitions::archiver::{ArchivingError, Include};
use serde_json::Value;
use tempfile::TempDir;

use crate::archive::archived;
use crate::support::{TestApp, TestDatabase, TestOptions, at};
use crate::verify::{config, findings, history, verify};

const FILES: [&str; 2] = ["by_position.parquet", "by_aggregate.parquet"];
const MANIFEST: &str = "manifest.json";
/// Requests for events of November. Two of them are answered from each file.
const READS: [&str; 4] = [
    "/events?limit=5",
    "/events/00000000-0000-4000-8000-000000000001",
    "/streams/Order/1",
    "/aggregates/Order/1?snapshot=ignore",
];
const DAMAGE: &str = "annals_archive_damage_total";

/// A service on a log of three months with 37 events each, of which November and December 2025 are archived.
struct ArchivedLog {
    folder: TempDir,
    database: TestDatabase,
    archive: Arc<Archive>,
    app: TestApp,
    november: ArchivedPartition,
    december: ArchivedPartition,
}

/// The three files of a partition.
struct Files(Vec<(PathBuf, Vec<u8>)>);

impl ArchivedLog {
    async fn create() -> Self {
        let folder = TempDir::new().expect("a folder");
        let database = history(folder.path().to_str().expect("a path")).await;
        let archive = Archive::open(folder.path().to_str().expect("a path")).expect("the folder exists");
        let config = DatabaseConfig { archive: Some(archive.clone()), ..database.config() };
        let app = TestApp::start_with_config(config, database.clone(), TestOptions::default()).await;
        let mut archiver = app.archiver().await;
        let plan = archiver.plan(at("2026-01-02T00:00:00Z"), Include::All).await.expect("a plan");
        assert_eq!(plan.partitions.len(), 1, "November is archived already");
        archiver.archive(&plan.partitions[0], &|_| {}).await.expect("December is archived");
        archiver.close().await.expect("the archiver ends");
        let mut session = database.session().await;
        let november = archived(&mut session, "events_2025_11").await;
        let december = archived(&mut session, "events_2025_12").await;
        Self { folder, database, archive, app, november, december }
    }

    fn path(&self, partition: &ArchivedPartition, name: &str) -> PathBuf {
        self.folder.path().join(&partition.folder).join(name)
    }

    fn files(&self, partition: &ArchivedPartition) -> Files {
        let path = |name: &str| self.path(partition, name);
        let files = [path(FILES[0]), path(FILES[1]), path(MANIFEST)].map(|path| {
            let bytes = read(&path);
            (path, bytes)
        });
        Files(files.into())
    }

    /// Sends the requests for events of November, which must succeed. Returns the responses.
    async fn read_november(&self) -> Vec<String> {
        let mut responses = Vec::new();
        for path in READS {
            responses.push(self.app.get(path).send().await.expect_status(200).text());
        }
        responses
    }

    /// Sends the requests for events of November, which must fail. Nothing is cached before.
    async fn expect_refused(&self, status: u16, code: &str) {
        self.archive.clear_cache();
        for path in READS {
            self.app.get(path).send().await.expect_problem(status, code);
        }
    }

    /// Runs `annals verify`. Returns its exit status, and the findings of the check of the archive.
    async fn verify(&self) -> (i32, String) {
        let (status, report) = verify(&self.database, self.folder.path().to_str().expect("a path"), &[]).await;
        (status, findings(&report, "archive"))
    }
}

impl Files {
    /// Writes the files as they were.
    fn restore(&self) {
        self.0.iter().for_each(|(path, bytes)| write(path, bytes));
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Changes both files of November.
fn change_files(log: &ArchivedLog, change: impl Fn(&str, Vec<u8>) -> Vec<u8>) {
    for name in FILES {
        let path = log.path(&log.november, name);
        write(&path, &change(name, read(&path)));
    }
}

fn change_one_byte(log: &ArchivedLog) {
    change_files(log, |_, mut bytes| {
        let at = bytes.len() / 3;
        bytes[at] ^= 1;
        bytes
    });
}

fn overwrite_a_row_group(log: &ArchivedLog) {
    let manifest: Value = serde_json::from_slice(&read(&log.path(&log.november, MANIFEST))).expect("JSON");
    change_files(log, |name, mut bytes| {
        let files = manifest["files"].as_array().expect("files");
        let file = files.iter().find(|file| file["name"] == name).expect("the file");
        let row_group = file["row_groups"][0]["bytes"].as_u64().expect("a size");
        bytes[4..usize::try_from(row_group).expect("a size")].fill(0);
        bytes
    });
}

fn change_the_manifest(log: &ArchivedLog) {
    let path = log.path(&log.november, MANIFEST);
    let text = String::from_utf8(read(&path)).expect("UTF-8");
    let changed = text.replace("\"events\": 37", "\"events\": 36");
    assert_ne!(changed, text);
    write(&path, changed.as_bytes());
}

fn swap_the_files(log: &ArchivedLog) {
    change_files(log, |name, _| read(&log.path(&log.december, name)));
}

fn swap_the_folder(log: &ArchivedLog) {
    swap_the_files(log);
    write(&log.path(&log.november, MANIFEST), &read(&log.path(&log.december, MANIFEST)));
}

fn truncate_the_files(log: &ArchivedLog) {
    change_files(log, |_, bytes| bytes[..bytes.len() / 2].to_vec());
}

fn cut_off_one_byte(log: &ArchivedLog) {
    change_files(log, |_, bytes| bytes[..bytes.len() - 1].to_vec());
}

fn delete_the_files(log: &ArchivedLog) {
    for name in FILES {
        std::fs::remove_file(log.path(&log.november, name)).expect("the file is deleted");
    }
}

fn delete_the_manifest(log: &ArchivedLog) {
    std::fs::remove_file(log.path(&log.november, MANIFEST)).expect("the manifest is deleted");
}

/// Writes other events into the folder of a partition, with files and a manifest that fit together. Returns the SHA-256
/// of the manifest.
async fn forge(archive: &Archive, partition: &ArchivedPartition) -> String {
    let mut manifest = archive.manifest(partition).await.expect("a manifest");
    let (mut files, mut digest) = (Vec::new(), EventDigest::default());
    for order in Order::ALL {
        let mut file = archive.create(&partition.folder, order);
        for n in archive.groups(partition, order).await.expect("an open file") {
            let group = archive.group(partition, order, n).await.expect("a row group");
            for at in 0..group.len() {
                let event = StoredEvent { event_data: "{\"n\": 666}", ..group.event(at).expect("an event") };
                file.push(&event);
                if order == Order::Position {
                    digest.add(&event);
                }
            }
        }
        files.push(file.finish().await.expect("a file"));
    }
    manifest.files = files;
    manifest.events_sha256 = digest.finish();
    archive.put_manifest(&partition.folder, &manifest).await.expect("a manifest")
}

/// What is changed, the change, the status of reads, and a part of the finding of `annals verify`.
type Change = (&'static str, fn(&ArchivedLog), u16, &'static str);

#[tokio::test]
async fn damaged_files_are_refused_and_reported_until_they_are_restored() {
    let log = ArchivedLog::create().await;
    let (original, before) = (log.files(&log.november), log.read_november().await);
    assert_eq!(log.verify().await, (0, "[]".to_owned()));
    let changes: [Change; 9] = [
        ("one byte of a file", change_one_byte, 500, "is not the file that was written"),
        ("a row group", overwrite_a_row_group, 500, "is not the file that was written"),
        ("the manifest", change_the_manifest, 500, "and the database has"),
        ("the files of another month", swap_the_files, 500, "is not the file that was written"),
        ("the folder of another month", swap_the_folder, 500, "and the database has"),
        ("half of a file", truncate_the_files, 500, "is not the file that was written"),
        ("a file without its last byte", cut_off_one_byte, 500, "is not the file that was written"),
        ("deleted files", delete_the_files, 503, "not found"),
        ("a deleted manifest", delete_the_manifest, 503, "not found"),
    ];
    for (what, change, status, finding) in changes {
        let counted = log.app.metric(DAMAGE).await;
        change(&log);
        let code = if status == 500 { "internal" } else { "database_unavailable" };
        log.expect_refused(status, code).await;
        // A file that is missing is no damage: the archive may not be mounted.
        let damaged = if status == 500 { READS.len() as f64 } else { 0.0 };
        assert_eq!(log.app.metric(DAMAGE).await - counted, damaged, "{what}");
        let (exit, found) = log.verify().await;
        assert!(exit == 1 && found.contains("events_2025_11") && found.contains(finding), "{what}: {exit} {found}");
        // The other months are read as before.
        for path in ["/events?after=37&limit=3", "/events?after=74&limit=3"] {
            log.app.get(path).send().await.expect_status(200);
        }
        original.restore();
        // Without a restart, and without anything that clears the cache.
        assert_eq!(log.read_november().await, before, "{what}");
    }
    assert_eq!(log.verify().await, (0, "[]".to_owned()));
}

#[tokio::test]
async fn a_month_whose_files_and_manifest_were_forged_together_is_refused() {
    let log = ArchivedLog::create().await;
    let (original, before) = (log.files(&log.november), log.read_november().await);
    let forged_sha256 = forge(&log.archive, &log.november).await;

    log.expect_refused(500, "internal").await;
    assert_eq!(log.app.metric(DAMAGE).await, READS.len() as f64);
    let lines = log.app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    assert_eq!((lines.len(), &lines[0]["error"]["code"]), (1, &Value::from("internal")), "{lines:?}");
    let mut stream = log.app.subscribe("/events?after=0").await;
    while let Some(frame) = stream.frame().await {
        assert_eq!(frame.data, "", "an event stream ends without an event");
    }
    let (exit, found) = log.verify().await;
    assert!(exit == 1 && found.contains("and the database has"), "{exit} {found}");

    // The forgery is consistent: with its digest in the database, it is served. Then `annals verify` still finds that the
    // events are not those of the table `event_ids`.
    let mut session = log.database.session().await;
    let digest =
        |sha256: &str| format!("UPDATE partitions SET archive_sha256 = '{sha256}' WHERE name = 'events_2025_11'");
    session.run(&digest(&forged_sha256)).await;
    let path = log.folder.path().to_str().expect("a path");
    let deceived =
        TestApp::start_with_config(config(&log.database, path), log.database.clone(), TestOptions::default()).await;
    let event = deceived.get(READS[1]).send().await.expect_status(200).json();
    assert_eq!(event["event_data"]["n"], 666);
    deceived.stop().await;
    let (exit, report) = verify(&log.database, path, &[]).await;
    assert_eq!((exit, findings(&report, "archive")), (1, "[]".to_owned()), "{report:#}");
    assert!(findings(&report, "ids").contains("with this place and content"), "{report:#}");
    session.run(&digest(&log.november.manifest_sha256)).await;

    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'events\\_2025\\_11%'";
    let mut archiver = log.app.archiver().await;
    let restored = archiver.restore("events_2025_11", &|_| {}).await;
    assert!(matches!(&restored, Err(ArchivingError::Archive(error)) if error.is_damage()), "{restored:?}");
    assert_eq!(session.number(tables).await, 0, "no table has forged events");

    original.restore();
    assert_eq!(log.read_november().await, before);
    assert_eq!(archiver.restore("events_2025_11", &|_| {}).await.expect("the partition is restored"), 37);
    archiver.close().await.expect("the archiver ends");
    assert_eq!(log.read_november().await, before);
}

/// The newest archived partition is compared at the start.
#[tokio::test]
async fn a_service_starts_with_a_damaged_month_and_serves_the_others() {
    let log = ArchivedLog::create().await;
    let manifest = log.path(&log.december, MANIFEST);
    write(&manifest, &[read(&manifest), b"\n".to_vec()].concat());
    let path = log.folder.path().to_str().expect("a path");
    let other =
        TestApp::start_with_config(config(&log.database, path), log.database.clone(), TestOptions::default()).await;
    assert_eq!(other.metric(DAMAGE).await, 1.0, "an operator learns of it before a client does");
    other.get("/events?limit=3").send().await.expect_status(200);
    other.get("/events?after=37&limit=3").send().await.expect_problem(500, "internal");
    other.get("/events?after=74&limit=3").send().await.expect_status(200);
    other.append("/streams/Order/1", &["C"]).await;
}
