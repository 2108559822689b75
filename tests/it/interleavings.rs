//! Promise P1, P2, P3: each race that can break an event store on PostgreSQL, step by step. No test depends on time: it
//! waits until PostgreSQL reports that a session waits for a lock.
//!
//! Each race runs on the real functions, and on functions that a mutant has broken. The broken functions must show the
//! fault, because otherwise the test of the real functions would prove nothing. Each race runs with the procedure for a
//! batch and with the procedure for a single event.

#[path = "../torture/mutants.rs"]
#[expect(dead_code, reason = "annals-torture uses the rest")]
mod mutants;

use mutants::Mutant;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use crate::support::{
    AppendCall, Cache, Procedure, Session, TestDatabase, pause_between_polls, sqlstate, within_a_minute,
};

const ANY: i32 = AppendCall::ANY;
const UNIQUE_VIOLATION: Option<&str> = Some("23505");
const INVALID_TRANSACTION_TERMINATION: Option<&str> = Some("2D000");

/// The result of an append, with the version and the position of its event; `None`: a version conflict.
type Appended = Option<(i32, i64)>;

/// Creates a database with a partition for today. A mutant, if there is one, changes the functions of the database.
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

/// Appends with the function, which does not commit, so that the session may be inside a transaction.
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

/// Appends with the procedure, which commits. The writer uses the same procedure.
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
        assert_eq!(
            append_uncommitted(&mut first, procedure, "1", ANY, 1).await.expect("the event is written"),
            Some((1, 1))
        );
        let waiting = tokio::spawn(async move { append(&mut second, procedure, "2", ANY, 2).await });
        observer.wait_for_blocked_appends(1).await;
        assert!(positions(&mut reader).await.is_empty());
        first.run("COMMIT").await;
        assert_eq!(waiting.await.expect("the task ends").expect("the event is written"), Some((1, 2)));
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
        assert_eq!(
            append_uncommitted(&mut first, procedure, "1", ANY, 1).await.expect("the event is written"),
            Some((1, 1))
        );
        assert_eq!(append(&mut second, procedure, "2", ANY, 2).await.expect("the event is written"), Some((1, 2)));
        assert_eq!(positions(&mut reader).await, ["2"], "a reader would continue after 2");
        first.run("COMMIT").await;
        assert_eq!(positions(&mut reader).await, ["1", "2"], "and would never receive 1");
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
    assert_eq!(
        append_uncommitted(&mut holder, procedure, "1", 0, 1).await.expect("the event is written"),
        Some((1, 1))
    );
    holder.run("COMMIT").await;
    waiting.await.expect("the task ends")
}

#[tokio::test]
async fn a_session_that_waited_for_the_lock_decides_by_the_rows_committed_meanwhile() {
    for procedure in Procedure::ALL {
        let any = append_after_another_session(procedure, &database(None).await, ANY).await;
        assert_eq!(any.expect("the event is written"), Some((2, 2)));
        let none = append_after_another_session(procedure, &database(None).await, 0).await;
        assert_eq!(none.expect("the append is decided"), None, "a version conflict");
    }
}

#[tokio::test]
async fn a_session_that_reads_before_it_acquires_the_lock_decides_by_outdated_rows() {
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
            append_uncommitted(&mut first, procedure, "1", 0, 1).await.expect("the event is acknowledged"),
            Some((1, 1))
        );
        let waiting = tokio::spawn(async move { append_uncommitted(&mut second, procedure, "1", 0, 2).await });
        let mut observer = database.session().await;
        let blocked = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0
                          AND datname = current_database()";
        within_a_minute("the second session waits for the row of the first", async {
            while observer.number(blocked).await == 0 {
                pause_between_polls().await;
            }
        })
        .await;
        first.run("COMMIT").await;
        assert_eq!(waiting.await.expect("the task ends").expect("the event is acknowledged"), Some((1, 1)));
        assert_eq!(observer.number("SELECT count(*) FROM events").await, 1, "one of two acknowledged events is lost");
    }
}

/// Appends to a new stream with the procedure, and with a cache of the end of the log. Returns the position of the
/// event and the new cache.
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
        let (position, cache) =
            append_with_cached_end(&mut one, procedure, 1, None).await.expect("the event is written");
        assert_eq!(position, 1);
        let (position, cache) =
            append_with_cached_end(&mut one, procedure, 2, Some(&cache)).await.expect("the event is written");
        assert_eq!(position, 2);
        append_with_cached_end(&mut other, procedure, 3, None).await.expect("the event is written");
        let (position, cache) =
            append_with_cached_end(&mut one, procedure, 4, Some(&cache)).await.expect("the event is written");
        assert_eq!(position, 4, "the end of the log was read again");
        // An append that is rolled back also increments the generation, so that the cached end of the log is not used.
        other.run("BEGIN").await;
        append_uncommitted(&mut other, procedure, "rolled back", 0, 5)
            .await
            .expect("the event is written, but not committed");
        other.run("ROLLBACK").await;
        let (position, _) =
            append_with_cached_end(&mut one, procedure, 6, Some(&cache)).await.expect("the event is written");
        assert_eq!(position, 5);
        assert_eq!(positions(&mut one).await, ["1", "2", "3", "4", "5"]);
    }
}

#[tokio::test]
async fn a_stale_end_of_the_log_assigns_a_position_twice() {
    for procedure in Procedure::ALL {
        let database = database(Some("stale-end-of-log")).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (_, cache) = append_with_cached_end(&mut one, procedure, 1, None).await.expect("the event is written");
        append_with_cached_end(&mut other, procedure, 2, None).await.expect("the event is written");
        let appended = append_with_cached_end(&mut one, procedure, 3, Some(&cache)).await;
        let error = appended.map(|(position, _)| position).expect_err("the unique index refuses the position");
        assert_eq!(sqlstate(&error).as_deref(), UNIQUE_VIOLATION, "{error}");
    }
}

/// Appends to the stream `Order/1` with the procedure, and with a cache of the stream and of the end of the log.
/// Returns the version of the event and the new cache.
async fn append_with_cached_stream(
    session: &mut Session,
    procedure: Procedure,
    event: u32,
    cache: Option<&Cache>,
) -> Result<(i32, Cache), sqlx::Error> {
    let call = AppendCall { cache: cache.cloned(), ..AppendCall::new(procedure, "1", ANY, event) };
    let row = fetch(session, call.to_procedure()).await?;
    let (version, _) = call.written(&row).expect("the append expects no particular version");
    Ok((version, Cache { stream: Some((call.stream_no(&row), version)), ..Cache::from_row(&row) }))
}

#[tokio::test]
async fn a_cached_stream_head_is_used_only_if_no_other_session_has_appended() {
    for procedure in Procedure::ALL {
        let database = database(None).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (version, cache) =
            append_with_cached_stream(&mut one, procedure, 1, None).await.expect("the event is written");
        assert_eq!(version, 1);
        let (version, cache) =
            append_with_cached_stream(&mut one, procedure, 2, Some(&cache)).await.expect("the event is written");
        assert_eq!(version, 2);
        append_with_cached_stream(&mut other, procedure, 3, None).await.expect("the event is written");
        let (version, cache) =
            append_with_cached_stream(&mut one, procedure, 4, Some(&cache)).await.expect("the event is written");
        assert_eq!(version, 4, "the head of the stream was read again");
        let numbers = "SELECT count(*) FROM event_ids WHERE stream_no = (SELECT stream_no FROM streams)";
        assert_eq!(one.number(numbers).await, 4, "each event has the number of its stream, cached or not");
        // A cached head is not read again. A wrong head in the cache shows that the cache is used, if it is not above the
        // end of the log.
        for event in 10..14 {
            append(&mut other, procedure, "2", ANY, event).await.expect("the event is written");
        }
        let (_, cache) =
            append_with_cached_stream(&mut one, procedure, 14, Some(&cache)).await.expect("the event is written");
        let (stream_no, _) = cache.stream.expect("the stream is cached");
        let cache = Cache { stream: Some((stream_no, 7)), ..cache };
        let (version, _) =
            append_with_cached_stream(&mut one, procedure, 5, Some(&cache)).await.expect("the event is written");
        assert_eq!(version, 8);
    }
}

#[tokio::test]
async fn a_stale_stream_head_assigns_a_version_twice() {
    for procedure in Procedure::ALL {
        let database = database(Some("stale-stream-heads")).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (_, cache) = append_with_cached_stream(&mut one, procedure, 1, None).await.expect("the event is written");
        append_with_cached_stream(&mut other, procedure, 2, None).await.expect("the event is written");
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
        assert_eq!(
            append(&mut session, procedure, "1", ANY, 1).await.expect("the event is acknowledged"),
            Some((1, 1))
        );
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
            let error = append_uncommitted(&mut session, procedure, "1", ANY, 1)
                .await
                .expect_err("the isolation level is refused");
            assert!(error.to_string().contains("needs READ COMMITTED"), "{error}");
            session.rollback().await;
        }
    }
}

#[tokio::test]
async fn an_open_transaction_that_has_written_elsewhere_hides_no_event() {
    for procedure in Procedure::ALL {
        // A store that orders events by transaction ids must wait for the oldest running transaction in all databases
        // of the cluster.
        let database = database(None).await;
        let (mut idle, mut reader) = (database.session().await, database.session().await);
        idle.run("CREATE TABLE elsewhere (n integer)").await;
        idle.run("BEGIN; INSERT INTO elsewhere VALUES (1)").await;
        assert_eq!(append(&mut reader, procedure, "1", ANY, 1).await.expect("the event is written"), Some((1, 1)));
        assert_eq!(positions(&mut reader).await, ["1"]);
        idle.rollback().await;
    }
}
