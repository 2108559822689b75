//! No promise: docs/reference/limits.md has the limits that the sources have.

use crate::support::sources::read;

const DOCUMENT: &str = "docs/reference/limits.md";

/// The limits that are numbers in the sources: the file, the text of the definition, the beginning of the row in the
/// document, and the text of the limit in this row.
const LIMITS: &[(&str, &str, &str, &str)] = &[
    ("src/domain/name.rs", "NAME_CHARS_MAX: usize = 255;", "name:", "255 characters"),
    ("src/domain/json.rs", "DEPTH_MAX: usize = 64;", "nesting of a document", "64 levels"),
    ("src/domain/json.rs", "NUMBER_DIGITS_MAX: usize = 40;", "digits of a number", "40 significant digits"),
    ("src/domain/json.rs", "NUMBER_SCALE_MAX: usize = 347;", "digits of a number", "347 digits"),
    ("src/domain/json.rs", "NUMBER_EXPONENT_MAX: i64 = 308;", "size of a number", "from 10^-308 to 10^308"),
    ("src/domain/json.rs", "EXACT_INTEGER_MAX: i64 = (1 << 53) - 1;", "version, position", "below 2^53"),
    (
        "src/http/extract/append_headers.rs",
        "IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;",
        "`Idempotency-Key`",
        "255 characters",
    ),
    ("src/http/request_id.rs", "REQUEST_ID_CHARS_MAX: usize = 128;", "`X-Request-Id`", "128 characters"),
    ("src/config/serve.rs", "\"ANNALS_MAX_BODY_BYTES\", default_value = \"1048576\"", "body", "1 MiB"),
    ("src/domain/append.rs", "BODY_BYTES_MAX: u32 = 16 * 1024 * 1024;", "body", "at most 16 MiB"),
    ("src/http/connection.rs", "URI_BYTES_MAX: usize = 65_534;", "path and query", "65,534 bytes"),
    ("src/http/listener.rs", "BUFFER_BYTES: usize = 72 * 1024;", "headers", "64 KiB, or 8 KiB beside"),
    ("src/http/routes/events/read_request.rs", "VALUES_MAX: usize = 100;", "values of one filter", "100"),
    (
        "src/http/lingering_body.rs",
        "DISCARDED_BYTES_MAX: usize = 32 * 1024 * 1024;",
        "body that is discarded",
        "32 MiB",
    ),
    ("src/domain/append.rs", "REQUEST_EVENTS_MAX: usize = 1_000;", "events in a request", "1,000"),
    ("src/domain/append.rs", "REQUEST_STREAMS_MAX: usize = 100;", "streams in `POST /appends`", "100"),
    ("src/http/routes/streams/append.rs", "MISSED_EVENTS_MAX: usize = 100;", "`missed_events`", "100 events"),
    ("src/http/routes/streams/append.rs", "MISSED_BYTES_MAX: usize = 8 * 1024 * 1024;", "`missed_events`", "8 MiB"),
    (
        "src/store/append/queue.rs",
        "RESULT_TIMEOUT: Duration = Duration::from_secs(15);",
        "time until the response",
        "15 s",
    ),
    ("src/store/connection/connector.rs", "SET lock_timeout = '3s'", "wait for the append lock", "3 s"),
    ("src/store/append/writer.rs", "CALL_TIMEOUT: Duration = Duration::from_secs(8);", "time of a commit", "8 s"),
    (
        "src/store/append/writer.rs",
        "RESUBMIT_FOR: Duration = Duration::from_secs(5);",
        "time of a commit",
        "within 5 s",
    ),
    ("src/store/append/writer.rs", "SUBMISSIONS_MAX: u32 = 5;", "time of a commit", "up to five times"),
    (
        "src/store/append/queue.rs",
        "requests: 4_096, bytes: 64 * 1024 * 1024",
        "requests that wait",
        "4,096 requests, 64 MiB",
    ),
    ("src/store/append/writer.rs", "BATCH_REQUESTS_MAX: usize = 500;", "batch of the writer", "500 requests"),
    ("src/store/append/writer.rs", "BATCH_EVENTS_MAX: usize = 1_000;", "batch of the writer", "1,000 events"),
    ("src/store/append/writer.rs", "BATCH_BYTES_MAX: usize = 512 * 1024;", "batch of the writer", "512 KiB"),
    ("src/store/append/writer.rs", "TimeDelta::days(1)", "clock of PostgreSQL", "one day"),
    ("src/http/representation/format.rs", "LIMIT_MAX: usize = 1_000;", "page of events", "1,000 events"),
    ("src/http/representation/format.rs", "LIMIT_DEFAULT: usize = 100;", "page of events", "default 100"),
    ("src/http/representation/page.rs", "PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;", "page of events", "8 MiB"),
    ("src/store/log/scan.rs", "time: Duration::from_millis(250)", "search of a page", "250 ms"),
    ("src/http/routes/aggregates/load.rs", "EVENTS_MAX: usize = 10_000;", "load of an aggregate", "10,000 events"),
    ("src/reducers/limits.rs", "STATES_MAX: usize = 1_000;", "page of states", "1,000 states"),
    ("src/reducers/limits.rs", "STATES_BYTES_MAX: usize = 8 * 1024 * 1024;", "page of states", "8 MiB"),
    ("src/http/representation/lines.rs", "PIECE_BYTES: usize = 256 * 1024;", "NDJSON", "256 KiB"),
    ("src/subscriptions/feed.rs", "AHEAD_BYTES: usize = 512 * 1024;", "NDJSON", "512 KiB"),
    ("src/subscriptions/feed.rs", "READING_AHEAD_MAX: usize = 64;", "readers of NDJSON and event streams", "64"),
    ("src/store/sql/read_settings.sql", "SET statement_timeout = '30s'", "statement of a read", "30 s"),
    ("src/config/database.rs", "\"DATABASE_CONNECT_TIMEOUT\", default_value = \"5s\"", "wait for a connection", "5 s"),
    (
        "src/store/required_position.rs",
        "WAIT_MAX: Duration = Duration::from_secs(1);",
        "wait for `min_position`",
        "1 s",
    ),
    ("src/store/admin/statistics.rs", "LARGEST_MAX: i64 = 1_000;", "`/stats/largest-aggregates`", "1,000"),
    (
        "src/http/routes/stats/largest_aggregates.rs",
        "LIMIT_DEFAULT: i64 = 10;",
        "`/stats/largest-aggregates`",
        "default 10",
    ),
    ("src/http/routes/stats/rates.rs", "BUCKETS_MAX: usize = 1_000;", "`/stats/rates`", "1,000 buckets"),
    ("src/http/routes/stats/rates.rs", "BUCKETS_DEFAULT: usize = 60;", "`/stats/rates`", "default 60"),
    ("src/store/log/rates.rs", "ARCHIVED_GROUPS_MAX: usize = 100;", "`/stats/rates`", "100 parts"),
    ("src/http/routes/stats/overview.rs", "STALE_PROJECTIONS_MAX: i64 = 100;", "`stale_projections`", "100"),
    ("src/http/representation/page.rs", "LOG_LINK_BYTES_MAX: usize = 2_000;", "link in the header", "2,000 bytes"),
    (
        "src/config/serve.rs",
        "\"ANNALS_MAX_SUBSCRIBERS\", default_value = \"1000\"",
        "event streams, long polls",
        "1,000",
    ),
    ("src/config/serve.rs", "whole_number(1..=100_000_u32)", "event streams, long polls", "at most 100,000"),
    ("src/http/representation/format.rs", "WAIT_SECONDS_MAX: u64 = 60;", "`wait` of a long poll", "60 s"),
    ("src/http/routes/projections.rs", "TIMEOUT_SECONDS_MAX: u64 = 60;", "`timeout` of a wait", "60 s"),
    ("src/http/routes/projections.rs", "TIMEOUT_SECONDS_DEFAULT: u64 = 5;", "`timeout` of a wait", "default 5 s"),
    ("src/subscriptions/feed.rs", "heartbeat: Duration::from_secs(1)", "heartbeat of a filter", "1 s"),
    ("src/subscriptions/feed.rs", "keep_alive: Duration::from_secs(15)", "silence of an event stream", "15 s"),
    ("src/subscriptions/feed.rs", "ring_events: 16_384", "last events of the log", "16,384 events"),
    ("src/subscriptions/feed.rs", "ring_bytes: 16 * 1024 * 1024", "last events of the log", "16 MiB"),
    ("src/store/admin/projections.rs", "PROJECTIONS_MAX: i64 = 10_000;", "projections of a store", "10,000"),
    ("src/store/admin/projections.rs", "PROJECTIONS_OF_KEY_MAX: i64 = 1_000;", "projections that one key", "1,000"),
    ("src/jobs/caches.rs", "PROJECTIONS_MAX: usize = 200;", "projections in the metrics", "200"),
    ("src/jobs/samples.rs", "RECENT_MAX: usize = 360;", "history of a projection", "an hour of samples every 10 s"),
    ("src/jobs/samples.rs", "OLDER_MAX: usize = 1_380;", "history of a projection", "23 hours"),
    ("src/config/serve.rs", "\"SNAPSHOT_EVERY\", default_value = \"100\"", "events between two snapshots", "100"),
    ("src/domain/reducer.rs", "SNAPSHOT_EVERY_MAX: u32 = 10_000;", "events between two snapshots", "at most 10,000"),
    ("src/reducers/limits.rs", "STATE_BYTES_MAX: usize = 1024 * 1024;", "state of a reducer", "1 MiB"),
    (
        "src/reducers/javascript/worker.rs",
        "EVENT_TIME: Duration = Duration::from_millis(100);",
        "processor time for one event",
        "100 ms",
    ),
    (
        "src/reducers/javascript/worker.rs",
        "SEGMENT_TIME: Duration = Duration::from_secs(10);",
        "processor time for the events",
        "10 s",
    ),
    ("src/reducers/javascript/worker.rs", "MEMORY_BYTES: usize = 64 * 1024 * 1024;", "memory of a reducer", "64 MiB"),
    ("src/reducers/javascript/worker.rs", "STACK_BYTES: usize = 256 * 1024;", "memory of a reducer", "256 KiB"),
    (
        "src/reducers/javascript/workers.rs",
        "ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);",
        "wait for a worker",
        "5 s",
    ),
    (
        "src/reducers/javascript/fold.rs",
        "REPLY_TIMEOUT: Duration = Duration::from_secs(30);",
        "wait for its result",
        "30 s",
    ),
    (
        "src/reducers/javascript/workers.rs",
        "PER_PROCESSOR: usize = 2;",
        "workers of a process",
        "two for each processor",
    ),
    ("src/reducers/snapshotter.rs", "QUEUE_LENGTH: usize = 1_024;", "snapshots that wait", "1,024"),
    ("src/app.rs", "requests_in_progress: 10_000", "requests in progress", "10,000"),
    ("src/cli/keys.rs", "Duration::from_secs(100 * 365 * 24 * 3600)", "lifetime of a key", "100 years"),
    ("src/keyring.rs", "MAX_CACHE_AGE: Duration = Duration::from_secs(45);", "cached keys", "45 s"),
    ("src/app.rs", "connections: 10_000", "connections to a process", "10,000"),
    ("src/config/serve.rs", "OTHER_CONNECTIONS: usize = 1_000;", "connections to a process", "+ 1,000"),
    ("src/http/server.rs", "SPARE_CONNECTIONS: usize = 100;", "connections to a process", "up to 100 more"),
    ("src/http/server.rs", "ADMIN_CONNECTIONS: usize = 64;", "connections to the admin address", "64"),
    ("src/app.rs", "head: Duration::from_secs(15)", "time for the head", "15 s"),
    ("src/app.rs", "body: Duration::from_secs(15)", "time for the body", "15 s"),
    ("src/app.rs", "stalled: Duration::from_secs(15)", "time without reading", "15 s"),
    ("src/shutdown.rs", "SOFT_STAGE_MAX: Duration = Duration::from_secs(20);", "orderly shutdown", "20 s"),
    ("src/cli/import/file.rs", "LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;", "line of `annals import`", "64 MiB"),
    (
        "src/cli/import/command.rs",
        "AHEAD_MAX: chrono::Duration = chrono::Duration::days(1);",
        "time of an imported event",
        "one day",
    ),
    ("src/archive/bounds.rs", "GROUP_EVENTS: usize = 16_384;", "row group of an archived file", "16,384 events"),
    ("src/archive/bounds.rs", "GROUP_BYTES: usize = 8 * 1024 * 1024;", "row group of an archived file", "8 MiB"),
    ("src/archive/bounds.rs", "GROUPS_MAX: usize = 65_536;", "row groups of an archived file", "65,536"),
    (
        "src/archive/bounds.rs",
        "MANIFEST_BYTES_MAX: u64 = 32 * 1024 * 1024;",
        "manifest of an archived partition",
        "32 MiB",
    ),
    ("src/cli/tail.rs", "whole_number(0..=100_000_usize)", "events of `annals tail -n`", "100,000"),
    ("src/cli/trace.rs", "EVENTS_MAX: usize = 10_000;", "events of `annals trace`", "10,000"),
];

/// Whether a row has a limit. A part of a longer number does not count.
fn has_limit(row: &str, limit: &str) -> bool {
    let is_digit = |character: char| character.is_ascii_digit();
    row.match_indices(limit).any(|(at, _)| {
        let (before, after) = (&row[..at], &row[at + limit.len()..]);
        !before.ends_with(|character: char| is_digit(character) || character == ',')
            && !after.trim_start_matches(',').starts_with(is_digit)
    })
}

/// Returns what is wrong with a limit: the definition is not in the source, or the document has another limit.
fn fault(source: &str, definition: &str, document: &str, row: &str, limit: &str) -> Option<String> {
    if !source.contains(definition) {
        return Some(format!(
            "{definition:?} is not there: change {DOCUMENT}, row {row:?}, and the table of this test"
        ));
    }
    let mut rows = document.lines().filter(|line| line.strip_prefix("| ").is_some_and(|line| line.starts_with(row)));
    let is_documented = rows.any(|row| has_limit(row, limit));
    (!is_documented).then(|| format!("{DOCUMENT} has no row {row:?} with {limit:?}"))
}

#[test]
fn the_document_of_limits_has_the_limits_of_the_sources() {
    let document = read(DOCUMENT);
    let mut faults = Vec::new();
    for (file, definition, row, limit) in LIMITS {
        let found = fault(&read(file), definition, &document, row, limit);
        faults.extend(found.map(|fault| format!("{file}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_limit_that_has_changed_is_found() {
    let document = "| what | limit |\n| page | 1,000 events (default 100), 8 MiB |\n";
    for (source, row, limit, is_wrong) in [
        ("const A: usize = 1;", "page", "1,000 events", false),
        ("const A: usize = 1;", "page", "default 100", false),
        ("const A: usize = 1;", "page", "1,00", true),
        ("const A: usize = 1;", "page", "000 events", true),
        ("const A: usize = 1;", "load", "1,000 events", true),
        ("const A: usize = 2;", "page", "1,000 events", true),
    ] {
        assert_eq!(fault(source, "A: usize = 1;", document, row, limit).is_some(), is_wrong, "{row}: {limit}");
    }
}
