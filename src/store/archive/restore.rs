//! A month comes back: into a table beside whatever is still there of it, which goes only when the new one is complete.

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, Executor, Postgres};

use super::{Archiver, ArchivingError, Month, Progress, each_event, quoted};
use crate::archive::{EventDigest, EventGroup, Manifest, Order};
use crate::domain::event::StoredEvent;
use crate::store::archived;

const ARCHIVE_UNDO: &str = include_str!("../sql/archive_undo.sql");

impl Archiver {
    /// Brings an archived month back; how many events it has. Its files stay where they are.
    pub async fn restore(&mut self, name: &str, progress: Progress<'_>) -> Result<u64, ArchivingError> {
        let months = Month::all(&mut self.connection).await?;
        let month = months.into_iter().find(|month| month.name == name && month.archived_at.is_some());
        let month = month.ok_or_else(|| ArchivingError::NotArchived(name.to_owned()))?;
        if month.is_attached && !month.detach_pending {
            // Its table has not gone yet.
            sqlx::query(ARCHIVE_UNDO).bind(month.starts_at).execute(&mut self.connection).await?;
            return Ok(month.facts().map_or(0, |facts| facts.events));
        }
        if month.detach_pending {
            self.alter(&month, format!("ALTER TABLE events DETACH PARTITION {} FINALIZE", quoted(name))).await?;
        }
        let folder =
            month.archived_to.clone().ok_or_else(|| month.differs("the catalogue does not say where it is"))?;
        // As it lies there now.
        self.archive.forget();
        let (manifest, sha256) = self.archive.manifest(&folder).await?;
        if month.archive_sha256.as_deref() != Some(sha256.as_str()) {
            return Err(month.differs("its manifest is not the one that was written"));
        }

        // Whatever else is there of the month goes only when the new table is complete.
        let new: String = sqlx::query_scalar("SELECT $1 || '_' || left(md5(gen_random_uuid()::text), 8)")
            .bind(name)
            .fetch_one(&mut self.connection)
            .await?;
        sqlx::query("SELECT create_event_table($1)").bind(&new).execute(&mut self.connection).await?;
        let filled = self.fill(&new, &folder, &month, &manifest, progress).await;
        if filled.is_err() {
            self.connection.execute(AssertSqlSafe(format!("DROP TABLE {}", quoted(&new)))).await?;
        }
        filled?;
        let mut transaction = self.connection.begin().await?;
        transaction.execute(AssertSqlSafe(format!("DROP TABLE IF EXISTS {}", quoted(name)))).await?;
        let rename = format!("ALTER TABLE {} RENAME TO {}", quoted(&new), quoted(name));
        transaction.execute(AssertSqlSafe(rename)).await?;
        sqlx::query("SELECT attach_event_table($1, $2, $3)")
            .bind(name)
            .bind(month.starts_at)
            .bind(month.ends_at)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(ARCHIVE_UNDO).bind(month.starts_at).execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.connection.execute(AssertSqlSafe(format!("ANALYZE {}", quoted(name)))).await?;
        Ok(manifest.events)
    }

    /// Fills a table from a month's file, and compares.
    async fn fill(
        &mut self,
        table: &str,
        folder: &str,
        month: &Month,
        manifest: &Manifest,
        progress: Progress<'_>,
    ) -> Result<(), ArchivingError> {
        let mut digest = EventDigest::default();
        for n in self.archive.groups(folder, Order::Position).await? {
            let group = self.archive.group(folder, Order::Position, n).await?;
            each_event(&group, |event| digest.add(event))?;
            self.insert(table, &group).await?;
            progress(group.len() as u64);
        }
        if digest.finish() != manifest.events_sha256 {
            return Err(month.differs("its files are not what was written"));
        }
        Ok(())
    }

    async fn insert(&mut self, table: &str, group: &EventGroup) -> Result<(), ArchivingError> {
        let statement = format!(
            "INSERT INTO {} (event_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, \
             occurred_at, correlation_id, causation_id, global_position) \
             SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[]::jsonb[], \
             $7::text[]::jsonb[], $8::timestamptz[], $9::uuid[], $10::uuid[], $11::bigint[])",
            quoted(table)
        );
        Columns::of(group)?.bind(sqlx::query(AssertSqlSafe(statement))).execute(&mut self.connection).await?;
        Ok(())
    }
}

/// The events of a row group as arrays: parameters $1 to $11, in the order of the table's columns.
pub struct Columns<'g>(Vec<StoredEvent<'g>>);

impl<'g> Columns<'g> {
    pub fn of(group: &'g EventGroup) -> Result<Self, ArchivingError> {
        let events = (0..group.len()).map(|at| archived::event(group, at)).collect::<Result<_, _>>()?;
        Ok(Self(events))
    }

    pub fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments>
    where
        'g: 'q,
    {
        fn each<'g, T>(events: &[StoredEvent<'g>], field: impl Fn(&StoredEvent<'g>) -> T) -> Vec<T> {
            events.iter().map(field).collect()
        }
        let Self(events) = self;
        query
            .bind(each(events, |event| event.event_id))
            .bind(each(events, |event| event.aggregate_type))
            .bind(each(events, |event| event.aggregate_id))
            .bind(each(events, |event| event.version))
            .bind(each(events, |event| event.event_type))
            .bind(each(events, |event| event.event_data))
            .bind(each(events, |event| event.metadata))
            .bind(each(events, |event| event.occurred_at))
            .bind(each(events, |event| event.correlation_id))
            .bind(each(events, |event| event.causation_id))
            .bind(each(events, |event| event.global_position))
    }
}
