//! `annals verify`: whether the store is what it promises to be, told by everything that is written twice.
//!
//! One connection, one snapshot of the database: what is appended meanwhile is not looked at. The archive is read as it lies
//! there. Nothing is changed but the note how far the verification came.

mod streams;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};

use super::archive::{ArchivingError, Columns, Month, each_event, events_digest, lock};
use super::error::StoreError;
use super::log::{self, LogHead};
use super::{BEGINNING_OF_TIME, Store};
use crate::archive::{Archive, EventGroup, Order};
use crate::domain::event::Position;
use crate::domain::version::Version;

const VERIFY_ORDER: &str = include_str!("../sql/verify_order.sql");
const VERIFY_IDS: &str = include_str!("../sql/verify_ids.sql");
const VERIFY_ARCHIVED_IDS: &str = include_str!("../sql/verify_archived_ids.sql");
const VERIFY_SNAPSHOTS: &str = include_str!("../sql/verify_snapshots.sql");
const NOTE_VERIFICATION: &str = include_str!("../sql/note_verification.sql");

/// Findings of one check that are told; there may be more.
const FINDINGS_MAX: usize = 20;

/// What was looked at for one promise, and what was found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub checked: u64,
    /// The first of what is wrong, in plain words.
    pub findings: Vec<String>,
}

impl Check {
    pub fn new(name: &'static str) -> Self {
        Self { name, checked: 0, findings: Vec::new() }
    }

    pub fn find(&mut self, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what);
        }
    }

    fn find_all(&mut self, findings: Vec<String>) {
        findings.into_iter().for_each(|what| self.find(what));
    }

    fn room(&self) -> i64 {
        i64::try_from(FINDINGS_MAX - self.findings.len()).unwrap_or(0)
    }
}

/// A snapshot that is to be compared with a replay.
#[derive(Debug, Clone)]
pub struct SampledSnapshot {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub version: Version,
    /// JSON.
    pub state: String,
    pub occurred_at: DateTime<Utc>,
    /// The reducer that made it; `None`: a client did.
    pub reducer: Option<i64>,
    /// Its checksum fits.
    pub is_whole: bool,
}

/// A verification on its way.
pub struct Verifier {
    connection: PgConnection,
    archive: Option<Arc<Archive>>,
    months: Vec<Month>,
    open_from: DateTime<Utc>,
    /// First positions of the epochs after the first one.
    epochs: Vec<Position>,
    /// Folders of the archive that are not what was written: no other check reads them.
    unreadable: Vec<String>,
    /// Everything up to here is looked at.
    pub head: LogHead,
    /// What an earlier verification has looked at.
    pub since: Position,
}

impl Store {
    /// Begins a verification: of everything, or of what came since the last one.
    pub async fn verifier(&self, since_last: bool) -> Result<Verifier, ArchivingError> {
        let mut connection = self.connector.owner().await?;
        // A month that goes or comes meanwhile would look like one that is missing.
        lock(&mut connection).await?;
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let months = Month::all(&mut connection).await?;
        let open = months.iter().find(|month| month.rolled_up_at.is_none());
        let open_from = open.map_or(BEGINNING_OF_TIME, |month| month.starts_at);
        let head = log::head(&mut connection, open_from).await?;
        let epochs = sqlx::query_scalar("SELECT first_position FROM epochs WHERE first_position > 1")
            .fetch_all(&mut connection)
            .await?;
        let last: Option<Position> = sqlx::query_scalar("SELECT verified_position FROM verification WHERE epoch = $1")
            .bind(head.epoch)
            .fetch_optional(&mut connection)
            .await?;
        // In another epoch the end of what was verified may have been lost: then all of it is looked at.
        let since = if since_last { last.unwrap_or(0) } else { 0 };
        Ok(Verifier {
            connection,
            archive: self.archive.clone(),
            months,
            open_from,
            epochs,
            unreadable: Vec::new(),
            head,
            since,
        })
    }

    /// Whether two JSON texts are the same value for PostgreSQL.
    pub async fn is_same_json(&self, one: &str, other: &str) -> Result<bool, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar("SELECT $1::jsonb = $2::jsonb").bind(one).bind(other).fetch_one(&mut *connection).await?)
    }
}

impl Verifier {
    /// Whether a position may come right after another one: it is the next, or the first of an epoch that began in between.
    fn follows(&self, before: Position, position: Position) -> bool {
        position == before + 1 || self.epochs.iter().any(|first| (before + 1..=position).contains(first))
    }

    fn archive(&self) -> Result<Arc<Archive>, ArchivingError> {
        self.archive.clone().ok_or(ArchivingError::NoArchive)
    }

    fn is_unreadable(&self, folder: &str) -> bool {
        self.unreadable.iter().any(|known| known == folder)
    }

    /// The months that hold what is to be looked at, oldest first.
    fn months(&self) -> Vec<Month> {
        let is_new = |month: &&Month| month.last_position.is_none_or(|last| last > self.since);
        self.months.iter().filter(is_new).cloned().collect()
    }

    /// Positions without a gap, times in order, and months that are what the catalogue says; in the archive as well.
    pub async fn order(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("order");
        let mut before: Option<(Position, DateTime<Utc>)> = None;
        for month in self.months() {
            let Some(held) = self.held(&month, &mut check).await? else { continue };
            check.checked += held.events;
            let whole = self.since == 0 || month.first_position.is_some_and(|first| first > self.since);
            if let Some(facts) = month.facts().filter(|_| whole)
                && (facts.first_position, facts.last_position, facts.events) != (held.first.0, held.last.0, held.events)
            {
                check.find(format!(
                    "{}: the catalogue says positions {} to {} and {} events, and it has positions {} to {} and {}",
                    month.name,
                    facts.first_position,
                    facts.last_position,
                    facts.events,
                    held.first.0,
                    held.last.0,
                    held.events
                ));
            }
            let (position, time) = before.unwrap_or((self.since, BEGINNING_OF_TIME));
            if held.first.1 < time || !self.follows(position, held.first.0) {
                check.find(format!("{}: position {} follows position {position}", month.name, held.first.0));
            }
            before = Some(held.last);
        }
        if let Some((position, _)) = before
            && position != self.head.global_position
        {
            check.find(format!("the log ends at position {position}, and its head is {}", self.head.global_position));
        }
        Ok(check)
    }

    /// What a month holds, in the order of the log; `None` if nothing.
    async fn held(&mut self, month: &Month, check: &mut Check) -> Result<Option<Held>, ArchivingError> {
        if let Some(folder) = month.archived_folder() {
            let facts = month.facts().filter(|_| self.is_unreadable(folder));
            return match facts {
                Some(facts) => Ok(Some(Held {
                    first: (facts.first_position, facts.first_occurred_at),
                    last: (facts.last_position, facts.last_occurred_at),
                    events: facts.events,
                })),
                None => self.held_by_archive(folder, check).await,
            };
        }
        let row = sqlx::query(VERIFY_ORDER)
            .bind(month.starts_at)
            .bind(month.ends_at)
            .bind(self.since)
            .bind(self.head.global_position)
            .bind(check.room())
            .fetch_one(&mut self.connection)
            .await?;
        check.find_all(row.try_get("findings")?);
        let events: i64 = row.try_get("events")?;
        if events == 0 {
            return Ok(None);
        }
        Ok(Some(Held {
            first: (row.try_get("first_position")?, row.try_get("first_occurred_at")?),
            last: (row.try_get("last_position")?, row.try_get("last_occurred_at")?),
            events: events.unsigned_abs(),
        }))
    }

    async fn held_by_archive(&self, folder: &str, check: &mut Check) -> Result<Option<Held>, ArchivingError> {
        let archive = self.archive()?;
        let mut held: Option<Held> = None;
        for n in archive.groups(folder, Order::Position).await? {
            let group = archive.group(folder, Order::Position, n).await?;
            each_event(&group, |event| {
                let stands = (event.global_position, event.occurred_at);
                if stands.0 <= self.since {
                    return;
                }
                match &mut held {
                    None => held = Some(Held { first: stands, last: stands, events: 1 }),
                    Some(held) => {
                        if !self.follows(held.last.0, stands.0) || stands.1 < held.last.1 {
                            check.find(format!("{folder}: position {} follows position {}", stands.0, held.last.0));
                        }
                        held.last = stands;
                        held.events += 1;
                    }
                }
            })?;
        }
        Ok(held)
    }

    /// Every event is in `event_ids`, with the same place and content; and nothing else is.
    pub async fn ids(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("ids");
        for month in self.months() {
            if let Some(folder) = month.archived_folder() {
                if self.is_unreadable(folder) {
                    check.find(format!("not looked at: {folder} cannot be read"));
                    return Ok(check);
                }
                let archive = self.archive()?;
                for n in archive.groups(folder, Order::Position).await? {
                    let group = archive.group(folder, Order::Position, n).await?;
                    check.checked += (group.len() - group.first_after(self.since)) as u64;
                    self.archived_ids(&group, &mut check).await?;
                }
                continue;
            }
            let findings: Vec<String> = sqlx::query_scalar(VERIFY_IDS)
                .bind(month.starts_at)
                .bind(month.ends_at)
                .bind(self.since)
                .bind(self.head.global_position)
                .bind(check.room())
                .fetch_all(&mut self.connection)
                .await?;
            check.find_all(findings);
            let events: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM events WHERE occurred_at >= $1 AND occurred_at < $2 AND global_position > $3 \
                 AND global_position <= $4",
            )
            .bind(month.starts_at)
            .bind(month.ends_at)
            .bind(self.since)
            .bind(self.head.global_position)
            .fetch_one(&mut self.connection)
            .await?;
            check.checked += events.unsigned_abs();
        }
        let known: i64 =
            sqlx::query_scalar("SELECT count(*) FROM event_ids WHERE global_position > $1 AND global_position <= $2")
                .bind(self.since)
                .bind(self.head.global_position)
                .fetch_one(&mut self.connection)
                .await?;
        if known.unsigned_abs() != check.checked {
            check.find(format!("event_ids knows {known} events, and there are {}", check.checked));
        }
        Ok(check)
    }

    async fn archived_ids(&mut self, group: &EventGroup, check: &mut Check) -> Result<(), ArchivingError> {
        let columns = Columns::of(group)?;
        let query = columns.bind(sqlx::query(VERIFY_ARCHIVED_IDS)).bind(check.room());
        let rows = query.fetch_all(&mut self.connection).await?;
        for row in rows {
            check.find(row.try_get(0)?);
        }
        Ok(())
    }

    /// Files and manifests of the archive are what was written. The first check: no other one reads what is not.
    pub async fn archive_files(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("archive");
        for month in self.months() {
            let Some(folder) = month.archived_folder() else { continue };
            let wrong = match self.archived_month(&month, folder).await {
                Ok(wrong) => wrong,
                Err(ArchivingError::Archive(error)) if error.is_about_the_files() => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            if let Some(wrong) = wrong {
                check.find(format!("{}: {wrong}", month.name));
                self.unreadable.push(folder.to_owned());
            }
            check.checked += 1;
        }
        Ok(check)
    }

    /// What is wrong with the files of an archived month.
    async fn archived_month(&self, month: &Month, folder: &str) -> Result<Option<String>, ArchivingError> {
        let archive = self.archive()?;
        archive.forget();
        let (manifest, sha256) = archive.manifest(folder).await?;
        if month.archive_sha256.as_deref() != Some(sha256.as_str()) {
            return Ok(Some(format!("the manifest in {folder} is not the one that the catalogue names")));
        }
        for (order, file) in Order::ALL.iter().zip(&manifest.files) {
            if archive.file_digest(folder, *order).await? != (file.sha256.clone(), file.bytes) {
                return Ok(Some(format!("{folder}/{} is not the file that was written", file.name)));
            }
        }
        let same = events_digest(&archive, folder, Order::Position, &|_| {}).await? == manifest.events_sha256;
        Ok((!same).then(|| format!("the events in {folder} are not those that were written")))
    }

    /// A sample of the snapshots, to be compared with a replay by who can fold.
    pub async fn sample_snapshots(&mut self, most: u32) -> Result<Vec<SampledSnapshot>, ArchivingError> {
        let rows = sqlx::query(VERIFY_SNAPSHOTS).bind(i64::from(most)).fetch_all(&mut self.connection).await?;
        let sampled = rows.iter().map(|row| {
            Ok::<_, sqlx::Error>(SampledSnapshot {
                aggregate_type: row.try_get("aggregate_type")?,
                aggregate_id: row.try_get("aggregate_id")?,
                version: row.try_get("version")?,
                state: row.try_get("state")?,
                occurred_at: row.try_get("occurred_at")?,
                reducer: row.try_get("reducer")?,
                is_whole: row.try_get("is_whole")?,
            })
        });
        Ok(sampled.collect::<Result<_, _>>()?)
    }

    /// Ends the verification; one that has found nothing wrong is where the next one may begin.
    pub async fn close(mut self, all_is_well: bool) -> Result<(), ArchivingError> {
        self.connection.execute("COMMIT").await?;
        if all_is_well {
            sqlx::query(NOTE_VERIFICATION)
                .bind(self.head.global_position)
                .bind(self.head.epoch)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(self.connection.close().await?)
    }
}

/// What a month holds.
struct Held {
    first: (Position, DateTime<Utc>),
    last: (Position, DateTime<Utc>),
    events: u64,
}
