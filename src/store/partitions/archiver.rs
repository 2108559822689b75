//! Archiving: a sealed partition moves from the database to the archive.
//!
//! Each step is recorded in the catalogue, so another process can resume after a crash:
//!
//! ```text
//! record archived_to ── write files and manifest ── read back, compare ── record archived_at ── detach ── drop table
//! ```
//!
//! Readers use the database before `archived_at` is set, and the archive afterwards. While both have the partition, the
//! copies are equal, except for content that was erased meanwhile. One process at a time archives or restores, and holds
//! the advisory lock (events, 3) on its connection.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Executor};

use crate::archive::digest::EventDigest;
use crate::archive::error::ArchiveError;
use crate::archive::group::EventGroup;
use crate::archive::manifest::{FileManifest, Manifest, Order, PartitionFacts};
use crate::archive::partition::ArchivedPartition;
use crate::archive::place::Archive;
use crate::clock::Clock;
use crate::domain::event::{Position, StoredEvent};
use crate::store::connection::session::Session;
use crate::store::error::{DatabaseError, LOCK_NOT_AVAILABLE, StoreError, has_sqlstate};
use crate::store::partitions::partition::Partition;
use crate::store::primary::Primary;
use crate::store::reader::Reader;
use crate::store::row::event_from_row;

const ARCHIVE_BEGIN: &str = include_str!("../sql/archive_begin.sql");
const ARCHIVE_COMPLETE: &str = include_str!("../sql/archive_complete.sql");
const PARTITION_BY_POSITION: &str = include_str!("../sql/partition_by_position.sql");
const PARTITION_BY_AGGREGATE: &str = include_str!("../sql/partition_by_aggregate.sql");
const PROJECTIONS_BEHIND: &str = include_str!("../sql/projections_behind.sql");

/// Why a partition is not archived or not restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchivingError {
    #[error("another process archives, restores, verifies or moves the log at this moment: try again later")]
    Busy,
    #[error("no archive is configured: set ARCHIVE_URL to a folder, or to s3://…, gs://… or az://…")]
    NoArchive,
    #[error(
        "these projections have not passed the partition: {0}. Wait for them, or DELETE the projections that are no \
         longer used"
    )]
    ProjectionsBehind(String),
    #[error("the statistics do not include {0} yet: try again in a moment")]
    NotCounted(String),
    #[error(
        "a transaction that began before {0} was archived still uses its table. Readers use the archive now, and the \
         next run drops the table"
    )]
    StillUsed(String),
    #[error("a transaction that uses {0} is open for longer than a moment: end it, or try again later")]
    InUse(String),
    #[error("this login does not own the tables: run `annals erasures run` as their owner")]
    NotOwner,
    #[error("no partition {0} is archived")]
    NotArchived(String),
    /// The data read back, or the data in the database, is not what it must be.
    #[error("{partition} was not changed: {what}")]
    Differs { partition: String, what: String },
    #[error("{}", with_remedy(.0))]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Describes an error of the archive. If the object store failed, the description says what to do.
fn with_remedy(error: &ArchiveError) -> String {
    match error {
        ArchiveError::Store(_) => {
            format!("{error}. No event is lost: check the object store, ARCHIVE_URL and its credentials, and try again")
        }
        _ => error.to_string(),
    }
}

impl From<sqlx::Error> for ArchivingError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Which partitions a plan includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// All but those that were restored from the archive.
    NeverRestored,
    All,
}

/// The work of an archiver.
#[derive(Debug, Default)]
pub struct ArchivePlan {
    /// Partitions to archive, oldest first.
    pub partitions: Vec<Partition>,
    /// Partitions that are archived, and whose tables must still be dropped.
    pub leftovers: Vec<Partition>,
}

/// A function that is called with the number of events that were written or read back. In total, archiving reports each
/// event of a partition four times.
pub type Progress<'p> = &'p (dyn Fn(u64) + Sync);

/// A connection that archives and restores.
pub struct Archiver {
    pub(super) connection: Session,
    pub(super) archive: Arc<Archive>,
    clock: Clock,
}

impl Reader {
    /// Returns the catalogue of partitions, oldest first.
    pub async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        Ok(Partition::read_all(&mut *self.acquire().await?).await?)
    }

    /// Returns an error if partitions are archived and the configured archive does not have them. A service must be
    /// able to read all events, and the next partition must not be written to another archive. An archive that does not
    /// respond is only reported in the log, because it may respond later. So is a damaged partition: the service reads
    /// everything else.
    pub async fn check_archive(&self) -> Result<(), StoreError> {
        let partitions = self.partitions().await?;
        let Some(newest) = partitions.iter().rev().find_map(Partition::archived) else { return Ok(()) };
        match self.archive()?.has(&newest).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::ArchiveUnavailable(format!(
                "the database says that {} is archived, and ARCHIVE_URL does not have it: is it another place, or not \
                 mounted?",
                newest.folder
            ))),
            Err(error) if error.is_damage() => {
                self.report_damage(&newest, &error);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "the archive cannot be read; requests for archived events fail until it can");
                Ok(())
            }
        }
    }
}

impl Primary {
    /// Connects as the owner of the tables, and acquires the lock of archivers.
    pub async fn archiver(&self) -> Result<Archiver, ArchivingError> {
        let archive = self.archive.clone().ok_or(ArchivingError::NoArchive)?;
        let mut connection = self.connector.login().await?;
        lock_archive(&mut connection).await?;
        self.check_archive().await?;
        // Appends and reads must not wait for long behind a statement of the archiver.
        connection.execute("SET lock_timeout = '10s'").await?;
        Ok(Archiver { connection, archive, clock: self.clock.clone() })
    }
}

impl Archiver {
    /// Returns the partitions whose month ended before a time, and the rest of the work of an interrupted run.
    pub async fn plan(&mut self, before: DateTime<Utc>, include: Include) -> Result<ArchivePlan, ArchivingError> {
        let mut plan = ArchivePlan::default();
        for partition in Partition::read_all(&mut self.connection).await? {
            if partition.archived_at.is_some() && partition.has_table {
                plan.leftovers.push(partition);
            } else if partition.archived_at.is_none()
                && partition.ends_at <= before
                && partition.facts().is_some()
                && (include == Include::All || partition.restored_at.is_none())
            {
                plan.partitions.push(partition);
            }
        }
        Ok(plan)
    }

    /// Returns an error unless every projection has passed the partition, and its events are counted.
    pub async fn check(&mut self, partition: &Partition) -> Result<(), ArchivingError> {
        let Some(facts) = partition.facts() else { return Ok(()) };
        let behind: Vec<String> =
            sqlx::query_scalar(PROJECTIONS_BEHIND).bind(facts.last_position).fetch_all(&mut self.connection).await?;
        if !behind.is_empty() {
            return Err(ArchivingError::ProjectionsBehind(first_names(&behind)));
        }
        let counted: Position =
            sqlx::query_scalar("SELECT as_of_position FROM statistics").fetch_one(&mut self.connection).await?;
        if counted < facts.last_position {
            return Err(ArchivingError::NotCounted(partition.name.clone()));
        }
        Ok(())
    }

    /// Moves a partition to the archive. Returns its manifest.
    pub async fn archive(&mut self, partition: &Partition, progress: Progress<'_>) -> Result<Manifest, ArchivingError> {
        self.check(partition).await?;
        let facts = partition.facts().ok_or_else(|| differs(partition, "it is not sealed, or has no events"))?;
        let folder: Option<String> = sqlx::query_scalar(ARCHIVE_BEGIN)
            .bind(partition.starts_at)
            .bind(partition.starts_at.format("%Y-%m").to_string())
            .fetch_optional(&mut self.connection)
            .await?;
        let folder = folder.ok_or_else(|| differs(partition, "another process has archived it"))?;

        let mut files = Vec::new();
        let mut digests = Vec::new();
        for order in Order::ALL {
            let (file, digest) = self.write(&folder, partition, &facts, order, progress).await?;
            files.push(file);
            digests.push(digest);
        }
        let manifest = Manifest::new(&facts, digests[0].clone(), files, self.clock.now());
        let manifest_sha256 = self.archive.put_manifest(&folder, &manifest).await?;
        let archived = ArchivedPartition { name: partition.name.clone(), folder, manifest_sha256 };
        if self.archive.manifest(&archived).await? != manifest {
            return Err(differs(partition, "its manifest is not what was written"));
        }
        // The files are read back in the same way in which readers will read them.
        for ((order, file), digest) in Order::ALL.iter().zip(&manifest.files).zip(&digests) {
            read_back(&self.archive, &archived, *order, file, digest, progress).await?;
        }
        let recorded = sqlx::query(ARCHIVE_COMPLETE)
            .bind(partition.starts_at)
            .bind(archived.folder)
            .bind(archived.manifest_sha256)
            .execute(&mut self.connection)
            .await?;
        if recorded.rows_affected() != 1 {
            return Err(differs(partition, "the catalogue has changed in the meantime"));
        }
        self.drop_table(partition).await?;
        Ok(manifest)
    }

    /// Writes the events of a partition as one file, in one order. Returns the file, and the digest of the events as
    /// the database returned them.
    async fn write(
        &mut self,
        folder: &str,
        partition: &Partition,
        facts: &PartitionFacts,
        order: Order,
        progress: Progress<'_>,
    ) -> Result<(FileManifest, String), ArchivingError> {
        let statement = match order {
            Order::Position => PARTITION_BY_POSITION,
            Order::Aggregate => PARTITION_BY_AGGREGATE,
        };
        let mut file = self.archive.create(folder, order);
        let mut digest = EventDigest::default();
        let mut totals = Totals::default();
        let mut rows =
            sqlx::query(statement).bind(partition.starts_at).bind(partition.ends_at).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await? {
            let event = event_from_row(&row)?;
            digest.add(&event);
            totals.add(&event);
            if file.push(&event) {
                file.flush().await?;
            }
            progress(1);
        }
        drop(rows);
        totals.compare(facts).map_err(|what| differs(partition, what))?;
        Ok((file.finish().await?, digest.finish()))
    }

    /// Detaches an archived partition and drops its table; see [`drop_archived_table`].
    pub async fn drop_table(&mut self, partition: &Partition) -> Result<(), ArchivingError> {
        drop_archived_table(&mut self.connection, &self.archive, partition).await
    }

    /// Releases the lock, and closes the connection.
    pub async fn close(mut self) -> Result<(), ArchivingError> {
        // PostgreSQL releases the lock of a closed connection a moment later, and the next archiver could fail to
        // acquire it.
        self.connection.execute("SELECT pg_advisory_unlock('events'::regclass::oid::integer, 3)").await?;
        Ok(self.connection.close().await?)
    }
}

/// Reads a file back, and compares its bytes and its events with what was written.
pub(in crate::store) async fn read_back(
    archive: &Archive,
    archived: &ArchivedPartition,
    order: Order,
    file: &FileManifest,
    digest: &str,
    progress: Progress<'_>,
) -> Result<(), ArchivingError> {
    let failed = |what: String| ArchivingError::Differs { partition: archived.name.clone(), what };
    if archive.file_digest(&archived.folder, order).await? != (file.sha256.clone(), file.bytes) {
        return Err(failed(format!("{} is not what was written", file.name)));
    }
    let read = events_digest(archive, archived, order, progress).await?;
    if read == digest { Ok(()) } else { Err(failed(format!("the events of {} are not those written", file.name))) }
}

/// Detaches an archived partition and drops its table. Resumes at the step at which an earlier run was interrupted.
pub(in crate::store) async fn drop_archived_table(
    connection: &mut Session,
    archive: &Archive,
    partition: &Partition,
) -> Result<(), ArchivingError> {
    let partitions = Partition::read_all(connection).await?;
    let current = partitions.into_iter().find(|current| current.name == partition.name);
    let current = current.ok_or_else(|| differs(partition, "it is no longer in the catalogue"))?;
    // This is the last check before the only copy is in the archive.
    let archived = current.archived().ok_or_else(|| differs(partition, "it is not archived"))?;
    if !archive.is_complete(&archived).await? {
        let folder = archived.folder;
        return Err(differs(partition, format!("{folder} is not in the archive as it was written")));
    }
    let name = quote_identifier(&current.name);
    if current.detach_pending {
        alter(connection, &current, format!("ALTER TABLE events DETACH PARTITION {name} FINALIZE")).await?;
    } else if current.is_attached {
        alter(connection, &current, format!("ALTER TABLE events DETACH PARTITION {name} CONCURRENTLY")).await?;
    }
    if current.has_table {
        alter(connection, &current, format!("DROP TABLE {name}")).await?;
    }
    Ok(())
}

/// Runs a statement on a partition's table. DETACH CONCURRENTLY waits for every transaction that has used the table, and
/// blocks no other.
pub(super) async fn alter(
    connection: &mut Session,
    partition: &Partition,
    statement: String,
) -> Result<(), ArchivingError> {
    match connection.execute(AssertSqlSafe(statement)).await.map_err(DatabaseError::from) {
        Ok(_) => Ok(()),
        Err(error) if has_sqlstate(&error, LOCK_NOT_AVAILABLE) => {
            Err(ArchivingError::StillUsed(partition.name.clone()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Creates a table for the events of a partition, beside the table that the partition may have. Returns its name.
pub(in crate::store) async fn create_table_beside(
    connection: &mut Session,
    partition: &Partition,
) -> Result<String, ArchivingError> {
    let name: String = sqlx::query_scalar("SELECT $1 || '_' || left(md5(gen_random_uuid()::text), 8)")
        .bind(&partition.name)
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query("SELECT create_partition_table($1)").bind(&name).execute(connection).await?;
    Ok(name)
}

/// Acquires the lock of archivers, unless the log is moving. The connection holds it until it is closed.
pub(in crate::store) async fn lock_archive(connection: &mut Session) -> Result<(), ArchivingError> {
    acquire_archive_lock(connection).await?;
    let moves = sqlx::query_scalar("SELECT EXISTS (SELECT FROM log_moves WHERE completed_at IS NULL)")
        .fetch_one(connection)
        .await?;
    if moves { Err(ArchivingError::Busy) } else { Ok(()) }
}

/// Acquires the lock of archivers. The connection holds it until it is closed.
pub(in crate::store) async fn acquire_archive_lock(connection: &mut Session) -> Result<(), ArchivingError> {
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock('events'::regclass::oid::integer, 3)")
        .fetch_one(connection)
        .await?;
    if locked { Ok(()) } else { Err(ArchivingError::Busy) }
}

/// Returns the error for data that is not what it must be.
pub(in crate::store) fn differs(partition: &Partition, what: impl Into<String>) -> ArchivingError {
    ArchivingError::Differs { partition: partition.name.clone(), what: what.into() }
}

/// The totals of the rows of a partition, to compare with the catalogue.
#[derive(Default)]
struct Totals {
    events: u64,
    positions: Option<(Position, Position)>,
    times: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Totals {
    fn add(&mut self, event: &StoredEvent<'_>) {
        fn extend<T: Ord + Copy>(bounds: Option<(T, T)>, value: T) -> Option<(T, T)> {
            Some(bounds.map_or((value, value), |(lowest, highest)| (lowest.min(value), highest.max(value))))
        }
        self.events += 1;
        self.positions = extend(self.positions, event.global_position);
        self.times = extend(self.times, event.occurred_at);
    }

    fn describe(&self) -> String {
        let ((first, last), (from, to)) = (self.positions.unwrap_or_default(), self.times.unwrap_or_default());
        format!("positions {first} to {last} ({} in all) and times {from} to {to}", self.events)
    }

    fn compare(&self, facts: &PartitionFacts) -> Result<(), String> {
        let positions = Some((facts.first_position, facts.last_position));
        let times = Some((facts.first_occurred_at, facts.last_occurred_at));
        if (self.events, self.positions, self.times) == (facts.events, positions, times) {
            return Ok(());
        }
        let catalogue = Self { events: facts.events, positions, times };
        Err(format!("its table has {}, and the catalogue has {}", self.describe(), catalogue.describe()))
    }
}

/// Passes the events of a row group to `visit`, in order.
pub(in crate::store) fn each_event(
    group: &EventGroup,
    mut visit: impl FnMut(&StoredEvent<'_>),
) -> Result<(), ArchiveError> {
    (0..group.len()).try_for_each(|at| {
        visit(&group.event(at)?);
        Ok(())
    })
}

/// Computes the digest of the events in a partition's file.
pub(in crate::store) async fn events_digest(
    archive: &Archive,
    partition: &ArchivedPartition,
    order: Order,
    progress: Progress<'_>,
) -> Result<String, ArchivingError> {
    let mut digest = EventDigest::default();
    for n in archive.groups(partition, order).await? {
        let group = archive.group(partition, order, n).await?;
        each_event(&group, |event| digest.add(event))?;
        progress(group.len() as u64);
    }
    Ok(digest.finish())
}

/// Quotes a name for a statement.
pub(in crate::store) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the first names as a list, and the number of the others: there may be thousands of projections.
fn first_names(names: &[String]) -> String {
    const NAMES_MAX: usize = 10;
    let (first, others) = names.split_at(names.len().min(NAMES_MAX));
    let first = first.join(", ");
    if others.is_empty() { first } else { format!("{first} and {} more", others.len()) }
}
