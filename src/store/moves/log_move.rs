//! The steps of a move. Each can be repeated.

use sqlx::{AssertSqlSafe, Executor, Row};
use uuid::Uuid;

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::store::admin::migrate::{self, SchemaError};
use crate::store::connection::config::DatabaseConfig;
use crate::store::connection::connector::{Connector, MOVE_SETTINGS};
use crate::store::connection::session::Session;
use crate::store::error::DatabaseError;
use crate::store::moves::digest::Digest;
use crate::store::moves::pipe;
use crate::store::partitions::archiver::{ArchivingError, acquire_archive_lock, quote_identifier};
use crate::store::partitions::partition::Partition;

const LOG_MOVE: &str = include_str!("../sql/log_move.sql");
const BEGIN_MOVE: &str = include_str!("../sql/begin_move.sql");
const COMPLETE_MOVE: &str = include_str!("../sql/complete_move.sql");
const EPOCH_OF_MOVE: &str = include_str!("../sql/epoch_of_move.sql");

/// The number of positions of a chunk.
const CHUNK_POSITIONS: Position = 50_000;
/// A pass that copies fewer events is the last one before the source is frozen.
const LAST_PASS_EVENTS: u64 = 2_000;
/// The number of passes while the source accepts appends: if they are faster than the copy, no pass is small.
const PASSES_MAX: u32 = 20;

/// The tables that are copied as a whole while the source is frozen, in the order of their references. Those of events,
/// event ids and streams grow with the log, and are copied before. `snapshots` are copied before, and then brought up to
/// date.
const SMALL_TABLES: [&str; 20] = [
    "epochs",
    "lost_epochs",
    "partitions",
    "reducers",
    "projection_positions",
    "groups",
    "claims",
    "parked_streams",
    "statistics",
    "event_counts",
    "stream_counts",
    "largest_aggregates",
    "api_keys",
    "store_secrets",
    "verification",
    "erasures",
    "erased_events",
    "erased_streams",
    "erasure_months",
    "former_folders",
];

/// The sequences whose values the tables use.
const SEQUENCES: [&str; 6] = [
    "streams_stream_no_seq",
    "position_bound",
    "reducer_revisions",
    "groups_group_no_seq",
    "claim_step_bound",
    "erasures_erasure_seq",
];

const SNAPSHOT_KEYS: &str = "SELECT aggregate_type, aggregate_id, version, created_at FROM snapshots";

/// Why a log was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error("a move to {0} is in progress: continue it with this address, or cancel it with `annals move --cancel`")]
    OtherTarget(String),
    #[error("this log has moved to {0} already: this database refuses writes")]
    Completed(String),
    #[error("no move is in progress")]
    NotInProgress,
    #[error("the source is frozen: name the target with --to, so that it can be checked that it has not taken over")]
    CancelNeedsTarget,
    #[error("the target has taken over already: run `annals move` again without --cancel, to complete the move")]
    TakenOver,
    #[error("{0} other sessions of Annals use the target: stop the instances there, and run the command again")]
    TargetServed(i64),
    #[error(
        "the outcome of the switch is unknown, and the source refuses writes: run the command again, which finds it out \
         ({0})"
    )]
    OutcomeUnknown(DatabaseError),
    #[error("the source and the target are the same database")]
    SameDatabase,
    #[error("the target has a log of its own: name an empty database")]
    TargetInUse,
    #[error("this database is the target of a move that is not complete: continue the move from its source")]
    IsTarget,
    #[error(
        "the target differs from the source in {0}, and nothing was switched: cancel the move, and begin again with an empty \
         database"
    )]
    Differs(String),
    #[error(
        "appends are faster than the copy: the target is {0} events behind. Reduce them, and run the command again"
    )]
    TooFast(u64),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Archive(#[from] ArchivingError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for MoveError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The row of `log_moves`.
#[derive(Debug)]
struct MoveRow {
    move_id: Uuid,
    side: String,
    other: String,
    is_frozen: bool,
    is_completed: bool,
}

/// The result of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The epoch that the target has begun, and its first position.
    pub epoch: Epoch,
    pub first_position: Position,
}

/// What the caller is shown while a log moves.
pub type Progress<'p> = &'p mut (dyn FnMut(Step) + Send);

/// A step of a move that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The number of events that were copied, of all that the source had.
    Copied {
        events: i64,
        of: i64,
    },
    /// All archived months have their event ids and streams.
    CopiedArchived,
    CopiedSnapshots,
    /// The source refuses all writes.
    Frozen,
}

/// A move in progress.
pub struct LogMove {
    source: Session,
    target: Session,
    move_id: Uuid,
    source_address: String,
    /// The move was completed by an earlier run, which could not record it.
    is_switched: bool,
}

impl LogMove {
    /// Begins a move, or continues one. From now on the source refuses erasures, and seals and archives no partition.
    pub async fn begin(source: &DatabaseConfig, target: &DatabaseConfig, new_id: Uuid) -> Result<Self, MoveError> {
        migrate::check(source).await?;
        let mut from = connect(source).await?;
        acquire_archive_lock(&mut from).await?;
        let found = read_move(&mut from).await?;
        if let Some(found) = &found {
            check_source(found)?;
            if found.other != target.address() {
                return Err(MoveError::OtherTarget(found.other.clone()));
            }
        }
        let mut to = connect(target).await?;
        check_target(&mut to, &mut from, found.as_ref()).await?;
        migrate::migrate(target).await?;
        let move_id = found.as_ref().map_or(new_id, |found| found.move_id);
        if found.is_none() {
            from.execute("BEGIN").await?;
            sqlx::query(BEGIN_MOVE).bind(move_id).bind("source").bind(target.address()).execute(&mut from).await?;
            from.execute("SELECT set_move_triggers(p_refused => 'history')").await?;
            from.execute("COMMIT").await?;
        }
        let is_switched = epoch_of(&mut to, move_id).await?.is_some();
        if !is_switched {
            claim_target(&mut to, move_id, &source.address()).await?;
        }
        Ok(Self { source: from, target: to, move_id, source_address: source.address(), is_switched })
    }

    /// Copies the events until the target is nearly as far as the source, which accepts appends meanwhile.
    pub async fn copy(&mut self, progress: Progress<'_>) -> Result<(), MoveError> {
        if self.is_switched {
            return Ok(());
        }
        self.copy_archived().await?;
        progress(Step::CopiedArchived);
        let mut copied = 0;
        for _ in 0..PASSES_MAX {
            copied = self.copy_events(progress).await?;
            if copied < LAST_PASS_EVENTS {
                break;
            }
        }
        if copied >= LAST_PASS_EVENTS {
            return Err(MoveError::TooFast(copied));
        }
        self.target.execute("BEGIN").await?;
        self.update_snapshots().await?;
        self.target.execute("COMMIT").await?;
        progress(Step::CopiedSnapshots);
        // The plans of the service do not depend on statistics, and those of operators do.
        self.target.execute("ANALYZE streams, event_ids").await?;
        Ok(())
    }

    /// Freezes the source, copies the rest, and lets the target take over. Returns its new epoch.
    ///
    /// If the rest cannot be copied, the source accepts appends again.
    pub async fn switch(mut self, progress: Progress<'_>) -> Result<Moved, MoveError> {
        self.freeze().await?;
        if !self.is_switched {
            progress(Step::Frozen);
            if let Err(error) = self.copy_rest(progress).await {
                self.unfreeze().await?;
                return Err(error);
            }
            // Without a response, the target may have taken over or not.
            self.target.execute("COMMIT").await.map_err(|error| MoveError::OutcomeUnknown(error.into()))?;
            self.source.execute("COMMIT").await?;
        }
        let completed = sqlx::query(COMPLETE_MOVE).bind(self.move_id).execute(&mut self.source).await?;
        if completed.rows_affected() != 1 {
            return Err(MoveError::NotInProgress);
        }
        let (epoch, first_position) =
            epoch_of(&mut self.target, self.move_id).await?.ok_or(MoveError::NotInProgress)?;
        self.source.close().await?;
        self.target.close().await?;
        Ok(Moved { epoch, first_position })
    }

    /// Makes the source refuse all writes.
    async fn freeze(&mut self) -> Result<(), MoveError> {
        let frozen = "UPDATE log_moves SET frozen_at = coalesce(frozen_at, clock_timestamp())";
        Ok(refuse(&mut self.source, "all", frozen).await?)
    }

    /// Makes the source accept writes again, except those that would change copied events. The target has not taken over,
    /// and its transaction ends with its connection.
    async fn unfreeze(mut self) -> Result<(), MoveError> {
        drop(self.target.execute("ROLLBACK").await);
        self.source.execute("ROLLBACK").await?;
        Ok(refuse(&mut self.source, "history", "UPDATE log_moves SET frozen_at = NULL").await?)
    }

    /// Copies the last events and the small tables. All of it is read in one snapshot of the source, because counts and
    /// partitions still change there. The locked row keeps another command from cancelling the move meanwhile.
    async fn copy_rest(&mut self, progress: Progress<'_>) -> Result<(), MoveError> {
        self.source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        self.source.execute("SELECT FROM log_moves FOR UPDATE").await?;
        self.copy_events(progress).await?;
        self.take_over().await
    }

    /// Closes the connections. The move can be continued.
    pub async fn close(self) -> Result<(), MoveError> {
        self.source.close().await?;
        Ok(self.target.close().await?)
    }

    /// Cancels a move whose target has not taken over: the source accepts writes again. The target can no longer take over.
    /// Returns its address.
    pub async fn cancel(source: &DatabaseConfig, target: Option<&DatabaseConfig>) -> Result<String, MoveError> {
        let mut session = connect(source).await?;
        acquire_archive_lock(&mut session).await?;
        let found = read_move(&mut session).await?.ok_or(MoveError::NotInProgress)?;
        check_source(&found)?;
        match target {
            Some(target) if target.address() != found.other => return Err(MoveError::OtherTarget(found.other)),
            Some(target) => abandon_target(target, found.move_id).await?,
            None if found.is_frozen => return Err(MoveError::CancelNeedsTarget),
            None => {}
        }
        refuse(&mut session, "none", "DELETE FROM log_moves").await?;
        session.close().await?;
        Ok(found.other)
    }

    /// Copies the event ids and the streams of archived months, whose events are in the archive, in one transaction.
    async fn copy_archived(&mut self) -> Result<(), MoveError> {
        // Months that are archived, and have no table any more.
        let archived = "SELECT FROM partitions p
                         WHERE p.archived_at IS NOT NULL
                           AND to_regclass(quote_ident(p.name)) IS NULL";
        let ids = format!(
            "SELECT i.* FROM event_ids i WHERE EXISTS ({archived} AND i.occurred_at >= p.starts_at AND i.occurred_at < p.ends_at)"
        );
        let streams = format!(
            "SELECT s.* FROM streams s WHERE EXISTS ({archived} AND s.first_occurred_at >= p.starts_at AND s.first_occurred_at < p.ends_at)"
        );
        let wanted = count(&mut self.source, &ids).await?;
        if wanted == 0 {
            return Ok(());
        }
        // The target has no partition of these months yet, so its ids of them are those without an event.
        let months = self.archived_months().await?;
        let in_months = |column: &str| {
            let ranges: Vec<_> =
                months.iter().map(|(from, to)| format!("{column} >= '{from}' AND {column} < '{to}'")).collect();
            ranges.join(" OR ")
        };
        let found = format!("SELECT i.* FROM event_ids i WHERE {}", in_months("i.occurred_at"));
        // They are copied in one transaction.
        if count(&mut self.target, &found).await? == wanted {
            return Ok(());
        }
        self.target.execute("BEGIN").await?;
        pipe::copy(&mut self.source, &ids, &mut self.target, "event_ids").await?;
        pipe::copy(&mut self.source, &streams, &mut self.target, "streams").await?;
        let found_streams = format!("SELECT s.* FROM streams s WHERE {}", in_months("s.first_occurred_at"));
        for (there, here, what) in [(&ids, &found, "event ids"), (&streams, &found_streams, "streams")] {
            self.compare(there, here, &format!("the {what} of archived months")).await?;
        }
        self.target.execute("COMMIT").await?;
        Ok(())
    }

    async fn archived_months(&mut self) -> Result<Vec<(String, String)>, MoveError> {
        let partitions = Partition::read_all(&mut self.source).await?;
        let archived = partitions.iter().filter(|partition| partition.archived_at.is_some() && !partition.has_table);
        Ok(archived.map(|partition| (partition.starts_at.to_rfc3339(), partition.ends_at.to_rfc3339())).collect())
    }

    /// Copies the events that the target does not have, with their ids and the streams that begin with them. Returns
    /// their number.
    async fn copy_events(&mut self, progress: Progress<'_>) -> Result<u64, MoveError> {
        let partitions = Partition::read_all(&mut self.source).await?;
        let mut ends = Vec::new();
        for partition in partitions.iter().filter(|partition| partition.has_table) {
            let table = quote_identifier(&partition.name);
            let end = last_position(&mut self.source, &table).await?;
            ends.push((partition, table, end));
        }
        let head = ends.iter().map(|(_, _, end)| *end).max().unwrap_or(0);
        let mut copied = 0;
        for (partition, table, end) in ends {
            sqlx::query("SELECT create_partition(p_at => $1)")
                .bind(partition.starts_at)
                .execute(&mut self.target)
                .await?;
            let mut after = last_position(&mut self.target, &table).await?;
            while after < end {
                if after == 0 {
                    after = first_position(&mut self.source, &table).await? - 1;
                }
                let to = end.min(after + CHUNK_POSITIONS);
                copied += self.copy_chunk(&table, after, to).await?;
                after = to;
                progress(Step::Copied { events: to, of: head });
            }
        }
        Ok(copied)
    }

    /// Copies the events of a partition after a position and up to another one, in one transaction, and compares them.
    async fn copy_chunk(&mut self, table: &str, after: Position, to: Position) -> Result<u64, MoveError> {
        let range = format!("e.global_position > {after} AND e.global_position <= {to}");
        let events = format!("SELECT e.* FROM {table} e WHERE {range} ORDER BY e.global_position");
        let ids = format!("SELECT i.* FROM {table} e JOIN event_ids i ON i.event_id = e.event_id WHERE {range}");
        let streams = format!(
            "SELECT s.* FROM {table} e JOIN streams s ON s.aggregate_type = e.aggregate_type \
                AND s.aggregate_id = e.aggregate_id WHERE {range} AND e.version = 1"
        );
        let mut copied = 0;
        self.target.execute("BEGIN").await?;
        for (query, into, what) in
            [(&events, table, "events"), (&ids, "event_ids", "ids"), (&streams, "streams", "streams")]
        {
            let rows = pipe::copy(&mut self.source, query, &mut self.target, into).await?;
            self.compare(query, query, &format!("the {what} of positions {} to {to}", after + 1)).await?;
            if into == table {
                copied = rows;
            }
        }
        self.target.execute("COMMIT").await?;
        Ok(copied)
    }

    /// Copies everything else to the target, compares it, and begins the target's epoch, in one transaction.
    async fn take_over(&mut self) -> Result<(), MoveError> {
        self.target.execute("BEGIN").await?;
        check_unused(&mut self.target).await?;
        // A count of the target would wait for it.
        self.target.execute("LOCK TABLE statistics IN ACCESS EXCLUSIVE MODE").await?;
        for table in SMALL_TABLES.iter().rev() {
            self.target.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await?;
        }
        for table in SMALL_TABLES {
            let rows = format!("SELECT * FROM {table}");
            pipe::copy(&mut self.source, &rows, &mut self.target, table).await?;
            self.compare(&rows, &rows, table).await?;
        }
        self.update_snapshots().await?;
        self.compare(SNAPSHOT_KEYS, SNAPSHOT_KEYS, "snapshots").await?;
        for sequence in SEQUENCES {
            let value: (i64, bool) =
                sqlx::query_as(AssertSqlSafe(format!("SELECT last_value, is_called FROM {sequence}")))
                    .fetch_one(&mut self.source)
                    .await?;
            sqlx::query("SELECT setval($1::regclass, $2, $3)")
                .bind(sequence)
                .bind(value.0)
                .bind(value.1)
                .execute(&mut self.target)
                .await?;
        }
        let end = "SELECT o.log_position, o.log_time FROM end_of_log() AS o";
        self.compare(end, end, "the end of the log").await?;
        self.target.execute("SELECT set_move_triggers(p_refused => 'none')").await?;
        sqlx::query("SELECT begin_epoch(p_reason => $1)")
            .bind(format!("moved from {} (move {})", self.source_address, self.move_id))
            .execute(&mut self.target)
            .await?;
        self.target.execute("DELETE FROM log_moves").await?;
        Ok(())
    }

    /// Replaces the snapshots that differ. While the source is frozen, none changes.
    async fn update_snapshots(&mut self) -> Result<(), MoveError> {
        self.target
            .execute("CREATE TEMPORARY TABLE source_snapshots ON COMMIT DROP AS SELECT aggregate_type, aggregate_id, version, created_at FROM snapshots WITH NO DATA")
            .await?;
        pipe::copy(&mut self.source, SNAPSHOT_KEYS, &mut self.target, "source_snapshots").await?;
        let same = "s.aggregate_type = k.aggregate_type AND s.aggregate_id = k.aggregate_id AND s.version = k.version \
                    AND s.created_at = k.created_at";
        self.target
            .execute(AssertSqlSafe(format!(
                "DELETE FROM snapshots s WHERE NOT EXISTS (SELECT FROM source_snapshots k WHERE {same})"
            )))
            .await?;
        let oldest_missing: Option<chrono::DateTime<chrono::Utc>> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT min(k.created_at) FROM source_snapshots k WHERE NOT EXISTS (SELECT FROM snapshots s WHERE {same})"
        )))
        .fetch_one(&mut self.target)
        .await?;
        if let Some(oldest) = oldest_missing {
            let since = format!("created_at >= '{}'", oldest.to_rfc3339());
            self.target.execute(AssertSqlSafe(format!("DELETE FROM snapshots WHERE {since}"))).await?;
            let missing = format!("SELECT * FROM snapshots WHERE {since}");
            pipe::copy(&mut self.source, &missing, &mut self.target, "snapshots").await?;
        }
        Ok(())
    }

    /// Returns an error unless a query of the source and one of the target have the same rows.
    async fn compare(&mut self, there: &str, here: &str, what: &str) -> Result<(), MoveError> {
        let (there, here) = (Digest::of(&mut self.source, there).await?, Digest::of(&mut self.target, here).await?);
        if there == here { Ok(()) } else { Err(MoveError::Differs(what.to_owned())) }
    }
}

/// Connects as the owner of the tables. PostgreSQL ends the session of a command that has vanished after a minute, and its
/// commits are on the disk, like those of the writer.
async fn connect(config: &DatabaseConfig) -> Result<Session, MoveError> {
    let mut session = Connector::new(config).login().await?;
    session.execute(MOVE_SETTINGS).await?;
    Ok(session)
}

/// Changes which writes the source refuses, and its record of the move, in one transaction.
async fn refuse(source: &mut Session, refused: &str, record: &'static str) -> Result<(), sqlx::Error> {
    source.execute("BEGIN").await?;
    sqlx::query("SELECT set_move_triggers(p_refused => $1)").bind(refused).execute(&mut *source).await?;
    source.execute(record).await?;
    source.execute("COMMIT").await?;
    Ok(())
}

/// Returns an error unless this database is the source of a move that is not complete.
fn check_source(found: &MoveRow) -> Result<(), MoveError> {
    match found.side.as_str() {
        "target" => Err(MoveError::IsTarget),
        _ if found.is_completed => Err(MoveError::Completed(found.other.clone())),
        _ => Ok(()),
    }
}

async fn read_move(session: &mut Session) -> Result<Option<MoveRow>, sqlx::Error> {
    type Row = (Uuid, String, String, bool, bool);
    let row: Option<Row> = sqlx::query_as(LOG_MOVE).fetch_optional(session).await?;
    Ok(row.map(|(move_id, side, other, is_frozen, is_completed)| MoveRow {
        move_id,
        side,
        other,
        is_frozen,
        is_completed,
    }))
}

/// Returns the epoch that the target of a move has begun; `None` if the move is not complete.
async fn epoch_of(target: &mut Session, move_id: Uuid) -> Result<Option<(Epoch, Position)>, sqlx::Error> {
    sqlx::query_as(EPOCH_OF_MOVE).bind(move_id).fetch_optional(target).await
}

/// Returns an error unless a database can be the target of a move: it is empty, or is the target already. Changes nothing.
async fn check_target(target: &mut Session, source: &mut Session, found: Option<&MoveRow>) -> Result<(), MoveError> {
    let has_tables = "SELECT to_regclass('event_ids') IS NOT NULL AND to_regclass('log_moves') IS NOT NULL";
    if !sqlx::query_scalar(has_tables).fetch_one(&mut *target).await? {
        let is_older = "SELECT to_regclass('event_ids') IS NOT NULL";
        return if sqlx::query_scalar(is_older).fetch_one(target).await? {
            Err(MoveError::TargetInUse)
        } else {
            Ok(())
        };
    }
    if let Some(found) = found
        && (read_move(target).await?.is_some_and(|there| there.move_id == found.move_id && there.side == "target")
            || epoch_of(target, found.move_id).await?.is_some())
    {
        return Ok(());
    }
    const NAMESPACE: &str = "SELECT id_namespace::text FROM store_secrets";
    let (here, there): (String, String) =
        (target.fetch_one(NAMESPACE).await?.try_get(0)?, source.fetch_one(NAMESPACE).await?.try_get(0)?);
    if here == there {
        return Err(MoveError::SameDatabase);
    }
    if is_used(target).await? || read_move(target).await?.is_some() {
        return Err(MoveError::TargetInUse);
    }
    Ok(())
}

async fn is_used(target: &mut Session) -> Result<bool, sqlx::Error> {
    const USED: &str = "SELECT EXISTS (SELECT FROM event_ids)
                            OR EXISTS (SELECT FROM projection_positions)
                            OR EXISTS (SELECT FROM reducers)
                            OR EXISTS (SELECT FROM api_keys)";
    sqlx::query_scalar(USED).fetch_one(target).await
}

/// Makes an empty database the target of a move: it refuses all writes but those of the move.
async fn claim_target(target: &mut Session, move_id: Uuid, source_address: &str) -> Result<(), MoveError> {
    if read_move(target).await?.is_none() {
        check_unused(target).await?;
        target.execute("BEGIN").await?;
        sqlx::query(BEGIN_MOVE).bind(move_id).bind("target").bind(source_address).execute(&mut *target).await?;
        target.execute("SELECT set_move_triggers(p_refused => 'all')").await?;
        // Nothing is written since the triggers exist.
        if is_used(target).await? {
            return Err(MoveError::TargetInUse);
        }
        target.execute("COMMIT").await?;
    }
    sqlx::query("SELECT set_config('annals.move', $1, false)").bind(move_id.to_string()).execute(target).await?;
    Ok(())
}

/// Returns an error if instances of the service are connected to the target: they have read the secret of another log.
async fn check_unused(target: &mut Session) -> Result<(), MoveError> {
    const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity
                             WHERE datname = current_database()
                               AND application_name = 'annals'
                               AND pid <> pg_backend_pid()";
    match sqlx::query_scalar(SESSIONS).fetch_one(target).await? {
        0_i64 => Ok(()),
        sessions => Err(MoveError::TargetServed(sessions)),
    }
}

/// Takes the right to take over from a target. Fails if it has taken over.
async fn abandon_target(target: &DatabaseConfig, move_id: Uuid) -> Result<(), MoveError> {
    let mut session = connect(target).await?;
    session.execute("BEGIN").await?;
    sqlx::query("DELETE FROM log_moves WHERE move_id = $1 AND side = 'target'")
        .bind(move_id)
        .execute(&mut session)
        .await?;
    if epoch_of(&mut session, move_id).await?.is_some() {
        return Err(MoveError::TakenOver);
    }
    session.execute("COMMIT").await?;
    Ok(session.close().await?)
}

async fn count(session: &mut Session, query: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM ({query}) AS r"))).fetch_one(session).await
}

async fn last_position(session: &mut Session, table: &str) -> Result<Position, sqlx::Error> {
    let statement = format!("SELECT coalesce(max(global_position), 0) FROM {table}");
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(session).await
}

async fn first_position(session: &mut Session, table: &str) -> Result<Position, sqlx::Error> {
    let statement = format!("SELECT coalesce(min(global_position), 1) FROM {table}");
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(session).await
}
