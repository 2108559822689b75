//! No promise: the plans of the statements that requests run, on 36 partitions. The plans use only indexes, and read no
//! partition that the bounds exclude.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row};

use crate::support::{AppendCall, Procedure, Session, TestDatabase, migrate_schema};

/// The settings of the connections that read.
const READ_SETTINGS: &str = include_str!("../../src/store/sql/read_settings.sql");

const SQL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/sql");

/// Fills 36 partitions with 500 events each, in 60 streams. All but the last two are sealed.
async fn seeded() -> Session {
    let database = TestDatabase::create_empty().await;
    migrate_schema(&database.config()).await;
    let mut session = database.session().await;
    session.run("SELECT create_partition(make_timestamptz(2024, 1, 1, 0, 0, 0, 'UTC') + n * interval '1 month') FROM generate_series(0, 38) n").await;
    session
        .run(
            "INSERT INTO events (event_id, aggregate_type, aggregate_id, version, event_type, event_data, occurred_at, global_position)
             SELECT gen_random_uuid(), 'T' || n % 3, 's' || n % 60, n / 60 + 1, 'E' || n % 5, '{}',
                    make_timestamptz(2024, 1, 1, 0, 0, 0, 'UTC') + n * interval '3 years' / 18000, n + 1
               FROM generate_series(0, 17999) n",
        )
        .await;
    session.run("INSERT INTO event_ids SELECT event_id, 1, version, global_position, occurred_at, 0 FROM events").await;
    session
        .run(
            "INSERT INTO streams (aggregate_type, aggregate_id, first_occurred_at, version, last_occurred_at)
             SELECT aggregate_type, aggregate_id, min(occurred_at), max(version), max(occurred_at) FROM events GROUP BY 1, 2",
        )
        .await;
    session.run("UPDATE partitions SET sealed_at = now(), last_position = 1 WHERE starts_at < '2026-11-01Z'").await;
    session.run("ANALYZE").await;
    session.run(READ_SETTINGS).await;
    session
}

/// Returns the plan of a statement file with these arguments. The statement is prepared, as in the service.
async fn plan(session: &mut Session, file: &str, arguments: &str) -> String {
    let sql = std::fs::read_to_string(format!("{SQL}/{file}")).unwrap_or_else(|error| panic!("{file}: {error}"));
    session.run(&format!("PREPARE statement AS {sql}")).await;
    let explain = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE statement ({arguments})");
    let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut session.0).await;
    let rows = rows.unwrap_or_else(|error| panic!("{file}: {error}"));
    session.run("DEALLOCATE statement").await;
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

fn check(file: &str, plan: &str, partitions: &[&str]) {
    assert!(!plan.contains("Seq Scan on events"), "{file} reads a whole partition:\n{plan}");
    assert!(!plan.contains("Seq Scan on streams") && !plan.contains("Seq Scan on event_ids"), "{file}:\n{plan}");
    let mut touched: Vec<&str> = plan
        .split_whitespace()
        .filter(|word| word.starts_with("events_20") && word.len() == "events_2024_01".len())
        .collect();
    touched.sort_unstable();
    touched.dedup();
    assert_eq!(touched, partitions, "{file} reads other partitions than expected:\n{plan}");
}

#[tokio::test]
async fn every_statement_uses_indexes_and_only_the_partitions_that_it_needs() {
    let mut session = seeded().await;
    let times: (DateTime<Utc>, DateTime<Utc>) = sqlx::query_as(
        "SELECT occurred_at, occurred_at + interval '30 days' FROM events WHERE version = 100 AND aggregate_id = 's1'",
    )
    .fetch_one(&mut session.0)
    .await
    .expect("an event");
    let (from, to) = (times.0, times.1);
    let partition = |time: DateTime<Utc>| time.format("events_%Y_%m").to_string();
    let (here, there) = (partition(from), partition(to));
    let open = "'2026-11-01Z'";
    let open_partitions = ["events_2026_11", "events_2026_12", "events_2027_01", "events_2027_02", "events_2027_03"];

    for (file, arguments, partitions) in [
        ("stream_head.sql", format!("'T1', 's1', {open}"), open_partitions.to_vec()),
        (
            "stream_events_forward.sql",
            format!("'T1', 's1', 100, 110, 10, '{from}', '{to}'"),
            vec![here.as_str(), there.as_str()],
        ),
        (
            "stream_events_backward.sql",
            format!("'T1', 's1', 100, 110, 10, '{from}', '{to}'"),
            vec![here.as_str(), there.as_str()],
        ),
        (
            "events_at.sql",
            format!("ARRAY[6001], ARRAY['{from}'::timestamptz], '{from}', '{from}'"),
            vec![here.as_str()],
        ),
        ("event_location.sql", "gen_random_uuid()".to_owned(), vec![]),
        ("streams_of_type.sql", format!("'T1', 's1', 10, {open}, 's1', 's6'"), open_partitions.to_vec()),
        ("streams_of_types.sql", format!("'T1', 'T3', 's1', 's', 't', 10, 10, {open}"), open_partitions.to_vec()),
        ("log_head.sql", open.to_owned(), open_partitions.to_vec()),
        ("open_from.sql", String::new(), vec![]),
        ("known_event_ids.sql", "ARRAY[gen_random_uuid()]".to_owned(), vec![]),
    ] {
        let plan = match arguments.as_str() {
            "" => plan_without_arguments(&mut session, file).await,
            arguments => plan(&mut session, file, arguments).await,
        };
        check(file, &plan, &partitions);
    }

    // The log is read in the order of its positions, between two times. No other partition is read, and nothing is
    // sorted.
    let segment = format!("17000, 18000, '{from}', '{to}', 100");
    for file in ["log_events.sql", "log_events_backward.sql"] {
        let log = plan(&mut session, file, &segment).await;
        check(file, &log, &[&here, &there]);
        assert!(!log.contains("->  Sort"), "{log}");
    }
    let before = format!("ARRAY['{from}', '{to}']::timestamptz[], 0, 18000, '{from}', '{to}'");
    let before = plan(&mut session, "positions_before.sql", &before).await;
    check("positions_before.sql", &before, &[&here, &there]);
    let first = plan(&mut session, "first_position_after.sql", &format!("17000, '{from}', '{to}'")).await;
    check("first_position_after.sql", &first, &[&here, &there]);
    // Each filter uses its own index.
    for (by, index, arguments) in [
        ("aggregate_type", "aggregate_type_global_position", "ARRAY['T1', 'T2'], NULL, NULL, NULL"),
        ("event_type", "event_type_global_position", "NULL, NULL, ARRAY['E1', 'E2'], NULL"),
        ("event_type", "event_type_global_position", "ARRAY['T1'], NULL, ARRAY['E1', 'E2'], NULL"),
        ("correlation", "correlation_id_global_position", "NULL, NULL, NULL, ARRAY[gen_random_uuid()]"),
        ("aggregate", "aggregate_key", "ARRAY['T1'], ARRAY['s1', 's4'], NULL, NULL"),
    ] {
        for direction in ["", "_backward"] {
            let file = format!("log_events_by_{by}{direction}.sql");
            let plan = plan(&mut session, &file, &format!("{segment}, {arguments}, 1, 4")).await;
            check(&file, &plan, &[&here, &there]);
            assert!(plan.contains(index) && !plan.contains("position_key"), "{file}:\n{plan}");
            // The index is in the order of positions, so nothing is sorted within a partition.
            assert!(plan.matches("->  Sort").count() <= 1, "{file}:\n{plan}");
        }
    }
}

/// With the usual costs of a page, PostgreSQL reads all events of a large partition to find those of a rare type.
#[tokio::test]
async fn a_rare_event_type_of_a_large_partition_is_found_through_its_index() {
    let mut session = seeded().await;
    session
        .run(
            "INSERT INTO events (event_id, aggregate_type, aggregate_id, version, event_type, event_data, occurred_at, global_position)
             SELECT gen_random_uuid(), 'Many', n::text, 1, CASE WHEN n % 100 = 0 THEN 'Rare' ELSE 'E' || n % 11 END,
                    to_jsonb(repeat('x', 300)), '2027-01-15Z', n
               FROM generate_series(20001, 80000) n",
        )
        .await;
    session.run("VACUUM (ANALYZE) events_2027_01").await;
    let part = "20000, 80000, '2027-01-01Z', '2027-01-31Z', 1000, NULL, NULL";
    for event_types in ["ARRAY['Rare']", "ARRAY['Rare', 'E1', 'E2', 'E3', 'E4', 'E5']"] {
        for file in ["log_events_by_event_type.sql", "log_events_by_event_type_backward.sql"] {
            let plan = plan(&mut session, file, &format!("{part}, {event_types}, NULL, NULL, NULL")).await;
            let large = plan.lines().find(|line| line.contains("on events_2027_01")).expect("a scan");
            assert!(large.contains("events_2027_01_event_type_global_position_idx"), "{plan}");
            assert!(!plan.contains("Rows Removed by Filter"), "{plan}");
        }
    }
}

#[tokio::test]
async fn the_types_that_a_reader_may_see_cost_one_probe_each() {
    let mut session = seeded().await;
    session
        .run(
            "INSERT INTO streams (aggregate_type, aggregate_id, first_occurred_at)
             SELECT 'Foreign' || n % 50, n::text, now() FROM generate_series(1, 20000) n",
        )
        .await;
    session.run("ANALYZE streams").await;
    for (prefixes, rows) in [("ARRAY['Nothing']", 0), ("ARRAY['T']", 3), ("ARRAY['Foreign1', 'T']", 14)] {
        let plan = plan(&mut session, "readable_types.sql", &format!("{prefixes}, 65")).await;
        assert!(!plan.contains("Seq Scan on streams"), "{plan}");
        assert!(plan.contains("streams_pkey"), "{plan}");
        assert!(plan.lines().next().is_some_and(|line| line.contains(&format!("rows={rows}"))), "{plan}");
    }
    let many = "ARRAY['T1'], ARRAY['T2'], NULL, NULL, NULL";
    let partition_of_all = "NULL, ARRAY[]::text[], NULL, 1, 4";
    for file in ["log_events_by_position.sql", "log_events_by_position_backward.sql"] {
        for arguments in [many, partition_of_all] {
            let arguments = format!("0, 100, '2024-01-01Z', '2024-01-31Z', 10, {arguments}");
            let plan = plan(&mut session, file, &arguments).await;
            check(file, &plan, &["events_2024_01"]);
            assert!(!plan.contains("->  Sort"), "{plan}");
            // The function is a part of the statement: a call would take twice as long.
            assert!(!plan.contains("stream_bucket") && plan.contains("sha256"), "{plan}");
        }
    }
}

/// A prefix that no stream has must not read the streams of every type.
#[tokio::test]
async fn the_list_of_all_streams_costs_a_few_probes_for_each_stream_and_each_type() {
    let mut session = seeded().await;
    session
        .run(
            "INSERT INTO streams (aggregate_type, aggregate_id, first_occurred_at)
             SELECT 'Foreign' || n % 50, n::text, now() FROM generate_series(1, 20000) n",
        )
        .await;
    session.run("ANALYZE streams").await;
    // All types: a page of ten streams, ids of one type, and ids of none.
    for (ids, limit, rows) in [("'', 'z'", 10, 11), ("'s5', 's6'", 100, 64), ("'x', 'y'", 100, 53)] {
        let arguments = format!("'', 'Z', '', {ids}, {limit}, 100, '2026-11-01Z'");
        let plan = plan(&mut session, "streams_of_types.sql", &arguments).await;
        assert!(!plan.contains("Seq Scan"), "{plan}");
        assert!(plan.lines().next().is_some_and(|line| line.contains(&format!("rows={rows}"))), "{plan}");
        // Every scan of the index reads at most one entry. PostgreSQL 18 prints fractions.
        let scans: Vec<_> = plan.lines().filter(|line| line.contains("Scan using streams_pkey")).collect();
        let reads_one =
            |line: &str| ["rows=0 ", "rows=0.", "rows=1 ", "rows=1."].iter().any(|rows| line.contains(rows));
        assert!(scans.len() >= 3 && scans.iter().all(|line| reads_one(line)), "{plan}");
    }
}

async fn plan_without_arguments(session: &mut Session, file: &str) -> String {
    let sql = std::fs::read_to_string(format!("{SQL}/{file}")).unwrap_or_else(|error| panic!("{file}: {error}"));
    session.texts(&format!("EXPLAIN (COSTS OFF) {sql}")).await.join("\n")
}

#[tokio::test]
async fn an_append_uses_indexes_and_the_open_partitions_only() {
    let mut session = seeded().await;
    let call = |procedure: Procedure, stream: usize| {
        let call = AppendCall {
            aggregate_type: "T1",
            event_id: "gen_random_uuid()".to_owned(),
            now: Some("2026-12-31T00:00:00Z"),
            ..AppendCall::new(procedure, format!("s{stream}"), AppendCall::ANY, 0)
        };
        call.to_procedure()
    };
    // The first calls plan the statements. Their scans are not counted.
    for procedure in Procedure::ALL {
        session.run(&call(procedure, 1)).await;
    }
    session.run("SELECT pg_stat_force_next_flush()").await;
    session.run("SELECT pg_stat_reset()").await;
    for n in 0..20 {
        for procedure in Procedure::ALL {
            session.run(&call(procedure, n % 4)).await;
        }
    }
    session.run("SELECT pg_stat_force_next_flush()").await;
    let scanned = "SELECT relname::text FROM pg_stat_user_tables
                    WHERE seq_scan > 0 AND (relname LIKE 'events%' OR relname IN ('streams', 'event_ids')) ORDER BY 1";
    assert!(session.texts(scanned).await.is_empty());
    let touched =
        "SELECT relname::text FROM pg_stat_user_tables WHERE idx_scan > 0 AND relname LIKE 'events%' ORDER BY 1";
    let touched = session.texts(touched).await;
    assert!(touched.iter().all(|partition| partition.as_str() >= "events_2026_11"), "{touched:?}");
    assert!(touched.contains(&"events_2026_12".to_owned()), "{touched:?}");
}
