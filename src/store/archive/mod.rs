//! Months leave the database, and come back.
//!
//! A month leaves in steps, each of which is noted in the catalogue, so that whoever is killed on the way is followed by
//! somebody who goes on:
//!
//! ```text
//! archived_to is noted ── files and manifest are written ── read back, compared ── archived_at is noted ── detach ── drop
//! ```
//!
//! Before `archived_at` the month is read in the database, after it in the archive; while both have it, they are equal. One
//! process at a time archives or restores, by advisory lock (events, 3), held by its connection.

mod month;
mod restore;

pub use month::Month;
pub(super) use restore::Columns;

use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::error::StoreError;
use super::{Store, archived, event_from_row};
use crate::archive::{Archive, ArchiveError, EventDigest, EventGroup, FileManifest, Manifest, MonthFacts, Order};
use crate::clock::Clock;
use crate::domain::event::{Position, StoredEvent};

const ARCHIVE_BEGIN: &str = include_str!("../sql/archive_begin.sql");
const ARCHIVE_COMPLETE: &str = include_str!("../sql/archive_complete.sql");
const MONTH_BY_POSITION: &str = include_str!("../sql/month_by_position.sql");
const MONTH_BY_AGGREGATE: &str = include_str!("../sql/month_by_aggregate.sql");
const PROJECTIONS_BEHIND: &str = include_str!("../sql/projections_behind.sql");

/// Why a month does not leave, or does not come back.
#[derive(Debug, thiserror::Error)]
pub enum ArchivingError {
    #[error("another process archives or restores at this moment")]
    Busy,
    #[error("no place is configured: set ARCHIVE_URL to a folder, or to s3://…, gs://… or az://…")]
    NoArchive,
    #[error("projections have not passed the month: {0}. Wait for them, or DELETE those that nobody runs any more")]
    ProjectionsBehind(String),
    #[error("{0} is not counted yet: the statistics are behind. Try again in a moment")]
    NotCounted(String),
    #[error(
        "{0} is still used by a transaction that began before it was archived. It is read in the archive by now; its \
             table goes at the next run"
    )]
    StillUsed(String),
    #[error("there is no archived month {0}")]
    NotArchived(String),
    /// What was read back, or what the database holds, is not what it has to be.
    #[error("{month} stays where it is: {what}")]
    Differs { month: String, what: String },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// What there is to do.
#[derive(Debug, Default)]
pub struct ArchivePlan {
    /// Months to archive, oldest first.
    pub months: Vec<Month>,
    /// Months that are archived, and whose tables have still to go.
    pub leftovers: Vec<Month>,
}

/// How far a month is: events of both files written and read back, of four times its events.
pub type Progress<'p> = &'p (dyn Fn(u64) + Sync);

/// A connection that archives and restores.
pub struct Archiver {
    connection: PgConnection,
    archive: Arc<Archive>,
    clock: Clock,
}

impl Store {
    /// The catalogue of months, oldest first.
    pub async fn months(&self) -> Result<Vec<Month>, StoreError> {
        Ok(Month::all(&mut *self.acquire().await?).await?)
    }

    /// A connection as the owner of the tables, with the lock that keeps others from archiving.
    pub async fn archiver(&self) -> Result<Archiver, ArchivingError> {
        let archive = self.archive.clone().ok_or(ArchivingError::NoArchive)?;
        let mut connection = self.connector.owner().await?;
        lock(&mut connection).await?;
        self.check_archive().await?;
        // Appends and reads must never queue up behind a statement that waits here.
        connection.execute("SET lock_timeout = '10s'").await?;
        Ok(Archiver { connection, archive, clock: self.clock.clone() })
    }
}

impl Archiver {
    /// The months that were over before a time, and what an earlier run has left to do. Months that somebody has brought
    /// back stay, unless they are wanted too.
    pub async fn plan(&mut self, before: DateTime<Utc>, restored_too: bool) -> Result<ArchivePlan, ArchivingError> {
        let mut plan = ArchivePlan::default();
        for month in Month::all(&mut self.connection).await? {
            if month.archived_at.is_some() && month.is_here {
                plan.leftovers.push(month);
            } else if month.archived_at.is_none()
                && month.ends_at <= before
                && month.facts().is_some()
                && (restored_too || month.restored_at.is_none())
            {
                plan.months.push(month);
            }
        }
        Ok(plan)
    }

    /// Whether a month may leave: every projection has passed it, and its events are counted.
    pub async fn check(&mut self, month: &Month) -> Result<(), ArchivingError> {
        let Some(facts) = month.facts() else { return Ok(()) };
        let behind: Vec<String> =
            sqlx::query_scalar(PROJECTIONS_BEHIND).bind(facts.last_position).fetch_all(&mut self.connection).await?;
        if !behind.is_empty() {
            return Err(ArchivingError::ProjectionsBehind(behind.join(", ")));
        }
        let counted: Position =
            sqlx::query_scalar("SELECT as_of_position FROM statistics").fetch_one(&mut self.connection).await?;
        if counted < facts.last_position {
            return Err(ArchivingError::NotCounted(month.name.clone()));
        }
        Ok(())
    }

    /// Takes a month that may leave out of the database.
    pub async fn archive(&mut self, month: &Month, progress: Progress<'_>) -> Result<Manifest, ArchivingError> {
        self.check(month).await?;
        let facts = month.facts().ok_or_else(|| month.differs("it is not over, or has no events"))?;
        let folder: Option<String> = sqlx::query_scalar(ARCHIVE_BEGIN)
            .bind(month.starts_at)
            .bind(month.starts_at.format("%Y-%m").to_string())
            .fetch_optional(&mut self.connection)
            .await?;
        let folder = folder.ok_or_else(|| month.differs("it was archived meanwhile"))?;

        let mut files = Vec::new();
        let mut digests = Vec::new();
        for order in Order::ALL {
            let (file, digest) = self.write(&folder, month, &facts, order, progress).await?;
            files.push(file);
            digests.push(digest);
        }
        let manifest = Manifest::new(&facts, digests[0].clone(), files, self.clock.now());
        let manifest_sha256 = self.archive.put_manifest(&folder, &manifest).await?;
        if self.archive.manifest(&folder).await? != (manifest.clone(), manifest_sha256.clone()) {
            return Err(month.differs("its manifest is not what was written"));
        }
        // As anybody will read it.
        for ((order, file), written) in Order::ALL.iter().zip(&manifest.files).zip(&digests) {
            self.read_back(&folder, month, *order, file, written, progress).await?;
        }
        let noted = sqlx::query(ARCHIVE_COMPLETE)
            .bind(month.starts_at)
            .bind(&folder)
            .bind(manifest_sha256)
            .execute(&mut self.connection)
            .await?;
        if noted.rows_affected() != 1 {
            return Err(month.differs("the catalogue has changed meanwhile"));
        }
        self.remove(month).await?;
        Ok(manifest)
    }

    /// Writes a month as one file, in one order; the file, and the digest of what the database has handed out.
    async fn write(
        &mut self,
        folder: &str,
        month: &Month,
        facts: &MonthFacts,
        order: Order,
        progress: Progress<'_>,
    ) -> Result<(FileManifest, String), ArchivingError> {
        let statement = match order {
            Order::Position => MONTH_BY_POSITION,
            Order::Aggregate => MONTH_BY_AGGREGATE,
        };
        let mut file = self.archive.create(folder, order);
        let mut digest = EventDigest::default();
        let mut checked = Checked::default();
        let mut rows = sqlx::query(statement).bind(month.starts_at).bind(month.ends_at).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await? {
            let event = event_from_row(&row)?;
            digest.add(&event);
            checked.add(&event);
            if file.push(&event) {
                file.flush().await?;
            }
            progress(1);
        }
        drop(rows);
        checked.compare(facts).map_err(|what| month.differs(what))?;
        Ok((file.finish().await?, digest.finish()))
    }

    /// Reads a file as anybody will read it, and compares.
    async fn read_back(
        &self,
        folder: &str,
        month: &Month,
        order: Order,
        file: &FileManifest,
        written: &str,
        progress: Progress<'_>,
    ) -> Result<(), ArchivingError> {
        if self.archive.file_digest(folder, order).await? != (file.sha256.clone(), file.bytes) {
            return Err(month.differs(format!("{} is not what was written", file.name)));
        }
        let read = events_digest(&self.archive, folder, order, progress).await?;
        if read == written { Ok(()) } else { Err(month.differs(format!("{} reads differently", file.name))) }
    }

    /// Detaches a month that is archived and drops its table, from wherever an earlier run was interrupted.
    pub async fn remove(&mut self, month: &Month) -> Result<(), ArchivingError> {
        let months = Month::all(&mut self.connection).await?;
        let stands = months.into_iter().find(|known| known.name == month.name);
        let stands = stands.ok_or_else(|| month.differs("it is no longer in the catalogue"))?;
        // The last look before there is no other copy.
        let folder = stands.archived_folder().ok_or_else(|| month.differs("it is not archived"))?;
        if !self.archive.is_complete(folder, stands.archive_sha256.as_deref().unwrap_or_default()).await? {
            return Err(month.differs(format!("{folder} is not in the archive as it was written")));
        }
        let name = quoted(&stands.name);
        if stands.detach_pending {
            self.alter(&stands, format!("ALTER TABLE events DETACH PARTITION {name} FINALIZE")).await?;
        } else if stands.is_attached {
            self.alter(&stands, format!("ALTER TABLE events DETACH PARTITION {name} CONCURRENTLY")).await?;
        }
        if stands.is_here {
            self.alter(&stands, format!("DROP TABLE {name}")).await?;
        }
        Ok(())
    }

    /// DETACH CONCURRENTLY waits for every transaction that has used the table, and lets everybody else go on.
    async fn alter(&mut self, month: &Month, statement: String) -> Result<(), ArchivingError> {
        match self.connection.execute(AssertSqlSafe(statement)).await {
            Ok(_) => Ok(()),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
                Err(ArchivingError::StillUsed(month.name.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub async fn close(mut self) -> Result<(), ArchivingError> {
        // By itself PostgreSQL gives it back a moment after the connection is gone, and whoever comes next finds it taken.
        self.connection.execute("SELECT pg_advisory_unlock('events'::regclass::oid::integer, 3)").await?;
        Ok(self.connection.close().await?)
    }
}

/// Keeps others from archiving, as long as the connection lives.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), ArchivingError> {
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock('events'::regclass::oid::integer, 3)")
        .fetch_one(connection)
        .await?;
    if locked { Ok(()) } else { Err(ArchivingError::Busy) }
}

/// What the rows of a month have to come to.
#[derive(Default)]
struct Checked {
    events: u64,
    positions: Option<(Position, Position)>,
    times: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Checked {
    fn add(&mut self, event: &StoredEvent<'_>) {
        fn widen<T: Ord + Copy>(known: Option<(T, T)>, value: T) -> Option<(T, T)> {
            Some(known.map_or((value, value), |(least, most)| (least.min(value), most.max(value))))
        }
        self.events += 1;
        self.positions = widen(self.positions, event.global_position);
        self.times = widen(self.times, event.occurred_at);
    }

    fn compare(&self, facts: &MonthFacts) -> Result<(), String> {
        let positions = Some((facts.first_position, facts.last_position));
        let times = Some((facts.first_occurred_at, facts.last_occurred_at));
        if (self.events, self.positions, self.times) == (facts.events, positions, times) {
            return Ok(());
        }
        let mut what = format!("its table has {} events, and the catalogue says {}", self.events, facts.events);
        write!(what, " (positions {:?}, {positions:?})", self.positions).expect("writing to a string does not fail");
        Err(what)
    }
}

/// Hands the events of a row group to `take`, one after the other.
pub(super) fn each_event(group: &EventGroup, mut take: impl FnMut(&StoredEvent<'_>)) -> Result<(), ArchivingError> {
    (0..group.len()).try_for_each(|at| {
        take(&archived::event(group, at)?);
        Ok(())
    })
}

/// The digest of the events of a month's file, as they are read.
pub(super) async fn events_digest(
    archive: &Archive,
    folder: &str,
    order: Order,
    progress: Progress<'_>,
) -> Result<String, ArchivingError> {
    let mut digest = EventDigest::default();
    for n in archive.groups(folder, order).await? {
        let group = archive.group(folder, order, n).await?;
        each_event(&group, |event| digest.add(event))?;
        progress(group.len() as u64);
    }
    Ok(digest.finish())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
