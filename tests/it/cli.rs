//! Promise P1, P4, P9: the commands as processes. An import stores every event once, with its original time, and
//! refuses times that decrease. Every command refuses invalid input with a message.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{TestApp, TestDatabase, TestOptions, events, id};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/package-events.ndjson");

/// Returns a command that runs the program on a database. It inherits no environment variable of this process.
pub fn annals(database: Option<&TestDatabase>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("ANNALS_LOG", "json").env("ANNALS_LOG_LEVEL", "warn");
    if let Some(database) = database {
        command.env("DATABASE_URL", url(database));
    }
    command
}

fn url(database: &TestDatabase) -> String {
    let socket = database.socket();
    let folder = socket.parent().expect("a folder").display().to_string();
    format!("postgres://annals@localhost/{}?host={folder}", database.name)
}

pub async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the binary runs")).await.expect("the task ends")
}

pub async fn run(database: &TestDatabase, arguments: &[&str]) -> (bool, String, String) {
    let mut command = annals(Some(database));
    command.args(arguments);
    let output = output(command).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn file_with(lines: &[Value]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for line in lines {
        writeln!(file, "{line}").expect("the file is written");
    }
    file
}

fn line(aggregate_id: &str, time: &str) -> Value {
    json!({"aggregate_type": "T", "aggregate_id": aggregate_id, "event_type": "E", "event_data": {"n": 1}, "occurred_at": time})
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("a path")
}

#[tokio::test]
async fn real_events_are_imported_once_and_exported_unchanged() {
    let database = TestDatabase::create_empty().await;
    let (ok, printed, error) = run(&database, &["import", DATA]).await;
    assert!(ok && printed == "5286 new events, 0 known already\n", "{printed}{error}");
    let (ok, printed, _) = run(&database, &["import", DATA]).await;
    assert!(ok && printed == "0 new events, 5286 known already\n", "{printed}");

    let (ok, exported, _) = run(&database, &["export"]).await;
    assert!(ok);
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (end, exported) = exported.split_last().expect("an end line");
    assert_eq!(end, &json!({"end": {"count": 5286, "next_after": 5286}}));
    let input = std::fs::read_to_string(DATA).expect("the data");
    for (line, event) in input.lines().zip(exported) {
        let sent: Value = serde_json::from_str(line).expect("JSON");
        for member in ["aggregate_type", "aggregate_id", "event_type", "event_data", "metadata"] {
            assert_eq!(event[member], sent[member]);
        }
        let time = sent["occurred_at"].as_str().expect("a time").replace('Z', ".000000Z");
        assert_eq!(event["occurred_at"], time);
    }
    let mut session = database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM streams").await, 657);
    let heads =
        "SELECT count(*) FROM streams s JOIN (SELECT aggregate_type, aggregate_id, max(version) AS version, count(*)
                   FROM events GROUP BY 1, 2) e USING (aggregate_type, aggregate_id)
                  WHERE e.version <> e.count OR s.version > e.version";
    assert_eq!(session.number(heads).await, 0);
    // Each month with events has a partition, and all of them are sealed except the last one.
    let months = "SELECT count(DISTINCT date_trunc('month', occurred_at AT TIME ZONE 'UTC')) FROM events";
    let sealed = "SELECT count(*) FROM partitions WHERE sealed_at IS NOT NULL AND events > 0";
    assert_eq!(session.number(sealed).await, session.number(months).await - 1);

    // A service reads the imported events and appends after them.
    let app = TestApp::start_on(database.clone(), Default::default()).await;
    let versions = app.get("/streams/Package/libc-bin:amd64?limit=1000").send().await.versions();
    assert_eq!(versions, (1..=70).collect::<Vec<_>>());
    app.post("/streams/Package/libc-bin:amd64", &events(&["X"]))
        .if_match(69)
        .send()
        .await
        .expect_problem(412, "version_conflict");
    app.post("/streams/Package/libc-bin:amd64", &events(&["X"])).if_match(70).send().await.expect_status(201);
}

#[tokio::test]
async fn an_export_can_be_imported_into_another_database() {
    let (first, second) = (TestDatabase::create_empty().await, TestDatabase::create_empty().await);
    let sent = file_with(&[
        line("a", "2026-01-01T00:00:00.000001Z"),
        line("b", "2026-01-01T02:00:00+01:00"),
        line("a", "2026-03-01T00:00:00Z"),
    ]);
    assert!(run(&first, &["import", path(&sent)]).await.0);
    let exports = |database: TestDatabase| async move {
        let mut all = Vec::new();
        for arguments in [&["export"][..], &["export", "--type", "T"], &["export", "--type", "T", "--id", "a"]] {
            let (ok, text, error) = run(&database, arguments).await;
            assert!(ok, "{error}");
            all.push(text);
        }
        all
    };
    let exported = exports(first.clone()).await;
    assert_eq!(exported.iter().map(|text| text.lines().count()).collect::<Vec<_>>(), [4, 4, 3]);
    assert!(exported[2].ends_with("{\"end\":{\"count\":2,\"version\":2}}\n"));

    let mut import = annals(Some(&second));
    import.args(["import", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let text = exported[0].clone();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = import.spawn().expect("the binary runs");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the command reads its input");
        child.wait_with_output().expect("the command ends")
    });
    let output = output.await.expect("the task ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(exports(second).await, exported);
    assert!(!run(&first, &["export", "--type", "T", "--id", "none"]).await.0);
}

/// JSONB prints numbers without an exponent, so they come back with more digits than they were sent with.
#[tokio::test]
async fn numbers_can_be_sent_and_imported_again_as_they_are_returned() {
    let app = TestApp::start().await;
    let numbers =
        "[1e40, -1.5e308, 1e-308, 1.50e-300, 0e-308, 123456789012345678901234567890.5000, 1e2, 9007199254740993]";
    let body = format!("{{\"events\": [{{\"event_type\": \"E\", \"event_data\": {numbers}}}]}}");
    let post = |path: &'static str, body: String| {
        app.call("POST", path).header("content-type", "application/json").body(body).send()
    };
    post("/streams/Order/1", body).await.expect_status(201);
    let event_data = async |path: &str| {
        let text = app.get(path).send().await.expect_status(200).text();
        let data = text.split_once("\"event_data\":").expect("event_data").1;
        data.split_once(",\"metadata\"").expect("metadata").0.to_owned()
    };
    let returned = event_data("/streams/Order/1/1").await;
    post("/streams/Order/2", format!("{{\"events\": [{{\"event_type\": \"E\", \"event_data\": {returned}}}]}}"))
        .await
        .expect_status(201);
    assert_eq!(event_data("/streams/Order/2/1").await, returned);

    let (ok, exported, error) = run(&app.database, &["export"]).await;
    assert!(ok, "{error}");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(exported.as_bytes()).expect("the file is written");
    let other = TestDatabase::create_empty().await;
    let (ok, _, error) = run(&other, &["import", path(&file)]).await;
    assert!(ok, "{error}");
    assert_eq!(run(&other, &["export"]).await.1, exported);
}

/// In other stores times run against positions. The raised times depend on the file alone, so an import of a longer file
/// continues after the first one.
#[tokio::test]
async fn times_that_go_back_are_raised_and_kept_in_the_metadata() {
    let database = TestDatabase::create_empty().await;
    let mut noted = line("b", "2026-01-01T23:00:00Z");
    noted["metadata"] = json!({"by": "x"});
    let mut lines = vec![
        line("a", "2026-01-02T00:00:00Z"),
        noted,
        line("a", "2026-01-02T00:00:00Z"),
        line("b", "2026-01-03T00:00:00Z"),
    ];
    let (ok, printed, error) = run(&database, &["import", "--time=raise", path(&file_with(&lines))]).await;
    assert!(ok && printed == "4 new events, 0 known already, 1 time raised\n", "{printed}{error}");
    lines.push(line("a", "2025-12-31T00:00:00Z"));
    let (ok, printed, error) = run(&database, &["import", "--time", "raise", path(&file_with(&lines))]).await;
    assert!(ok && printed == "1 new event, 4 known already, 2 times raised\n", "{printed}{error}");

    let (_, exported, _) = run(&database, &["export"]).await;
    let exported: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let stored: Vec<_> = exported[..5].iter().map(|event| json!([event["occurred_at"], event["metadata"]])).collect();
    assert_eq!(
        stored,
        [
            json!(["2026-01-02T00:00:00.000000Z", null]),
            json!(["2026-01-02T00:00:00.000000Z", {"by": "x", "occurred_at": "2026-01-01T23:00:00.000000Z"}]),
            json!(["2026-01-02T00:00:00.000000Z", null]),
            json!(["2026-01-03T00:00:00.000000Z", null]),
            json!(["2026-01-03T00:00:00.000000Z", {"occurred_at": "2025-12-31T00:00:00.000000Z"}]),
        ]
    );

    // Only times within the file are raised: an unknown event before the end of the log is refused.
    let other = file_with(&[line("c", "2026-01-01T00:00:00Z")]);
    let (ok, _, error) = run(&database, &["import", "--time=raise", path(&other)]).await;
    assert!(!ok && error.contains("line 1 occurred at") && error.contains("an empty store"), "{error}");
    let future = file_with(&[line("c", "2999-01-01T00:00:00Z"), line("c", "2026-01-01T00:00:00Z")]);
    let (ok, _, error) = run(&database, &["import", "--time=raise", path(&future)]).await;
    assert!(!ok && error.contains("in the future"), "{error}");
}

/// A single event may exceed the limit of bytes for a batch of several events.
#[tokio::test]
async fn large_events_are_imported_at_any_line() {
    let large = |time: &str| {
        let mut line = line("large", time);
        line["event_data"] = json!({"text": "x".repeat(5_000_000)});
        line
    };
    let file = file_with(&[
        large("2026-01-01T00:00:00Z"),
        line("a", "2026-01-02T00:00:00Z"),
        large("2026-01-03T00:00:00Z"),
        large("2026-01-04T00:00:00Z"),
    ]);
    let database = TestDatabase::create_empty().await;
    let (ok, printed, error) = run(&database, &["import", path(&file)]).await;
    assert!(ok && printed == "4 new events, 0 known already\n", "{printed}{error}");
}

#[tokio::test]
async fn an_import_reads_gzip_and_pipes_and_says_what_another_file_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let lines = [line("a", "2026-01-01T00:00:00Z"), line("a", "2026-01-02T00:00:00Z")];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).expect("it is compressed");
    std::fs::write(at("events.gz"), packed.finish().expect("it is compressed")).expect("the file is written");
    let database = TestDatabase::create_empty().await;
    let (ok, printed, error) = run(&database, &["import", &at("events.gz")]).await;
    assert!(ok && printed.starts_with("2 new events"), "{printed}{error}");

    let status = Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo runs");
    assert!(status.success());
    let (pipe, content) = (at("pipe"), text.clone());
    let writing = tokio::task::spawn_blocking(move || std::fs::write(pipe, content));
    let (ok, printed, error) = run(&database, &["import", &at("pipe")]).await;
    writing.await.expect("the task ends").expect("the pipe is written");
    assert!(ok && printed.starts_with("0 new events, 2 known already"), "{printed}{error}");

    let array = serde_json::to_string(&lines).expect("JSON");
    let pretty = serde_json::to_string_pretty(&lines[0]).expect("JSON");
    let utf_16: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    for (name, content, hint) in [
        ("array", array.into_bytes(), "is a JSON array: write one event a line"),
        ("pretty", pretty.into_bytes(), "is pretty-printed JSON"),
        ("utf-16", utf_16, "is encoded in UTF-16"),
        ("cut.gz", vec![0x1f, 0x8b, 8, 0], "cannot be decompressed"),
    ] {
        std::fs::write(at(name), content).expect("the file is written");
        let (ok, _, error) = run(&database, &["import", &at(name)]).await;
        assert!(!ok && error.contains(hint), "{name}: {error}");
    }
}

#[tokio::test]
async fn an_export_ends_quietly_when_its_reader_does() {
    let database = TestDatabase::create_empty().await;
    assert!(run(&database, &["import", DATA]).await.0);
    let mut command = Command::new("sh");
    command.args(["-c", "\"$ANNALS\" export | head -n 1"]);
    command.env("ANNALS", env!("CARGO_BIN_EXE_annals")).env("DATABASE_URL", url(&database)).env("ANNALS_LOG", "json");
    let output = output(command).await;
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
}

#[tokio::test]
async fn importing_an_empty_file_writes_nothing() {
    let database = TestDatabase::create_empty().await;
    let (ok, printed, error) = run(&database, &["import", path(&file_with(&[]))]).await;
    assert!(ok && printed == "0 new events, 0 known already\n", "{printed}{error}");
}

#[tokio::test]
async fn an_import_with_decreasing_times_is_refused_before_it_writes() {
    let database = TestDatabase::create_empty().await;
    let back = file_with(&[line("a", "2026-01-02T00:00:00Z"), line("b", "2026-01-01T00:00:00Z")]);
    let (ok, _, error) = run(&database, &["import", path(&back)]).await;
    assert!(!ok && error.contains("line 2 goes backwards in time") && error.contains("--time=raise"), "{error}");
    let mut session = database.session().await;
    assert_eq!(session.number("SELECT count(*) FROM events").await, 0);

    let fine = file_with(&[line("a", "2026-01-02T00:00:00Z")]);
    assert!(run(&database, &["import", path(&fine)]).await.0);
    let before = file_with(&[line("b", "2026-01-01T00:00:00Z"), line("b", "2026-01-03T00:00:00Z")]);
    let (ok, _, error) = run(&database, &["import", path(&before)]).await;
    assert!(
        !ok && error.contains("line 1") && error.contains("an empty store") && error.contains("--time=now"),
        "{error}"
    );
    assert_eq!(session.number("SELECT count(*) FROM events").await, 1);

    for round in ["2 new events, 0 known already\n", "0 new events, 2 known already\n"] {
        let (ok, printed, error) = run(&database, &["import", "--time=now", path(&before)]).await;
        assert!(ok && printed == round, "{printed}{error}");
    }
    let original =
        session.texts("SELECT metadata->>'occurred_at' FROM events WHERE aggregate_id = 'b' ORDER BY version").await;
    assert_eq!(original, ["2026-01-01T00:00:00.000000Z", "2026-01-03T00:00:00.000000Z"]);
}

#[tokio::test]
async fn a_running_service_reads_events_that_are_imported_meanwhile() {
    let database = TestDatabase::create_empty().await;
    crate::support::migrate_schema(&database.config()).await;
    let app = TestApp::start_on(database.clone(), Default::default()).await;
    let history = file_with(&[
        line("a", "2026-07-01T00:00:00Z"),
        line("b", "2026-08-01T00:00:00Z"),
        line("a", "2026-09-01T00:00:00Z"),
    ]);
    assert!(run(&database, &["import", path(&history)]).await.0);
    assert_eq!(app.get("/streams/T/a").send().await.versions(), [1, 2]);
    assert_eq!(app.get("/streams/T/b").send().await.versions(), [1]);
    let list = app.get("/streams/T").send().await.expect_status(200).json();
    assert_eq!(list["streams"].as_array().map(Vec::len), Some(2));
    app.post("/streams/T/a", &events(&["X"])).if_match(2).send().await.expect_status(201);
    app.app.primary.maintain_partitions().await.expect("maintenance runs");
    assert_eq!(app.get("/streams/T/a").send().await.versions(), [1, 2, 3]);
}

#[tokio::test]
async fn a_different_file_of_the_same_streams_is_not_treated_as_a_retry() {
    let database = TestDatabase::create_empty().await;
    let first = file_with(&[line("a", "2026-07-01T00:00:00Z"), line("a", "2026-07-02T00:00:00Z")]);
    assert!(run(&database, &["import", path(&first)]).await.0);
    // The event has the same ordinal and equal content, but another time, before or after the end of the log.
    for time in ["2026-07-01T12:00:00Z", "2026-08-01T00:00:00Z"] {
        let second = file_with(&[line("a", time)]);
        let (ok, printed, error) = run(&database, &["import", path(&second)]).await;
        assert!(!ok && error.contains("another event with this id") && error.contains("event ids"), "{printed}{error}");
    }
    let mut named = line("a", "2026-08-01T00:00:00Z");
    named["event_id"] = json!(id(3));
    let (ok, printed, error) = run(&database, &["import", path(&file_with(&[named]))]).await;
    assert!(ok && printed == "1 new event, 0 known already\n", "{printed}{error}");
}

#[tokio::test]
async fn a_file_may_have_a_byte_order_mark_and_several_exports() {
    let database = TestDatabase::create_empty().await;
    let end = |count: u64| json!({"end": {"count": count, "next_after": count}});
    let both = [line("a", "2026-07-01T00:00:00Z"), end(1), line("b", "2026-07-02T00:00:00Z"), end(1)];
    let text: String = both.iter().map(|line| format!("{line}\n")).collect();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(format!("\u{feff}{text}").as_bytes()).expect("the file is written");
    let (ok, printed, error) = run(&database, &["import", path(&file)]).await;
    assert!(ok && printed == "2 new events, 0 known already\n", "{printed}{error}");
}

#[tokio::test]
async fn a_fault_in_a_file_is_reported_with_its_line_and_nothing_is_written() {
    let database = TestDatabase::create_empty().await;
    let fine = line("a", "2026-01-01T00:00:00Z");
    let mut unknown = fine.clone();
    unknown["nonsense"] = json!(1);
    let mut timeless = fine.clone();
    timeless.as_object_mut().expect("an object").remove("occurred_at");
    let mut future = fine.clone();
    future["occurred_at"] = json!("2999-01-01T00:00:00Z");
    for (bad, fault) in [
        (future, "in the future"),
        (json!("text"), "line 2"),
        (unknown, "nonsense"),
        (timeless, "no occurred_at"),
        (json!({"end": {"count": 7, "next_after": 7}}), "says that the number of events before it is 7, and it is 1"),
        (json!({"error": {"code": "internal"}}), "the export failed here"),
    ] {
        let file = file_with(&[fine.clone(), bad]);
        let (ok, _, error) = run(&database, &["import", path(&file)]).await;
        assert!(
            !ok && error.contains(fault) && error.contains("line 2") && error.contains("nothing was written"),
            "{error}"
        );
    }
    assert_eq!(database.session().await.number("SELECT count(*) FROM events").await, 0);
    let (ok, _, error) = run(&database, &["import", "/no/such/file"]).await;
    assert!(!ok && error.contains("/no/such/file"), "{error}");

    let mut numbered = fine.clone();
    numbered["version"] = json!(5);
    let (ok, _, error) = run(&database, &["import", path(&file_with(&[numbered]))]).await;
    assert!(!ok && error.contains("is at version 0, so the event cannot get version 5"), "{error}");
    let mut other = fine.clone();
    (other["event_id"], other["event_data"]) = (json!(id(1)), json!(1));
    assert!(run(&database, &["import", path(&file_with(&[other.clone()]))]).await.0);
    other["event_data"] = json!(2);
    let (ok, _, error) = run(&database, &["import", path(&file_with(&[other]))]).await;
    assert!(!ok && error.contains("with other content"), "{error}");
}

#[tokio::test]
async fn an_invalid_setting_stops_the_start_with_the_name_of_the_variable() {
    for (variable, value) in [
        ("ANNALS_LISTEN", "8080"),
        ("ANNALS_LISTEN", "0.0.0.0:0"),
        ("ANNALS_ALLOW_ANONYMOUS", "perhaps"),
        ("ANNALS_ADMIN_LISTEN", "8081"),
        ("ANNALS_HOSTS", "*"),
        ("ANNALS_MIGRATE", "1.5"),
        ("ANNALS_MAX_BODY_BYTES", "10"),
        ("ANNALS_MAX_BODY_BYTES", "lots"),
        ("SNAPSHOT_EVERY", "0"),
        ("SNAPSHOT_EVERY", "10001"),
        ("DATABASE_URL", "mysql://x"),
        ("DATABASE_URL", "postgres://user:secret@host:port/x"),
        ("DATABASE_HOST", "localhost"),
        ("DATABASE_PORT", "5432"),
        ("DATABASE_MAX_CONNECTIONS", "2"),
        ("DATABASE_IDLE_TIMEOUT", "30"),
        ("DATABASE_CONNECT_TIMEOUT", "0s"),
        ("ANNALS_LOG", "xml"),
        ("ANNALS_LOG_LEVEL", "loud"),
        ("ANNALS_AUTH", "perhaps"),
        ("DATABASE_READ_URL", "mysql://replica:secret@x/x"),
        ("ARCHIVE_AFTER", "365d"),
        ("ARCHIVE_AFTER", "soon"),
        ("ARCHIVE_URL", "/no/such/folder"),
        ("ARCHIVE_URL", "ftp://host/folder"),
        ("ARCHIVE_URL", "s3://key:secret@bucket/prefix"),
        ("ARCHIVE_URL", "ftp://key:secret@host/folder"),
        ("ANNALS_DATA_DIR", "/dev/null"),
        ("ANNALS_PG_BIN", "/no/such/folder"),
    ] {
        let mut command = annals(None);
        let folder = tempfile::tempdir().expect("a folder");
        command
            .env("ANNALS_DATA_DIR", folder.path())
            .env("ANNALS_LISTEN", "127.0.0.1:0")
            .env(variable, value)
            .arg("serve");
        let output = output(command).await;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && printed.contains(variable), "{variable}={value}: {printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }
    let mut both = annals(None);
    both.env("DATABASE_URL", "postgres://x@localhost/x").env("DATABASE_HOST", "localhost").arg("migrate");
    let printed = String::from_utf8_lossy(&output(both).await.stderr).into_owned();
    assert!(printed.contains("DATABASE_URL and DATABASE_HOST are both set"), "{printed}");
    let mut port = annals(None);
    for (variable, value) in [("HOST", "localhost"), ("NAME", "x"), ("USER", "x"), ("PORT", "0")] {
        port.env(format!("DATABASE_{variable}"), value);
    }
    port.arg("migrate");
    let printed = String::from_utf8_lossy(&output(port).await.stderr).into_owned();
    assert!(printed.contains("DATABASE_PORT=0"), "{printed}");
}

#[tokio::test]
async fn migrate_prints_what_it_applied() {
    let database = TestDatabase::create_empty().await;
    let (ok, printed, _) = run(&database, &["migrate"]).await;
    assert!(ok && printed.starts_with("applied 0001 schema\n"), "{printed}");
    assert!(printed.contains("applied function append_events\n"), "{printed}");
    let (ok, printed, _) = run(&database, &["migrate"]).await;
    assert!(ok && printed.starts_with("the schema is up to date"), "{printed}");
    let foreign = TestDatabase::create_empty().await;
    foreign.session().await.run("CREATE TABLE events (id int)").await;
    let (ok, _, error) = run(&foreign, &["serve"]).await;
    assert!(!ok && error.contains("tables that Annals did not create: events"), "{error}");
}

#[tokio::test]
async fn serving_without_migrating_requires_the_schema() {
    let database = TestDatabase::create_empty().await;
    let mut command = annals(Some(&database));
    command.env("ANNALS_MIGRATE", "false");
    let printed = String::from_utf8_lossy(&output(command).await.stderr).into_owned();
    assert!(printed.contains("run `annals migrate`"), "{printed}");
}

#[tokio::test]
async fn healthcheck_requests_the_readiness_of_a_running_service() {
    let app = TestApp::start().await;
    let check = |address: String| {
        let mut command = annals(None);
        command.env("ANNALS_LISTEN", address).arg("healthcheck");
        output(command)
    };
    let address = app.base.strip_prefix("http://").expect("a URL").to_owned();
    let healthy = check(address.clone()).await;
    assert!(healthy.status.success() && String::from_utf8_lossy(&healthy.stdout).contains("\"status\":\"ok\""));
    let port = address.rsplit(':').next().expect("a port");
    assert!(check(format!("0.0.0.0:{port}")).await.status.success());
    app.database.session().await.run("DELETE FROM annals_migrations").await;
    assert!(!check(address.clone()).await.status.success());
    assert!(app.stop().await);
    assert!(!check(address).await.status.success());
}

#[tokio::test]
async fn the_openapi_command_prints_the_document() {
    let mut command = annals(None);
    command.arg("openapi");
    let printed: Value = serde_json::from_slice(&output(command).await.stdout).expect("JSON");
    assert_eq!(printed["info"]["title"], "Annals");
}

#[tokio::test]
async fn the_epoch_command_lists_the_epochs_and_begins_one() {
    let database = TestDatabase::create().await;
    let app = TestApp::start_on(database.clone(), TestOptions::default()).await;
    app.append("/streams/Order/1", &["A", "B"]).await;
    let (ok, shown, error) = run(&database, &["epoch"]).await;
    assert!(ok && shown.lines().count() == 2 && shown.contains("a new log"), "{shown}{error}");
    let (ok, begun, error) = run(&database, &["epoch", "--begin", "the volume was put back"]).await;
    assert!(ok && begun.starts_with("epoch ") && begun.contains("the volume was put back"), "{begun}{error}");
    let page = app.get("/events?after=1:2").send().await.expect_status(200).json();
    assert!(begun.starts_with(&format!("epoch {} has begun", page["epoch"])), "{begun}");
    app.get("/events?after=1:3").send().await.expect_problem(409, "epoch_changed");
    let (ok, _, error) = run(&database, &["epoch", "--begin", ""]).await;
    assert!(!ok && error.contains("--begin"), "{error}");
}
