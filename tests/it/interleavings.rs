//! Promise P1, P2, P3: each race that an event store on PostgreSQL can lose, step by step. Nothing sleeps: a test sees
//! that a session waits.
//!
//! Each script runs on the real functions, and on broken ones that must show the fault. A script that shows no fault
//! there would prove nothing here. Each runs with the procedure for a batch and with the one for a single event.

#[path = "../torture/mutants.rs"]
#[expect(dead_code, reason = "annals-torture uses the rest")]
mod mutants;

use mutants::Mutant;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use crate::support::{AppendCall, Cache, Procedure, Session, TestDatabase, sqlstate, within_a_minute};

const ANY: i32 = AppendCall::ANY;
const UNIQUE_VIOLATION: Option<&str> = Some("23505");
const INVALID_TRANSACTION_TERMINATION: Option<&str> = Some("2D000");

/// The result of an append: version and position of its event; `None` for a version conflict.
type Appended = Option<(i32, i64)>;

/// Creates a database with a partition for today, whose functions a mutant has changed.
async fn database(mutant: Option<&str>) -> TestDatabase {
    let database = TestDatabase::create().await;
    database.session().await.run("SELECT create_partition(clock_timestamp())").await;
    if let Some(name) = mutant {
        let mutant = Mutant::named(name).expect("a mutant");
        mutant.apply(&mut database.session().await.0).await.expect("the functions are changed");
    }
    database
}

async fn fetch(session: &mut Session, sql: String) -> Result<PgRow, sqlx::Error> {
    sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut session.0).await
}

/// Appends by the function alone, which does not commit: the session may be inside a transaction.
async fn append_uncommitted(
    session: &mut Session,
    procedure: Procedure,
    stream: &str,
    expected: i32,
    event: u32,
) -> Result<Appended, sqlx::Error> {
    let call = AppendCall::new(procedure, stream, expected, event);
    Ok(call.written(&fetch(session, call.to_function()).await?))
}

/// Appends by the procedure, which commits, as the writer does.
async fn append(
    session: &mut Session,
    procedure: Procedure,
    stream: &str,
    expected: i32,
    event: u32,
) -> Result<Appended, sqlx::Error> {
    let call = AppendCall::new(procedure, stream, expected, event);
    Ok(call.written(&fetch(session, call.to_procedure()).await?))
}

async fn positions(session: &mut Session) -> Vec<String> {
    session.texts("SELECT global_position::text FROM events ORDER BY global_position").await
}

#[tokio::test]
async fn no_position_is_visible_before_the_positions_below_it() {
    for procedure in Procedure::ALL {
        let database = database(None).await;
        let (mut first, mut second) = (database.session().await, database.session().await);
        let (mut reader, mut observer) = (database.session().await, database.session().await);
        first.run("BEGIN").await;
        assert_eq!(append_uncommitted(&mut first, procedure, "1", ANY, 1).await.expect("it is written"), Some((1, 1)));
        let waiting = tokio::spawn(async move { append(&mut second, procedure, "2", ANY, 2).await });
        observer.wait_for_blocked_appends(1).await;
        assert!(positions(&mut reader).await.is_empty());
        first.run("COMMIT").await;
        assert_eq!(waiting.await.expect("it ends").expect("it is written"), Some((1, 2)));
        assert_eq!(positions(&mut reader).await, ["1", "2"]);
    }
}

#[tokio::test]
async fn without_the_lock_a_position_is_visible_before_one_below_it() {
    for procedure in Procedure::ALL {
        let database = database(Some("sequence-without-lock")).await;
        let (mut first, mut second) = (database.session().await, database.session().await);
        let mut reader = database.session().await;
        first.run("BEGIN").await;
        assert_eq!(append_uncommitted(&mut first, procedure, "1", ANY, 1).await.expect("it is written"), Some((1, 1)));
        assert_eq!(append(&mut second, procedure, "2", ANY, 2).await.expect("it is written"), Some((1, 2)));
        assert_eq!(positions(&mut reader).await, ["2"], "a reader continues after 2");
        first.run("COMMIT").await;
        assert_eq!(positions(&mut reader).await, ["1", "2"], "and never sees 1");
    }
}

/// Appends to a stream in a session that waits for the lock while its holder appends to the same stream.
async fn append_after_another_session(
    procedure: Procedure,
    database: &TestDatabase,
    expected: i32,
) -> Result<Appended, sqlx::Error> {
    let (mut holder, mut other) = (database.session().await, database.session().await);
    let mut observer = database.session().await;
    holder.hold_append_lock().await;
    let waiting = tokio::spawn(async move { append(&mut other, procedure, "1", expected, 2).await });
    observer.wait_for_blocked_appends(1).await;
    assert_eq!(append_uncommitted(&mut holder, procedure, "1", 0, 1).await.expect("it is written"), Some((1, 1)));
    holder.run("COMMIT").await;
    waiting.await.expect("it ends")
}

#[tokio::test]
async fn a_session_that_waited_for_the_lock_decides_by_what_was_committed_meanwhile() {
    for procedure in Procedure::ALL {
        let any = append_after_another_session(procedure, &database(None).await, ANY).await;
        assert_eq!(any.expect("it is written"), Some((2, 2)));
        let none = append_after_another_session(procedure, &database(None).await, 0).await;
        assert_eq!(none.expect("it is decided"), None, "a version conflict");
    }
}

#[tokio::test]
async fn a_session_that_reads_before_it_has_the_lock_decides_by_outdated_rows() {
    for procedure in Procedure::ALL {
        for expected in [ANY, 0] {
            let outdated =
                append_after_another_session(procedure, &database(Some("lock-after-read")).await, expected).await;
            let error = outdated.expect_err("the unique index refuses the version");
            assert_eq!(sqlstate(&error).as_deref(), UNIQUE_VIOLATION, "{error}");
        }
    }
}

#[tokio::test]
async fn without_lock_and_unique_violation_two_appends_get_the_same_version_and_one_is_lost() {
    for procedure in Procedure::ALL {
        let database = database(Some("on-conflict-do-nothing")).await;
        let (mut first, mut second) = (database.session().await, database.session().await);
        first.run("BEGIN").await;
        assert_eq!(
            append_uncommitted(&mut first, procedure, "1", 0, 1).await.expect("it is acknowledged"),
            Some((1, 1))
        );
        let waiting = tokio::spawn(async move { append_uncommitted(&mut second, procedure, "1", 0, 2).await });
        let mut observer = database.session().await;
        let blocked = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0
                          AND datname = current_database()";
        within_a_minute("the second session waits for the row of the first", async {
            while observer.number(blocked).await == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        first.run("COMMIT").await;
        assert_eq!(waiting.await.expect("it ends").expect("it is acknowledged"), Some((1, 1)));
        assert_eq!(observer.number("SELECT count(*) FROM events").await, 1, "one of two acknowledged events is lost");
    }
}

/// Appends to a new stream by the procedure, with a cache of the end of the log. Returns the position of the event, and
/// the cache after it.
async fn append_with_cached_end(
    session: &mut Session,
    procedure: Procedure,
    event: u32,
    cache: Option<&Cache>,
) -> Result<(i64, Cache), sqlx::Error> {
    let call = AppendCall { cache: cache.cloned(), ..AppendCall::new(procedure, event.to_string(), 0, event) };
    let row = fetch(session, call.to_procedure()).await?;
    Ok((row.get("log_position"), Cache::from_row(&row)))
}

#[tokio::test]
async fn a_cached_end_of_the_log_is_used_only_if_no_other_session_has_appended() {
    for procedure in Procedure::ALL {
        let database = database(None).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (position, cache) = append_with_cached_end(&mut one, procedure, 1, None).await.expect("it is written");
        assert_eq!(position, 1);
        let (position, cache) =
            append_with_cached_end(&mut one, procedure, 2, Some(&cache)).await.expect("it is written");
        assert_eq!(position, 2);
        append_with_cached_end(&mut other, procedure, 3, None).await.expect("it is written");
        let (position, cache) =
            append_with_cached_end(&mut one, procedure, 4, Some(&cache)).await.expect("it is written");
        assert_eq!(position, 4, "the end of the log was read again");
        // An append that rolls back has incremented the generation, too: its result must not be cached.
        other.run("BEGIN").await;
        append_uncommitted(&mut other, procedure, "rolled back", 0, 5).await.expect("it is written, but not committed");
        other.run("ROLLBACK").await;
        let (position, _) = append_with_cached_end(&mut one, procedure, 6, Some(&cache)).await.expect("it is written");
        assert_eq!(position, 5);
        assert_eq!(positions(&mut one).await, ["1", "2", "3", "4", "5"]);
    }
}

#[tokio::test]
async fn a_stale_end_of_the_log_assigns_a_position_twice() {
    for procedure in Procedure::ALL {
        let database = database(Some("stale-end-of-log")).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (_, cache) = append_with_cached_end(&mut one, procedure, 1, None).await.expect("it is written");
        append_with_cached_end(&mut other, procedure, 2, None).await.expect("it is written");
        let appended = append_with_cached_end(&mut one, procedure, 3, Some(&cache)).await;
        let error = appended.map(|(position, _)| position).expect_err("the unique index refuses the position");
        assert_eq!(sqlstate(&error).as_deref(), UNIQUE_VIOLATION, "{error}");
    }
}

/// Appends to the stream `Order/1` by the procedure, with a cache of the stream and of the end of the log. Returns the
/// version of the event, and the cache after it.
async fn append_with_cached_stream(
    session: &mut Session,
    procedure: Procedure,
    event: u32,
    cache: Option<&Cache>,
) -> Result<(i32, Cache), sqlx::Error> {
    let call = AppendCall { cache: cache.cloned(), ..AppendCall::new(procedure, "1", ANY, event) };
    let row = fetch(session, call.to_procedure()).await?;
    let (version, _) = call.written(&row).expect("every version is expected");
    Ok((version, Cache { stream: Some((call.stream_no(&row), version)), ..Cache::from_row(&row) }))
}

#[tokio::test]
async fn a_cached_stream_head_is_used_only_if_no_other_session_has_appended() {
    for procedure in Procedure::ALL {
        let database = database(None).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (version, cache) = append_with_cached_stream(&mut one, procedure, 1, None).await.expect("it is written");
        assert_eq!(version, 1);
        let (version, cache) =
            append_with_cached_stream(&mut one, procedure, 2, Some(&cache)).await.expect("it is written");
        assert_eq!(version, 2);
        append_with_cached_stream(&mut other, procedure, 3, None).await.expect("it is written");
        let (version, cache) =
            append_with_cached_stream(&mut one, procedure, 4, Some(&cache)).await.expect("it is written");
        assert_eq!(version, 4, "the head of the stream was read again");
        let numbers = "SELECT count(*) FROM event_ids WHERE stream_no = (SELECT stream_no FROM streams)";
        assert_eq!(one.number(numbers).await, 4, "each event has the number of its stream, cached or not");
        // A cached head is not read again: otherwise the cache would save nothing.
        let (stream_no, _) = cache.stream.expect("the stream is cached");
        let cache = Cache { stream: Some((stream_no, 7)), ..cache };
        let (version, _) =
            append_with_cached_stream(&mut one, procedure, 5, Some(&cache)).await.expect("it is written");
        assert_eq!(version, 8);
    }
}

#[tokio::test]
async fn a_stale_stream_head_assigns_a_version_twice() {
    for procedure in Procedure::ALL {
        let database = database(Some("stale-stream-heads")).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (_, cache) = append_with_cached_stream(&mut one, procedure, 1, None).await.expect("it is written");
        append_with_cached_stream(&mut other, procedure, 2, None).await.expect("it is written");
        let appended = append_with_cached_stream(&mut one, procedure, 3, Some(&cache)).await;
        let error = appended.map(|(version, _)| version).expect_err("the unique index refuses the version");
        assert_eq!(sqlstate(&error).as_deref(), UNIQUE_VIOLATION, "{error}");
    }
}

#[tokio::test]
async fn beginning_an_epoch_increments_the_append_generation() {
    let database = database(None).await;
    let mut session = database.session().await;
    let generation = "SELECT last_value + is_called::integer FROM append_generation";
    let before = session.number(generation).await;
    session.run("SELECT begin_epoch('a test')").await;
    assert_eq!(session.number(generation).await, before + 1);
}

#[tokio::test]
async fn an_append_inside_an_open_transaction_is_not_acknowledged() {
    for procedure in Procedure::ALL {
        let database = database(None).await;
        let (mut session, mut reader) = (database.session().await, database.session().await);
        session.run("BEGIN").await;
        let error = append(&mut session, procedure, "1", ANY, 1).await.expect_err("PostgreSQL refuses the commit");
        assert_eq!(sqlstate(&error).as_deref(), INVALID_TRANSACTION_TERMINATION, "{error}");
        session.run("ROLLBACK").await;
        assert!(positions(&mut reader).await.is_empty());
    }
}

#[tokio::test]
async fn without_the_commit_an_append_inside_an_open_transaction_is_acknowledged_and_lost() {
    for procedure in Procedure::ALL {
        let database = database(Some("no-commit")).await;
        let (mut session, mut reader) = (database.session().await, database.session().await);
        session.run("BEGIN").await;
        assert_eq!(append(&mut session, procedure, "1", ANY, 1).await.expect("it is acknowledged"), Some((1, 1)));
        session.run("ROLLBACK").await;
        assert!(positions(&mut reader).await.is_empty(), "an acknowledged event is lost");
    }
}

#[tokio::test]
async fn isolation_levels_with_an_older_snapshot_are_refused() {
    for procedure in Procedure::ALL {
        let database = database(None).await;
        let mut session = database.session().await;
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            session.run(&format!("BEGIN ISOLATION LEVEL {level}")).await;
            let error = append_uncommitted(&mut session, procedure, "1", ANY, 1).await.expect_err("it is refused");
            assert!(error.to_string().contains("needs READ COMMITTED"), "{error}");
            session.rollback().await;
        }
    }
}

#[tokio::test]
async fn an_open_transaction_that_has_written_elsewhere_hides_no_event() {
    for procedure in Procedure::ALL {
        // A store that orders by transaction ids must wait for the oldest running transaction, in any database of the
        // cluster.
        let database = database(None).await;
        let (mut idle, mut reader) = (database.session().await, database.session().await);
        idle.run("CREATE TABLE elsewhere (n integer)").await;
        idle.run("BEGIN; INSERT INTO elsewhere VALUES (1)").await;
        assert_eq!(append(&mut reader, procedure, "1", ANY, 1).await.expect("it is written"), Some((1, 1)));
        assert_eq!(positions(&mut reader).await, ["1"]);
        idle.rollback().await;
    }
}
