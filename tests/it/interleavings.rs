//! Each race that an event store on PostgreSQL can lose, step by step: who waits is seen to wait, nothing sleeps. Beside
//! the real functions each script is run on broken ones, which have to show the fault: a script that shows none there
//! would prove nothing here.

#[path = "../torture/mutants.rs"]
#[expect(dead_code, reason = "what only a run of them needs")]
mod mutants;

use mutants::Mutant;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use crate::support::{Session, TestDatabase, id};

/// What an append was told: the version and the position of its event, or `None` for a version conflict.
type Told = Option<(i32, i64)>;

async fn database(mutant: Option<&str>) -> TestDatabase {
    let database = TestDatabase::create().await;
    database.session().await.run("SELECT create_event_month(clock_timestamp())").await;
    if let Some(name) = mutant {
        let mutant = Mutant::named(name).expect("a mutant");
        mutant.apply(&mut database.session().await.0).await.expect("the functions are broken");
    }
    database
}

const ANY: i32 = -1;

/// The two ways into the log.
#[derive(Clone, Copy)]
enum Way {
    Single,
    Batch,
}

/// A stream that somebody knows: its number and version.
type Known = Option<(i64, i32)>;

/// What an append is told of the end of the log, as the next one passes it on.
#[derive(Clone)]
struct End(String);

impl End {
    fn unknown() -> Self {
        Self("NULL, NULL, NULL, NULL".to_owned())
    }

    fn of(row: &PgRow) -> Self {
        let time = |name| row.get::<chrono::DateTime<chrono::Utc>, _>(name).to_rfc3339();
        let (turn, position): (i64, i64) = (row.get("turn"), row.get("log_position"));
        Self(format!("{turn}, {position}, '{}', '{}'", time("log_time"), time("open_from")))
    }
}

/// An append of one event to a stream of orders, by somebody who knows this much.
struct Append<'a> {
    stream: &'a str,
    expected: i32,
    event: u32,
    known: Known,
    end: End,
}

impl<'a> Append<'a> {
    /// By somebody who knows nothing.
    fn new(stream: &'a str, expected: i32, event: u32) -> Self {
        Self { stream, expected, event, known: None, end: End::unknown() }
    }

    /// The arguments of the function for batches, as the writer passes them.
    fn batch_arguments(&self) -> String {
        let Self { stream, expected, event, known, end } = self;
        let known = known.map_or("NULL, NULL".to_owned(), |(stream_no, head)| {
            format!("ARRAY[{head}], ARRAY[{stream_no}]::bigint[]")
        });
        format!(
            "ARRAY['Order'], ARRAY['{stream}'], ARRAY[0], ARRAY[1], ARRAY[1], ARRAY[{expected}], ARRAY[0], ARRAY[0], \
             ARRAY[1], ARRAY[0], ARRAY['{}'::uuid], ARRAY['Happened'], ARRAY['{{}}'::jsonb], NULL, NULL, NULL, NULL, false, 0, \
             NULL, {known}, {}",
            id(*event),
            end.0
        )
    }

    /// The call of the procedure.
    fn call(&self, way: Way) -> String {
        let Self { stream, expected, event, known, end } = self;
        match way {
            Way::Single => {
                let known = known.map_or("NULL, NULL".to_owned(), |(stream_no, head)| format!("{head}, {stream_no}"));
                format!(
                    "CALL append_event('Order', '{stream}', {expected}, '{}', 'Happened', '{{}}', NULL, NULL, NULL, false, 0, \
                     NULL, {known}, {}, NULL)",
                    id(*event),
                    end.0
                )
            }
            Way::Batch => {
                let answers = ["NULL"; 8].join(", ");
                format!("CALL append_events({}, {answers})", self.batch_arguments())
            }
        }
    }
}

async fn row(session: &mut Session, sql: String) -> Result<PgRow, sqlx::Error> {
    sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut session.0).await
}

/// An append by the function alone: the session may be in a transaction, and then it is not committed.
async fn append(session: &mut Session, stream: &str, expected: i32, event: u32) -> Result<Told, sqlx::Error> {
    let arguments = Append::new(stream, expected, event).batch_arguments();
    told(session, format!("SELECT * FROM append_events_locked({arguments})")).await
}

/// As the writer does it: the procedure for a single event, and the one for batches if that leaves it undecided.
async fn call(session: &mut Session, stream: &str, expected: i32, event: u32) -> Result<Told, sqlx::Error> {
    let append = Append::new(stream, expected, event);
    let row = row(session, append.call(Way::Single)).await?;
    if let Some(version) = row.get("version") {
        return Ok(Some((version, row.get("log_position"))));
    }
    told(session, append.call(Way::Batch)).await
}

async fn told(session: &mut Session, sql: String) -> Result<Told, sqlx::Error> {
    let row = row(session, sql).await?;
    let first = |row: &PgRow| -> (i32, i64) {
        let versions: Vec<i32> = row.get("append_first_versions");
        let positions: Vec<i64> = row.get("append_first_positions");
        (versions[0], positions[0])
    };
    let outcomes: Vec<i32> = row.get("request_outcomes");
    Ok((outcomes[0] == 0).then(|| first(&row)))
}

async fn positions(session: &mut Session) -> Vec<String> {
    session.texts("SELECT global_position::text FROM events ORDER BY global_position").await
}

#[tokio::test]
async fn no_position_is_seen_before_the_ones_below_it() {
    let database = database(None).await;
    let (mut one, mut other) = (database.session().await, database.session().await);
    let (mut reader, mut watcher) = (database.session().await, database.session().await);
    one.run("BEGIN").await;
    assert_eq!(append(&mut one, "1", ANY, 1).await.expect("it is written"), Some((1, 1)));
    let waiting = tokio::spawn(async move { call(&mut other, "2", ANY, 2).await });
    watcher.wait_for_appends_to_queue(1).await;
    assert!(positions(&mut reader).await.is_empty());
    one.run("COMMIT").await;
    assert_eq!(waiting.await.expect("it ends").expect("it is written"), Some((1, 2)));
    assert_eq!(positions(&mut reader).await, ["1", "2"]);
}

#[tokio::test]
async fn without_the_lock_a_position_is_seen_before_one_below_it() {
    let database = database(Some("sequence-without-lock")).await;
    let (mut one, mut other) = (database.session().await, database.session().await);
    let mut reader = database.session().await;
    one.run("BEGIN").await;
    assert_eq!(append(&mut one, "1", ANY, 1).await.expect("it is written"), Some((1, 1)));
    assert_eq!(call(&mut other, "2", ANY, 2).await.expect("it is written"), Some((1, 2)));
    assert_eq!(positions(&mut reader).await, ["2"], "a reader goes on after 2");
    one.run("COMMIT").await;
    assert_eq!(positions(&mut reader).await, ["1", "2"], "and never sees 1");
}

/// Somebody waits for the lock while its holder appends to the same stream.
async fn append_behind_another_one(database: &TestDatabase, expected: i32) -> Result<Told, sqlx::Error> {
    let (mut holder, mut other) = (database.session().await, database.session().await);
    let mut watcher = database.session().await;
    holder.hold_append_lock().await;
    let waiting = tokio::spawn(async move { call(&mut other, "1", expected, 2).await });
    watcher.wait_for_appends_to_queue(1).await;
    assert_eq!(append(&mut holder, "1", 0, 1).await.expect("it is written"), Some((1, 1)));
    holder.run("COMMIT").await;
    waiting.await.expect("it ends")
}

#[tokio::test]
async fn who_waited_for_the_lock_decides_by_what_was_written_meanwhile() {
    let any = append_behind_another_one(&database(None).await, ANY).await;
    assert_eq!(any.expect("it is written"), Some((2, 2)));
    let none = append_behind_another_one(&database(None).await, 0).await;
    assert_eq!(none.expect("it is decided"), None, "a version conflict");
}

#[tokio::test]
async fn who_reads_before_the_lock_decides_by_what_is_no_longer_true() {
    for expected in [ANY, 0] {
        let stale = append_behind_another_one(&database(Some("lock-after-read")).await, expected).await;
        let error = stale.expect_err("the unique index is the alarm");
        assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("23505"), "{error}");
    }
}

#[tokio::test]
async fn without_lock_and_alarm_two_are_told_the_same_version_and_one_is_there() {
    let database = database(Some("on-conflict-do-nothing")).await;
    let (mut one, mut other) = (database.session().await, database.session().await);
    one.run("BEGIN").await;
    assert_eq!(append(&mut one, "1", 0, 1).await.expect("it is told"), Some((1, 1)));
    let waiting = tokio::spawn(async move { append(&mut other, "1", 0, 2).await });
    let mut watcher = database.session().await;
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0
                      AND datname = current_database()";
    crate::support::within_a_minute("the second one waits for the row", async {
        while watcher.number(blocked).await == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    one.run("COMMIT").await;
    assert_eq!(waiting.await.expect("it ends").expect("it is told"), Some((1, 1)));
    assert_eq!(watcher.number("SELECT count(*) FROM events").await, 1, "one of two acknowledged events is lost");
}

/// An append to a stream of its own, by somebody who knows where the log ended; its position, and where the log ends now.
async fn call_knowing(session: &mut Session, way: Way, event: u32, end: &End) -> Result<(i64, End), sqlx::Error> {
    let stream = event.to_string();
    let append = Append { end: end.clone(), ..Append::new(&stream, 0, event) };
    let row = row(session, append.call(way)).await?;
    Ok((row.get("log_position"), End::of(&row)))
}

#[tokio::test]
async fn who_knows_the_end_of_the_log_goes_by_it_only_while_nobody_else_had_a_turn() {
    for way in [Way::Single, Way::Batch] {
        let database = database(None).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (position, end) = call_knowing(&mut one, way, 1, &End::unknown()).await.expect("it is written");
        assert_eq!(position, 1);
        let (position, end) = call_knowing(&mut one, way, 2, &end).await.expect("it is written");
        assert_eq!(position, 2);
        call_knowing(&mut other, way, 3, &End::unknown()).await.expect("it is written");
        let (position, end) = call_knowing(&mut one, way, 4, &end).await.expect("it is written");
        assert_eq!(position, 4, "it looked");
        // A turn that came to nothing is one, too: what it would have told is not known.
        other.run("BEGIN").await;
        append(&mut other, "rolled back", 0, 5).await.expect("it is written, for now");
        other.run("ROLLBACK").await;
        let (position, _) = call_knowing(&mut one, way, 6, &end).await.expect("it is written");
        assert_eq!(position, 5);
        assert_eq!(positions(&mut one).await, ["1", "2", "3", "4", "5"]);
    }
}

/// An append to the stream `Order/1` of somebody who knows where the log ended, and where the stream stood; the version that it
/// gave, the stream as it is known now, and where the log ends.
async fn append_knowing(
    session: &mut Session,
    way: Way,
    event: u32,
    known: Known,
    end: &End,
) -> Result<(i32, Known, End), sqlx::Error> {
    let append = Append { known, end: end.clone(), ..Append::new("1", ANY, event) };
    let row = row(session, append.call(way)).await?;
    let (version, stream_no) = match way {
        Way::Single => (row.get("version"), row.get("stream_no")),
        Way::Batch => (row.get::<Vec<i32>, _>("append_first_versions")[0], row.get::<Vec<i64>, _>("stream_nos")[0]),
    };
    Ok((version, Some((stream_no, version)), End::of(&row)))
}

#[tokio::test]
async fn who_knows_a_stream_goes_by_it_only_while_nobody_else_had_a_turn() {
    for way in [Way::Single, Way::Batch] {
        let database = database(None).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (version, stream, end) =
            append_knowing(&mut one, way, 1, None, &End::unknown()).await.expect("it is written");
        assert_eq!(version, 1);
        let (version, stream, end) = append_knowing(&mut one, way, 2, stream, &end).await.expect("it is written");
        assert_eq!(version, 2);
        append_knowing(&mut other, way, 3, None, &End::unknown()).await.expect("it is written");
        let (version, stream, end) = append_knowing(&mut one, way, 4, stream, &end).await.expect("it is written");
        assert_eq!(version, 4, "it looked");
        let (stream_no, _) = stream.expect("the answer tells it");
        let numbers =
            one.number("SELECT count(*) FROM event_ids WHERE stream_no = (SELECT stream_no FROM streams)").await;
        assert_eq!(numbers, 4, "the number is the stream's, known or looked for");
        // Nobody looks for what is known: otherwise nothing would be won.
        let (version, ..) = append_knowing(&mut one, way, 5, Some((stream_no, 7)), &end).await.expect("it is written");
        assert_eq!(version, 8);
    }
}

#[tokio::test]
async fn who_believes_a_stream_stands_where_it_stood_gives_a_version_out_twice() {
    for way in [Way::Single, Way::Batch] {
        let database = database(Some("streams-believed")).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let written = append_knowing(&mut one, way, 1, None, &End::unknown()).await;
        let (_, stream, end) = written.expect("it is written");
        append_knowing(&mut other, way, 2, None, &End::unknown()).await.expect("it is written");
        let told = append_knowing(&mut one, way, 3, stream, &end).await;
        let error = told.map(|told| told.0).expect_err("the unique index is the alarm");
        assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("23505"), "{error}");
    }
}

#[tokio::test]
async fn an_epoch_takes_a_turn() {
    let database = database(None).await;
    let mut session = database.session().await;
    let turn = "SELECT last_value + is_called::integer FROM append_turns";
    let before = session.number(turn).await;
    session.run("SELECT begin_epoch('a test')").await;
    assert_eq!(session.number(turn).await, before + 1);
}

#[tokio::test]
async fn who_believes_what_was_true_once_gives_a_position_out_twice() {
    for way in [Way::Single, Way::Batch] {
        let database = database(Some("end-believed")).await;
        let (mut one, mut other) = (database.session().await, database.session().await);
        let (_, end) = call_knowing(&mut one, way, 1, &End::unknown()).await.expect("it is written");
        call_knowing(&mut other, way, 2, &End::unknown()).await.expect("it is written");
        let error =
            call_knowing(&mut one, way, 3, &end).await.map(|told| told.0).expect_err("the unique index is the alarm");
        assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("23505"), "{error}");
    }
}

#[tokio::test]
async fn inside_a_transaction_that_somebody_left_open_nothing_is_acknowledged() {
    let database = database(None).await;
    let (mut session, mut reader) = (database.session().await, database.session().await);
    session.run("BEGIN").await;
    let error = call(&mut session, "1", ANY, 1).await.expect_err("PostgreSQL refuses");
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("2D000"), "{error}");
    session.run("ROLLBACK").await;
    assert!(positions(&mut reader).await.is_empty());
}

#[tokio::test]
async fn without_the_commit_in_it_an_append_in_an_open_transaction_is_told_and_lost() {
    let database = database(Some("no-commit")).await;
    let (mut session, mut reader) = (database.session().await, database.session().await);
    session.run("BEGIN").await;
    assert_eq!(call(&mut session, "1", ANY, 1).await.expect("it is told"), Some((1, 1)));
    session.run("ROLLBACK").await;
    assert!(positions(&mut reader).await.is_empty(), "an acknowledged event is gone");
}

#[tokio::test]
async fn an_older_snapshot_is_refused() {
    let database = database(None).await;
    let mut session = database.session().await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        session.run(&format!("BEGIN ISOLATION LEVEL {level}")).await;
        let error = append(&mut session, "1", ANY, 1).await.expect_err("it is refused");
        assert!(error.to_string().contains("needs READ COMMITTED"), "{error}");
        session.end().await;
    }
}

#[tokio::test]
async fn a_transaction_that_has_written_elsewhere_hides_nothing() {
    // Who orders by transaction ids waits for the oldest one that runs, in any database of the cluster.
    let database = database(None).await;
    let (mut idle, mut reader) = (database.session().await, database.session().await);
    idle.run("CREATE TABLE elsewhere (n integer)").await;
    idle.run("BEGIN; INSERT INTO elsewhere VALUES (1)").await;
    assert_eq!(call(&mut reader, "1", ANY, 1).await.expect("it is written"), Some((1, 1)));
    assert_eq!(positions(&mut reader).await, ["1"]);
    idle.end().await;
}
