//! `annals verify`: whether the store is what it promises to be, told by everything that is written twice.
//!
//! One connection, one snapshot of the database: what is appended meanwhile is not looked at. The archive is read as it lies
//! there. Nothing is changed but the note how far the verification came.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};

use super::archive::{ArchivingError, Month, each_event};
use super::error::StoreError;
use super::log::{self, LogHead};
use super::{BEGINNING_OF_TIME, Store};
use crate::archive::{Archive, EventDigest, EventGroup, Order};
use crate::domain::event::Position;
use crate::domain::version::Version;

const MONTHS: &str = include_str!("sql/months.sql");
const VERIFY_ORDER: &str = include_str!("sql/verify_order.sql");
const VERIFY_IDS: &str = include_str!("sql/verify_ids.sql");
const VERIFY_ARCHIVED_IDS: &str = include_str!("sql/verify_archived_ids.sql");
const VERIFY_STREAMS: &str = include_str!("sql/verify_streams.sql");
const VERIFY_NEW_VERSIONS: &str = include_str!("sql/verify_new_versions.sql");
const VERIFY_SNAPSHOTS: &str = include_str!("sql/verify_snapshots.sql");
const NOTE_VERIFICATION: &str = include_str!("sql/note_verification.sql");

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
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock('events'::regclass::oid::integer, 3)")
            .fetch_one(&mut connection)
            .await?;
        if !locked {
            return Err(ArchivingError::Busy);
        }
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let rows = sqlx::query(MONTHS).fetch_all(&mut connection).await?;
        let months = rows.iter().map(Month::from_row).collect::<Result<Vec<_>, _>>()?;
        let open = months.iter().find(|month| month.rolled_up_at.is_none());
        let open_from = open.map_or(BEGINNING_OF_TIME, |month| month.starts_at);
        let head = log::head(&mut connection, open_from).await?;
        let last: Option<Position> = sqlx::query_scalar("SELECT verified_position FROM verification WHERE epoch = $1")
            .bind(head.epoch)
            .fetch_optional(&mut connection)
            .await?;
        // In another epoch the end of what was verified may have been lost: then all of it is looked at.
        let since = if since_last { last.unwrap_or(0) } else { 0 };
        Ok(Verifier { connection, archive: self.archive.clone(), months, open_from, head, since })
    }

    /// Whether two JSON texts are the same value for PostgreSQL.
    pub async fn is_same_json(&self, one: &str, other: &str) -> Result<bool, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar("SELECT $1::jsonb = $2::jsonb").bind(one).bind(other).fetch_one(&mut *connection).await?)
    }
}

impl Verifier {
    fn archive(&self) -> Result<Arc<Archive>, ArchivingError> {
        self.archive.clone().ok_or(ArchivingError::NoArchive)
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
        // The log itself begins at 1.
        let epochs: Vec<Position> = sqlx::query_scalar("SELECT first_position FROM epochs WHERE first_position > 1")
            .fetch_all(&mut self.connection)
            .await?;
        for month in self.months() {
            let Some(held) = self.held(&month, &mut check).await? else { continue };
            check.checked += held.events;
            let whole = self.since == 0 || month.first_position.is_some_and(|first| first > self.since);
            if let Some((first, last, events)) = month.facts_in_brief().filter(|_| whole)
                && (first, last, events) != (held.first.0, held.last.0, held.events)
            {
                check.find(format!(
                    "{}: the catalogue says positions {first} to {last} and {events} events, and it has positions {} to {} \
                     and {}",
                    month.name, held.first.0, held.last.0, held.events
                ));
            }
            let (position, time) = before.unwrap_or((self.since, BEGINNING_OF_TIME));
            let begun_between = epochs.iter().any(|first| (position + 1..=held.first.0).contains(first));
            if held.first.1 < time || held.first.0 != position + 1 && !(begun_between && held.first.0 > position) {
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
            return self.held_by_archive(folder, check).await;
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
                match &mut held {
                    None => held = Some(Held { first: stands, last: stands, events: 1 }),
                    Some(held) => {
                        if stands.0 != held.last.0 + 1 || stands.1 < held.last.1 {
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
                let archive = self.archive()?;
                for n in archive.groups(folder, Order::Position).await? {
                    let group = archive.group(folder, Order::Position, n).await?;
                    check.checked += group.len() as u64;
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
        let columns = super::archive::Columns::of(group)?;
        let query = columns.bind(sqlx::query(VERIFY_ARCHIVED_IDS)).bind(check.room());
        let rows = query.fetch_all(&mut self.connection).await?;
        for row in rows {
            check.find(row.try_get(0)?);
        }
        Ok(())
    }

    /// Versions 1, 2, 3 … without a hole in every stream, up to its head.
    pub async fn versions(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("versions");
        if self.since > 0 {
            let from = self.months().first().map_or(BEGINNING_OF_TIME, |month| month.starts_at);
            let findings: Vec<String> = sqlx::query_scalar(VERIFY_NEW_VERSIONS)
                .bind(self.since)
                .bind(self.head.global_position)
                .bind(from)
                .bind(check.room())
                .fetch_all(&mut self.connection)
                .await?;
            check.find_all(findings);
            check.checked = (self.head.global_position - self.since).unsigned_abs();
            return Ok(check);
        }
        let mut archived = Vec::new();
        for month in &self.months {
            if let Some(folder) = month.archived_folder() {
                archived.push(ArchivedStreams::open(self.archive()?, folder.to_owned()).await?);
            }
        }
        let mut rows = sqlx::query(VERIFY_STREAMS)
            .bind(self.head.global_position)
            .bind(self.open_from)
            .fetch(&mut self.connection);
        let mut stream: Option<StreamRanges> = None;
        while let Some(row) = rows.try_next().await? {
            let name: (String, String) = (row.try_get("aggregate_type")?, row.try_get("aggregate_id")?);
            if stream.as_ref().is_none_or(|stream| stream.name != name) {
                if let Some(stream) = stream.take() {
                    stream.check(&mut archived, &mut check).await?;
                }
                stream = Some(StreamRanges::of(name, &row)?);
            }
            if let (Some(stream), Some(first)) = (&mut stream, row.try_get("first_version")?) {
                stream.ranges.push(Range {
                    first,
                    last: row.try_get("last_version")?,
                    events: row.try_get("events")?,
                    from: row.try_get("first_occurred_at")?,
                    to: row.try_get("last_occurred_at")?,
                    is_rolled_up: row.try_get("is_rolled_up")?,
                });
            }
        }
        if let Some(stream) = stream {
            stream.check(&mut archived, &mut check).await?;
        }
        for source in archived {
            if let Some((name, _)) = source.next {
                check.find(format!("{}: the stream {}/{} is not in streams", source.folder, name.0, name.1));
            }
        }
        Ok(check)
    }

    /// Files and manifests of the archive are what was written.
    pub async fn archive_files(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("archive");
        for month in self.months() {
            let Some(folder) = month.archived_folder() else { continue };
            let archive = self.archive()?;
            archive.forget();
            let (manifest, sha256) = archive.manifest(folder).await?;
            if month.archive_sha256.as_deref() != Some(sha256.as_str()) {
                check.find(format!("{folder}: its manifest is not the one that the catalogue names"));
            }
            for (order, file) in Order::ALL.iter().zip(&manifest.files) {
                if archive.file_digest(folder, *order).await? != (file.sha256.clone(), file.bytes) {
                    check.find(format!("{folder}/{}: it is not the file that was written", file.name));
                }
            }
            let mut digest = EventDigest::default();
            for n in archive.groups(folder, Order::Position).await? {
                let group = archive.group(folder, Order::Position, n).await?;
                each_event(&group, |event| digest.add(event))?;
            }
            if digest.finish() != manifest.events_sha256 {
                check.find(format!("{folder}: its events are not those that were written"));
            }
            check.checked += 1;
        }
        Ok(check)
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

/// Versions of a stream that one month has.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: Version,
    last: Version,
    events: i64,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    is_rolled_up: bool,
}

/// A stream, with what the months have of it.
struct StreamRanges {
    name: (String, String),
    /// What is rolled up, and the times, as `streams` says.
    head: Option<(Version, DateTime<Utc>, Option<DateTime<Utc>>)>,
    ranges: Vec<Range>,
}

impl StreamRanges {
    fn of(name: (String, String), row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        let version: Option<Version> = row.try_get("head_version")?;
        let head = match version {
            Some(version) => {
                Some((version, row.try_get("head_first_occurred_at")?, row.try_get("head_last_occurred_at")?))
            }
            None => None,
        };
        Ok(Self { name, head, ranges: Vec::new() })
    }

    async fn check(mut self, archived: &mut [ArchivedStreams], check: &mut Check) -> Result<(), ArchivingError> {
        for source in archived {
            self.ranges.extend(source.take(&self.name).await?);
        }
        check.checked += 1;
        let (aggregate_type, aggregate_id) = &self.name;
        let mut wrong = |what: String| check.find(format!("stream {aggregate_type}/{aggregate_id}: {what}"));
        self.ranges.sort_by_key(|range| range.first);
        let mut last = 0;
        for range in &self.ranges {
            if range.first != last + 1 || i64::from(range.last - range.first) + 1 != range.events {
                wrong(format!(
                    "versions {} to {}, {} events, follow version {last}",
                    range.first, range.last, range.events
                ));
            }
            last = range.last;
        }
        let Some((version, first_occurred_at, last_occurred_at)) = self.head else {
            wrong("it is not in streams".to_owned());
            return Ok(());
        };
        let rolled_up = self.ranges.iter().filter(|range| range.is_rolled_up).max_by_key(|range| range.last);
        if version != rolled_up.map_or(0, |range| range.last) || last_occurred_at != rolled_up.map(|range| range.to) {
            wrong(format!("its head is at version {version}, and its events of closed months are not"));
        }
        // One that began after the snapshot's head has no event yet for us.
        if let Some(first) = self.ranges.first()
            && first.from != first_occurred_at
        {
            wrong(format!("it began {}, and streams says {first_occurred_at}", first.from));
        }
        Ok(())
    }
}

/// The streams of an archived month, in byte order.
struct ArchivedStreams {
    archive: Arc<Archive>,
    folder: String,
    groups: usize,
    group: usize,
    /// Of the group before, where streams may end only in this one.
    next: Option<((String, String), Range)>,
    waiting: std::collections::VecDeque<((String, String), Range)>,
}

impl ArchivedStreams {
    async fn open(archive: Arc<Archive>, folder: String) -> Result<Self, ArchivingError> {
        let groups = archive.groups(&folder, Order::Aggregate).await?.len();
        let mut source =
            Self { archive, folder, groups, group: 0, next: None, waiting: std::collections::VecDeque::new() };
        source.advance().await?;
        Ok(source)
    }

    /// The next stream is complete in `next` once a later one, or the end, has been seen.
    async fn advance(&mut self) -> Result<(), ArchivingError> {
        while self.waiting.len() < 2 && self.group < self.groups {
            let group = self.archive.group(&self.folder, Order::Aggregate, self.group).await?;
            self.group += 1;
            each_event(&group, |event| {
                match self.waiting.back_mut() {
                    Some((name, range))
                        if (name.0.as_str(), name.1.as_str()) == (event.aggregate_type, event.aggregate_id) =>
                    {
                        // A hole within a month shows as too few events.
                        range.last = range.last.max(event.version);
                        range.to = event.occurred_at;
                        range.events += 1;
                    }
                    _ => self.waiting.push_back((
                        (event.aggregate_type.to_owned(), event.aggregate_id.to_owned()),
                        Range {
                            first: event.version,
                            last: event.version,
                            events: 1,
                            from: event.occurred_at,
                            to: event.occurred_at,
                            is_rolled_up: true,
                        },
                    )),
                }
            })?;
        }
        self.next = self.waiting.pop_front();
        Ok(())
    }

    /// What the month has of a stream; streams are asked for in byte order.
    async fn take(&mut self, name: &(String, String)) -> Result<Option<Range>, ArchivingError> {
        match &self.next {
            Some((next, range)) if next == name => {
                let range = *range;
                self.advance().await?;
                Ok(Some(range))
            }
            _ => Ok(None),
        }
    }
}
