//! Restoring: an archived partition returns to the database, into a new table. It replaces the old table, if that still
//! exists, only when it is complete.

use sqlx::{AssertSqlSafe, Executor};

use crate::archive::digest::EventDigest;
use crate::archive::group::EventGroup;
use crate::archive::manifest::{Manifest, Order};
use crate::archive::partition::ArchivedPartition;
use crate::domain::erasure::ErasureNo;
use crate::store::erasures::masks::Masks;
use crate::store::error::DatabaseError;
use crate::store::log::head::read_log_head;
use crate::store::partitions::archiver::{
    Archiver, ArchivingError, Progress, alter, create_table_beside, differs, each_event, quote_identifier,
};
use crate::store::partitions::columns::Columns;
use crate::store::partitions::partition::Partition;

const ERASE_AGAIN: &str = include_str!("../sql/erase_again.sql");
const ARCHIVE_UNDO: &str = include_str!("../sql/archive_undo.sql");

impl Archiver {
    /// Restores an archived partition. Returns the number of its events. Its files stay in the archive.
    pub async fn restore(&mut self, name: &str, progress: Progress<'_>) -> Result<u64, ArchivingError> {
        let partitions = Partition::read_all(&mut self.connection).await?;
        let archived = |partition: &Partition| partition.name == name && partition.archived_at.is_some();
        let partition = partitions.into_iter().find(archived);
        let partition = partition.ok_or_else(|| ArchivingError::NotArchived(name.to_owned()))?;
        if partition.is_attached && !partition.detach_pending {
            // Its table was not detached yet.
            sqlx::query(ARCHIVE_UNDO).bind(partition.starts_at).execute(&mut self.connection).await?;
            return Ok(partition.facts().map_or(0, |facts| facts.events));
        }
        if partition.detach_pending {
            let finalize = format!("ALTER TABLE events DETACH PARTITION {} FINALIZE", quote_identifier(name));
            alter(&mut self.connection, &partition, finalize).await?;
        }
        let archived = partition.archived();
        let archived = archived.ok_or_else(|| differs(&partition, "the catalogue does not name its folder"))?;
        // The current files are read, not cached parts of them.
        self.archive.clear_cache();
        let manifest = self.archive.manifest(&archived).await?;

        let new_table = create_table_beside(&mut self.connection, &partition).await?;
        let last_erasure = read_log_head(&mut self.connection, partition.starts_at).await?.last_erasure;
        let filled = self.fill(&new_table, &archived, &manifest, progress).await;
        if filled.is_err() {
            self.connection.execute(AssertSqlSafe(format!("DROP TABLE {}", quote_identifier(&new_table)))).await?;
        }
        filled?;
        self.replace_table(&new_table, &partition, last_erasure).await?;
        self.connection.execute(AssertSqlSafe(format!("ANALYZE {}", quote_identifier(name)))).await?;
        Ok(manifest.events)
    }

    /// Replaces the partition's table by the new one, in one transaction. What was erased since `last_erasure` is erased
    /// in the new table, too.
    async fn replace_table(
        &mut self,
        new_table: &str,
        partition: &Partition,
        last_erasure: ErasureNo,
    ) -> Result<(), ArchivingError> {
        let (old, new) = (quote_identifier(&partition.name), quote_identifier(new_table));
        self.connection.execute("BEGIN").await?;
        let replaced = self.replace_in_transaction(&old, &new, new_table, partition, last_erasure).await;
        Ok(self.connection.end_transaction(replaced).await?)
    }

    async fn replace_in_transaction(
        &mut self,
        old: &str,
        new: &str,
        new_table: &str,
        partition: &Partition,
        last_erasure: ErasureNo,
    ) -> Result<(), DatabaseError> {
        // Erasures in progress end first, and later ones find the rows in the new table.
        self.connection.execute("LOCK TABLE erasures IN SHARE MODE").await?;
        sqlx::query(ERASE_AGAIN)
            .bind(new_table)
            .bind(partition.starts_at)
            .bind(partition.ends_at)
            .bind(last_erasure)
            .execute(&mut self.connection)
            .await?;
        self.connection.execute(AssertSqlSafe(format!("DROP TABLE IF EXISTS {old}"))).await?;
        self.connection.execute(AssertSqlSafe(format!("ALTER TABLE {new} RENAME TO {old}"))).await?;
        sqlx::query("SELECT attach_partition_table(p_name => $1, p_starts_at => $2, p_ends_at => $3)")
            .bind(&partition.name)
            .bind(partition.starts_at)
            .bind(partition.ends_at)
            .execute(&mut self.connection)
            .await?;
        sqlx::query(ARCHIVE_UNDO).bind(partition.starts_at).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Fills a table from a partition's file, and compares the events with the manifest.
    async fn fill(
        &mut self,
        table: &str,
        archived: &ArchivedPartition,
        manifest: &Manifest,
        progress: Progress<'_>,
    ) -> Result<(), ArchivingError> {
        // Events may have been erased since the files were written.
        let masks = Masks::read(&mut self.connection).await?;
        let mut digest = EventDigest::default();
        for n in self.archive.groups(archived, Order::Position).await? {
            let group = self.archive.group(archived, Order::Position, n).await?;
            each_event(&group, |event| digest.add(event))?;
            let erased = group.without(masks.by_position())?;
            self.insert(table, erased.as_ref().unwrap_or(&group)).await?;
            progress(group.len() as u64);
        }
        if digest.finish() != manifest.events_sha256 {
            let what = "its files are not what was written".to_owned();
            return Err(ArchivingError::Differs { partition: archived.name.clone(), what });
        }
        Ok(())
    }

    async fn insert(&mut self, table: &str, group: &EventGroup) -> Result<(), ArchivingError> {
        let statement = format!(
            "INSERT INTO {} (event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, \
             occurred_at, correlation_id, causation_id, global_position) \
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[]::jsonb[], \
             $7::text[]::jsonb[], $8::timestamptz[], $9::uuid[], $10::uuid[], $11::bigint[])",
            quote_identifier(table)
        );
        let columns = Columns::from_group(group)?;
        columns.bind_to(sqlx::query(AssertSqlSafe(statement))).execute(&mut self.connection).await?;
        Ok(())
    }
}
