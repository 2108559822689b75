//! Removes the bytes of erased content from the files of the tables and of the archive.
//!
//! An UPDATE leaves the former row in its page, and VACUUM does not overwrite it. So a table with erased rows is replaced
//! by a copy: the rows are copied while appends continue, and a short transaction copies the last ones and exchanges the
//! two tables. The files of an archived partition are written again, into a new folder. The steps are repeatable: after
//! a crash, the next run drops what was left, and begins again.
//!
//! Invariant: `removed_at` is recorded only after the former table and the former folders are gone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Executor};

use crate::archive::digest::EventDigest;
use crate::archive::manifest::{FileManifest, Manifest, Order};
use crate::archive::partition::ArchivedPartition;
use crate::archive::place::Archive;
use crate::clock::Clock;
use crate::domain::erasure::ErasureNo;
use crate::domain::event::Position;
use crate::mutants;
use crate::store::connection::session::Session;
use crate::store::erasures::masks::Masks;
use crate::store::error::{DatabaseError, LOCK_NOT_AVAILABLE, has_sqlstate};
use crate::store::partitions::archiver::{
    ArchivingError, Progress, create_table_beside, differs, drop_archived_table, each_event, lock_archive,
    quote_identifier, read_back,
};
use crate::store::partitions::partition::Partition;
use crate::store::primary::Primary;

const LAST_HIDDEN_ERASURE: &str = include_str!("../sql/last_hidden_erasure.sql");
const ERASURE_MONTHS_PENDING: &str = include_str!("../sql/erasure_months_pending.sql");
const LEFTOVER_TABLES: &str = include_str!("../sql/leftover_tables.sql");
const FORMER_FOLDERS: &str = include_str!("../sql/former_folders.sql");
const NOTE_FORMER_FOLDER: &str = include_str!("../sql/note_former_folder.sql");
const DELETE_FORMER_FOLDER: &str = include_str!("../sql/delete_former_folder.sql");
const ARCHIVE_REPLACE: &str = include_str!("../sql/archive_replace.sql");
const REPLACE_PARTITION_TABLE: &str = include_str!("../sql/replace_partition_table.sql");
const RECORD_MONTH_REMOVED: &str = include_str!("../sql/record_month_removed.sql");
const REWRITE_SNAPSHOTS: &str = include_str!("../sql/rewrite_snapshots.sql");
const OWNS_EVENTS: &str = include_str!("../sql/owns_events.sql");
const SESSIONS_USING_TABLE: &str = include_str!("../sql/sessions_using_table.sql");
const RECORD_REMOVED: &str = include_str!("../sql/record_removed.sql");

/// The number of rows that one statement copies. The copy is exchanged with the table when a statement has copied fewer
/// than the second number.
const COPY_ROWS: i64 = 50_000;
const COPIED_ROWS_NEAR_END: i64 = 500;
/// Every other lock is waited for this long.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '10s'";
/// A transaction that uses a table for longer than this is a long one, like that of a dump. The exchange would wait for
/// it, and appends behind the exchange.
const MOMENT: Duration = Duration::from_millis(100);
/// The time for which the remover waits for such a transaction before it begins a copy.
const BEGIN_FOR: Duration = Duration::from_secs(5);
/// PostgreSQL ends an autovacuum for which a session waits longer than deadlock_timeout, which is 1 s by default.
const VACUUM_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '5s'";
/// Appends and reads wait at most this long behind the exchange, which is tried again for a time.
const EXCHANGE_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";
const EXCHANGE_FOR: Duration = Duration::from_secs(60);
const EXCHANGE_PAUSE: Duration = Duration::from_millis(500);

/// What a run has removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Removed {
    /// The number of months that were written again.
    pub months: usize,
    /// The number of erasures whose content no file has any more.
    pub erasures: u64,
}

/// A connection that removes erased content.
pub struct Remover {
    connection: Session,
    archive: Option<Arc<Archive>>,
    clock: Clock,
}

impl Primary {
    /// Connects as the owner of the tables, and acquires the lock of archivers.
    pub async fn remover(&self) -> Result<Remover, ArchivingError> {
        let mut connection = self.connector.login().await?;
        if !sqlx::query_scalar::<_, bool>(OWNS_EVENTS).fetch_one(&mut connection).await? {
            return Err(ArchivingError::NotOwner);
        }
        lock_archive(&mut connection).await?;
        connection.execute(LOCK_TIMEOUT).await?;
        Ok(Remover { connection, archive: self.archive.clone(), clock: self.clock.clone() })
    }
}

impl Remover {
    /// Removes the content of all erasures that are hidden. A month that cannot be written again does not hold up the
    /// others. Returns the first error after all of them.
    pub async fn run(&mut self, progress: Progress<'_>) -> Result<Removed, ArchivingError> {
        self.drop_leftover_tables().await?;
        let last: Option<ErasureNo> = sqlx::query_scalar(LAST_HIDDEN_ERASURE).fetch_one(&mut self.connection).await?;
        let Some(last) = last else { return Ok(Removed::default()) };
        let months: Vec<(DateTime<Utc>, ErasureNo)> =
            sqlx::query_as(ERASURE_MONTHS_PENDING).bind(last).fetch_all(&mut self.connection).await?;
        let (mut removed, mut failed) = (Removed::default(), None);
        for (starts_at, last_of_month) in months {
            match self.remove_from_month(starts_at, last_of_month, progress).await {
                Ok(()) => removed.months += 1,
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        self.rewrite_snapshots().await?;
        removed.erasures = sqlx::query(RECORD_REMOVED).bind(last).execute(&mut self.connection).await?.rows_affected();
        failed.map_or(Ok(removed), Err)
    }

    /// Releases the lock, and closes the connection.
    pub async fn close(mut self) -> Result<(), ArchivingError> {
        self.connection.execute("SELECT pg_advisory_unlock('events'::regclass::oid::integer, 3)").await?;
        Ok(self.connection.close().await?)
    }

    /// Returns whether a transaction uses a table, or the log, for longer than a moment.
    async fn is_used_for_long(&mut self, table: &str) -> Result<bool, ArchivingError> {
        let first: HashSet<String> = self.sessions_using(table).await?.into_iter().collect();
        if first.is_empty() {
            return Ok(false);
        }
        tokio::time::sleep(MOMENT).await;
        Ok(self.sessions_using(table).await?.iter().any(|session| first.contains(session)))
    }

    async fn sessions_using(&mut self, table: &str) -> Result<Vec<String>, ArchivingError> {
        Ok(sqlx::query_scalar(SESSIONS_USING_TABLE).bind(table).fetch_all(&mut self.connection).await?)
    }

    /// Drops the tables of interrupted runs, which may have erased content.
    async fn drop_leftover_tables(&mut self) -> Result<(), ArchivingError> {
        let tables: Vec<String> = sqlx::query_scalar(LEFTOVER_TABLES).fetch_all(&mut self.connection).await?;
        for table in tables {
            self.drop_table(&table).await?;
        }
        Ok(())
    }

    async fn drop_table(&mut self, table: &str) -> Result<(), ArchivingError> {
        self.connection.execute(AssertSqlSafe(format!("DROP TABLE {}", quote_identifier(table)))).await?;
        Ok(())
    }

    async fn remove_from_month(
        &mut self,
        starts_at: DateTime<Utc>,
        last: ErasureNo,
        progress: Progress<'_>,
    ) -> Result<(), ArchivingError> {
        let partitions = Partition::read_all(&mut self.connection).await?;
        let partition = partitions.into_iter().find(|partition| partition.starts_at == starts_at);
        let Some(partition) = partition else {
            let month = starts_at.format("events_%Y_%m").to_string();
            return Err(ArchivingError::Differs { partition: month, what: "it is not in the catalogue".to_owned() });
        };
        match partition.archived() {
            Some(archived) => {
                let archive = self.archive()?;
                if partition.has_table {
                    drop_archived_table(&mut self.connection, &archive, &partition).await?;
                }
                self.rewrite_archived(&archive, &partition, &archived, progress).await?;
            }
            None if mutants::is(mutants::VACUUM_INSTEAD_OF_REWRITE) => {
                let vacuum = format!("VACUUM (FREEZE) {}", quote_identifier(&partition.name));
                self.connection.execute(AssertSqlSafe(vacuum)).await?;
            }
            None => self.rewrite_table(&partition, last, progress).await?,
        }
        self.delete_former_folders(starts_at).await?;
        sqlx::query(RECORD_MONTH_REMOVED).bind(starts_at).bind(last).execute(&mut self.connection).await?;
        Ok(())
    }

    fn archive(&self) -> Result<Arc<Archive>, ArchivingError> {
        self.archive.clone().ok_or(ArchivingError::NoArchive)
    }

    /// Deletes the folders of a month that no reader uses any more.
    async fn delete_former_folders(&mut self, starts_at: DateTime<Utc>) -> Result<(), ArchivingError> {
        let folders: Vec<String> =
            sqlx::query_scalar(FORMER_FOLDERS).bind(starts_at).fetch_all(&mut self.connection).await?;
        for folder in folders {
            self.archive()?.delete(&folder).await?;
            sqlx::query(DELETE_FORMER_FOLDER).bind(folder).execute(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Rewrites the snapshots: deleted rows stay in their pages. Loads wait meanwhile, appends do not.
    async fn rewrite_snapshots(&mut self) -> Result<(), ArchivingError> {
        self.connection.execute("BEGIN").await?;
        self.connection.execute("SET LOCAL lock_timeout = '1s'").await?;
        let rewritten = match self.connection.execute(REWRITE_SNAPSHOTS).await.map_err(DatabaseError::from) {
            Err(error) if has_sqlstate(&error, LOCK_NOT_AVAILABLE) => {
                Err(ArchivingError::InUse("snapshots".to_owned()))
            }
            rewritten => rewritten.map_err(ArchivingError::from),
        };
        self.connection.end_transaction(rewritten).await?;
        self.connection.execute("ANALYZE snapshots").await?;
        Ok(())
    }
}

/// The table of a partition.
impl Remover {
    /// Replaces the table of a partition by a copy.
    async fn rewrite_table(
        &mut self,
        partition: &Partition,
        last: ErasureNo,
        progress: Progress<'_>,
    ) -> Result<(), ArchivingError> {
        let deadline = Instant::now() + BEGIN_FOR;
        while self.is_used_for_long(&partition.name).await? {
            if Instant::now() > deadline {
                return Err(ArchivingError::InUse(partition.name.clone()));
            }
        }
        let copy = create_table_beside(&mut self.connection, partition).await?;
        let replaced = self.copy_and_exchange(partition, &copy, last, progress).await;
        // It is the former table, or the copy if it was not exchanged.
        self.drop_table(&copy).await?;
        replaced?;
        self.connection.execute(AssertSqlSafe(format!("ANALYZE {}", quote_identifier(&partition.name)))).await?;
        Ok(())
    }

    async fn copy_and_exchange(
        &mut self,
        partition: &Partition,
        copy: &str,
        last: ErasureNo,
        progress: Progress<'_>,
    ) -> Result<(), ArchivingError> {
        let bounds = format!(
            "ALTER TABLE {} ADD CONSTRAINT annals_bounds CHECK (occurred_at >= '{}' AND occurred_at < '{}')",
            quote_identifier(copy),
            partition.starts_at.to_rfc3339(),
            partition.ends_at.to_rfc3339(),
        );
        self.connection.execute(AssertSqlSafe(bounds)).await?;
        let mut copied_to = self.copy_rows(partition, copy, 0, progress).await?;
        self.compare(partition, copy, copied_to, last).await?;
        let deadline = Instant::now() + EXCHANGE_FOR;
        while self.is_used_for_long(&partition.name).await? || !self.exchange(partition, copy, copied_to, last).await? {
            if Instant::now() > deadline {
                return Err(ArchivingError::InUse(partition.name.clone()));
            }
            tokio::time::sleep(EXCHANGE_PAUSE).await;
            copied_to = self.copy_rows(partition, copy, copied_to, progress).await?;
        }
        Ok(())
    }

    /// Copies the rows after a position, until few are left. Returns the last position that is copied.
    async fn copy_rows(
        &mut self,
        partition: &Partition,
        copy: &str,
        after: Position,
        progress: Progress<'_>,
    ) -> Result<Position, ArchivingError> {
        let statement = format!(
            "WITH copied AS (INSERT INTO {} SELECT * FROM {} WHERE global_position > $1 ORDER BY global_position LIMIT \
             $2 RETURNING global_position) SELECT count(*), max(global_position) FROM copied",
            quote_identifier(copy),
            quote_identifier(&partition.name),
        );
        let mut copied_to = after;
        loop {
            let (count, to): (i64, Option<Position>) = sqlx::query_as(AssertSqlSafe(statement.as_str()))
                .bind(copied_to)
                .bind(COPY_ROWS)
                .fetch_one(&mut self.connection)
                .await?;
            copied_to = to.unwrap_or(copied_to);
            progress(count.unsigned_abs());
            if count < COPIED_ROWS_NEAR_END {
                return Ok(copied_to);
            }
        }
    }

    /// Compares the number and the content of the copied rows with those of the table. Events that were erased since the
    /// copy began are not compared: the exchange erases them in the copy.
    async fn compare(
        &mut self,
        partition: &Partition,
        copy: &str,
        to: Position,
        last: ErasureNo,
    ) -> Result<(), ArchivingError> {
        let digest = |table: &str| {
            format!(
                "(SELECT ROW (count(*), bit_xor(hash_record_extended(e, 0))) FROM {} e WHERE global_position <= $1 AND \
                 NOT EXISTS (SELECT FROM erased_events d WHERE d.global_position = e.global_position AND d.erasure > $2))",
                quote_identifier(table)
            )
        };
        let statement = format!("SELECT {} IS NOT DISTINCT FROM {}", digest(&partition.name), digest(copy));
        let compared = sqlx::query_scalar(AssertSqlSafe(statement)).bind(to).bind(last);
        if compared.fetch_one(&mut self.connection).await? {
            return Ok(());
        }
        Err(differs(partition, "its copy differs from it: the next run begins again"))
    }

    /// Exchanges the table for its copy. Returns false if a lock was not available in time.
    async fn exchange(
        &mut self,
        partition: &Partition,
        copy: &str,
        copied_to: Position,
        last: ErasureNo,
    ) -> Result<bool, DatabaseError> {
        match self.try_exchange(partition, copy, copied_to, last).await {
            Ok(()) => Ok(true),
            Err(error) if has_sqlstate(&error, LOCK_NOT_AVAILABLE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn try_exchange(
        &mut self,
        partition: &Partition,
        copy: &str,
        copied_to: Position,
        last: ErasureNo,
    ) -> Result<(), DatabaseError> {
        self.connection.execute("BEGIN").await?;
        let began = self.exchange_in_transaction(partition, copy, copied_to, last).await;
        let began = self.connection.end_transaction(began).await?;
        let waited_ms = began.elapsed().as_secs_f64() * 1_000.0;
        tracing::info!(partition = partition.name, waited_ms, "replaced the table of a partition");
        Ok(())
    }

    /// Exchanges the tables. Returns when appends began to wait.
    async fn exchange_in_transaction(
        &mut self,
        partition: &Partition,
        copy: &str,
        copied_to: Position,
        last: ErasureNo,
    ) -> Result<Instant, DatabaseError> {
        // A VACUUM of the table would delay the exchange, and this lock blocks neither appends nor reads.
        self.connection.execute(VACUUM_LOCK_TIMEOUT).await?;
        let lock =
            format!("LOCK TABLE ONLY events, {} IN SHARE UPDATE EXCLUSIVE MODE", quote_identifier(&partition.name));
        self.connection.execute(AssertSqlSafe(lock)).await?;
        self.connection.execute(EXCHANGE_LOCK_TIMEOUT).await?;
        let began = Instant::now();
        sqlx::query(REPLACE_PARTITION_TABLE)
            .bind(&partition.name)
            .bind(partition.starts_at)
            .bind(partition.ends_at)
            .bind(copy)
            .bind(copied_to)
            .bind(last)
            .execute(&mut self.connection)
            .await?;
        Ok(began)
    }
}

/// The files of an archived partition.
impl Remover {
    /// Writes the files of an archived partition again, without the erased content.
    async fn rewrite_archived(
        &mut self,
        archive: &Arc<Archive>,
        partition: &Partition,
        archived: &ArchivedPartition,
        progress: Progress<'_>,
    ) -> Result<(), ArchivingError> {
        let masks = Masks::read(&mut self.connection).await?;
        let facts = partition.facts().ok_or_else(|| differs(partition, "it is not sealed, or has no events"))?;
        let former = archive.manifest(archived).await?;
        let month = partition.starts_at.format("%Y-%m");
        let folder: String =
            sqlx::query_scalar("SELECT $1 || '-' || left(replace(gen_random_uuid()::text, '-', ''), 16)")
                .bind(month.to_string())
                .fetch_one(&mut self.connection)
                .await?;
        // If this run is interrupted, the next one deletes the folder.
        sqlx::query(NOTE_FORMER_FOLDER).bind(&folder).bind(partition.starts_at).execute(&mut self.connection).await?;
        let (mut files, mut digests) = (Vec::new(), Vec::new());
        for order in Order::ALL {
            let written = write_again(archive, archived, &former, &folder, order, &masks, progress).await?;
            files.push(written.0);
            digests.push(written.1);
        }
        let manifest = Manifest::new(&facts, digests[0].clone(), files, self.clock.now());
        let manifest_sha256 = archive.put_manifest(&folder, &manifest).await?;
        let new = ArchivedPartition { name: partition.name.clone(), folder, manifest_sha256 };
        if archive.manifest(&new).await? != manifest {
            return Err(differs(partition, "its new manifest is not what was written"));
        }
        for ((order, file), digest) in Order::ALL.iter().zip(&manifest.files).zip(&digests) {
            read_back(archive, &new, *order, file, digest, progress).await?;
        }
        let replaced = sqlx::query(ARCHIVE_REPLACE)
            .bind(partition.starts_at)
            .bind(&archived.folder)
            .bind(&new.folder)
            .bind(&new.manifest_sha256)
            .execute(&mut self.connection)
            .await?;
        if replaced.rows_affected() != 1 {
            return Err(differs(partition, "the catalogue has changed in the meantime"));
        }
        Ok(())
    }
}

/// Writes the events of a partition's file into a new folder, without the erased content. Returns the file, and the
/// digest of its events.
async fn write_again(
    archive: &Archive,
    archived: &ArchivedPartition,
    former: &Manifest,
    folder: &str,
    order: Order,
    masks: &Masks,
    progress: Progress<'_>,
) -> Result<(FileManifest, String), ArchivingError> {
    let mut file = archive.create(folder, order);
    let (mut before, mut after) = (EventDigest::default(), EventDigest::default());
    for n in archive.groups(archived, order).await? {
        let group = archive.group(archived, order, n).await?;
        let erased = group.without(masks.by_position())?;
        each_event(&group, |event| before.add(event))?;
        let new = erased.as_ref().unwrap_or(&group);
        for at in 0..new.len() {
            let event = new.event(at)?;
            after.add(&event);
            if file.push(&event) {
                file.flush().await?;
            }
        }
        progress(group.len() as u64);
    }
    if order == Order::Position && before.finish() != former.events_sha256 {
        let what = "its files are not what was written".to_owned();
        return Err(ArchivingError::Differs { partition: archived.name.clone(), what });
    }
    Ok((file.finish().await?, after.finish()))
}
