//! Checks over one connection and one snapshot of the database. Events that are appended in the meantime are not
//! verified.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::{Executor, Row};

use crate::archive::group::EventGroup;
use crate::archive::manifest::Order;
use crate::archive::partition::ArchivedPartition;
use crate::archive::place::Archive;
use crate::clock::Clock;
use crate::domain::append::REQUEST_EVENTS_MAX;
use crate::domain::event::{BEGINNING_OF_TIME, Position};
use crate::domain::version::Version;
use crate::store::admin::verify::check::Check;
use crate::store::connection::session::Session;
use crate::store::error::{DatabaseError, StoreError, has_sqlstate};
use crate::store::log::clocks::compare_clocks;
use crate::store::log::head::{LogHead, read_log_head};
use crate::store::partitions::archiver::{ArchivingError, each_event, events_digest, lock_archive};
use crate::store::partitions::columns::Columns;
use crate::store::partitions::partition::Partition;
use crate::store::primary::Primary;
use crate::store::reader::Reader;

const VERIFY_ORDER: &str = include_str!("../../sql/verify_order.sql");
const VERIFY_IDS: &str = include_str!("../../sql/verify_ids.sql");
const VERIFY_ARCHIVED_IDS: &str = include_str!("../../sql/verify_archived_ids.sql");
const VERIFY_SNAPSHOTS: &str = include_str!("../../sql/verify_snapshots.sql");
const VERIFY_END_OF_LOG: &str = include_str!("../../sql/verify_end_of_log.sql");
const VERIFY_RECORDS: &str = include_str!("../../sql/verify_records.sql");
const RECORD_VERIFICATION: &str = include_str!("../../sql/record_verification.sql");

/// A snapshot to compare with a fold of its events.
#[derive(Debug, Clone)]
pub struct SampledSnapshot {
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub version: Version,
    /// JSON.
    pub state: String,
    pub occurred_at: DateTime<Utc>,
    /// The revision of the reducer that computed it; `None` if a client stored it.
    pub reducer: Option<i64>,
    /// It matches its checksum.
    pub is_intact: bool,
}

/// The counters that a verification has compared with the head of the log.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// The position up to which the statistics are counted.
    pub counted_to: Position,
    /// The last generation of an append.
    pub append_generation: i64,
}

/// A verification in progress.
pub struct Verifier {
    pub(super) connection: Session,
    pub(super) archive: Option<Arc<Archive>>,
    clock: Clock,
    pub(super) partitions: Vec<Partition>,
    pub(super) open_from: DateTime<Utc>,
    /// The first positions of the epochs after the first epoch.
    epochs: Vec<Position>,
    /// Folders of the archive that differ from what was written. Only the first check reads them.
    pub(super) damaged_folders: Vec<String>,
    /// The head of the log when the verification began. Later events are not verified.
    pub head: LogHead,
    /// An earlier verification has covered everything up to this position. If the end of the log was lost, it is beyond
    /// the head: then no event is verified, and the check `records` has a finding.
    pub since: Position,
}

/// Which part of the log to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyFrom {
    TheBeginning,
    /// After the position that the last successful verification reached.
    TheLastVerification,
}

impl Primary {
    /// Begins a verification.
    pub async fn verifier(&self, from: VerifyFrom) -> Result<Verifier, ArchivingError> {
        let mut connection = self.connector.login().await?;
        // A partition that is archived or restored in the meantime would appear to be missing.
        lock_archive(&mut connection).await?;
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let partitions = Partition::read_all(&mut connection).await?;
        let open = partitions.iter().find(|partition| partition.sealed_at.is_none());
        let open_from = open.map_or(BEGINNING_OF_TIME, |partition| partition.starts_at);
        let head = read_log_head(&mut connection, open_from).await?;
        let epochs = sqlx::query_scalar("SELECT first_position FROM epochs WHERE first_position > 1")
            .fetch_all(&mut connection)
            .await?;
        let last: Option<Position> = sqlx::query_scalar("SELECT verified_position FROM verification WHERE epoch = $1")
            .bind(head.epoch)
            .fetch_optional(&mut connection)
            .await?;
        // In another epoch the end of the verified part may have been lost: then the whole log is verified.
        let since = match from {
            VerifyFrom::TheBeginning => 0,
            VerifyFrom::TheLastVerification => last.unwrap_or(0),
        };
        Ok(Verifier {
            connection,
            archive: self.archive.clone(),
            clock: self.clock.clone(),
            partitions,
            open_from,
            epochs,
            damaged_folders: Vec::new(),
            head,
            since,
        })
    }
}

impl Reader {
    /// Returns whether two JSON texts are equal as JSONB.
    pub async fn is_same_json(&self, one: &str, other: &str) -> Result<bool, StoreError> {
        let mut connection = self.acquire().await?;
        Ok(sqlx::query_scalar("SELECT $1::jsonb = $2::jsonb").bind(one).bind(other).fetch_one(&mut *connection).await?)
    }
}

impl Verifier {
    /// Returns whether a position may follow another one: it is the next one, or an epoch began in between.
    fn follows(&self, before: Position, position: Position) -> bool {
        position == before + 1 || self.epochs.iter().any(|first| (before + 1..=position).contains(first))
    }

    /// Returns what is wrong if one event follows another one in the log; `None` if they are in order.
    fn order_fault(&self, before: (Position, DateTime<Utc>), event: (Position, DateTime<Utc>)) -> Option<&'static str> {
        if !self.follows(before.0, event.0) {
            Some("the positions are not consecutive")
        } else {
            (event.1 < before.1).then_some("its time is earlier")
        }
    }

    /// Returns the archive, which must be configured if a partition is archived.
    pub(super) fn archive(&self) -> Result<Arc<Archive>, ArchivingError> {
        self.archive.clone().ok_or(ArchivingError::NoArchive)
    }

    fn is_damaged(&self, folder: &str) -> bool {
        self.damaged_folders.iter().any(|damaged| damaged == folder)
    }

    /// Returns the partitions to verify, oldest first.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        let is_new = |partition: &&Partition| partition.last_position.is_none_or(|last| last > self.since);
        self.partitions.iter().filter(is_new).cloned().collect()
    }

    /// Checks that positions have no gap, that times are in order, and that all partitions match the catalogue.
    pub async fn order(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("order");
        let mut before: Option<(Position, DateTime<Utc>)> = None;
        for partition in self.partitions() {
            let Some(extent) = self.extent(&partition, &mut check).await? else { continue };
            check.checked += extent.events;
            let whole = self.since == 0 || partition.first_position.is_some_and(|first| first > self.since);
            if let Some(facts) = partition.facts().filter(|_| whole)
                && (facts.first_position, facts.last_position, facts.events)
                    != (extent.first.0, extent.last.0, extent.events)
            {
                check.add_finding(format!(
                    "{}: the catalogue says positions {} to {} ({} in all), and the partition has positions {} to {} \
                     ({} in all)",
                    partition.name,
                    facts.first_position,
                    facts.last_position,
                    facts.events,
                    extent.first.0,
                    extent.last.0,
                    extent.events
                ));
            }
            let (position, time) = before.unwrap_or((self.since, BEGINNING_OF_TIME));
            if let Some(fault) = self.order_fault((position, time), extent.first) {
                let first = extent.first.0;
                check.add_finding(format!("{}: position {first} follows position {position}: {fault}", partition.name));
            }
            before = Some(extent.last);
        }
        if let Some((position, _)) = before
            && position != self.head.global_position
        {
            let head = self.head.global_position;
            check.add_finding(format!(
                "the last partition ends at position {position}, and the head of the log is {head}"
            ));
        }
        Ok(check)
    }

    /// Reads the extent of a partition, in the order of the log; `None` if it has no events.
    async fn extent(&mut self, partition: &Partition, check: &mut Check) -> Result<Option<Extent>, ArchivingError> {
        if let Some(archived) = partition.archived() {
            let facts = partition.facts().filter(|_| self.is_damaged(&archived.folder));
            return match facts {
                Some(facts) => Ok(Some(Extent {
                    first: (facts.first_position, facts.first_occurred_at),
                    last: (facts.last_position, facts.last_occurred_at),
                    events: facts.events,
                })),
                None => self.archived_extent(&archived, check).await,
            };
        }
        let row = sqlx::query(VERIFY_ORDER)
            .bind(partition.starts_at)
            .bind(partition.ends_at)
            .bind(self.since)
            .bind(self.head.global_position)
            .bind(check.room())
            .fetch_one(&mut self.connection)
            .await?;
        check.add_findings(row.try_get("findings")?);
        let events: i64 = row.try_get("events")?;
        if events == 0 {
            return Ok(None);
        }
        Ok(Some(Extent {
            first: (row.try_get("first_position")?, row.try_get("first_occurred_at")?),
            last: (row.try_get("last_position")?, row.try_get("last_occurred_at")?),
            events: events.unsigned_abs(),
        }))
    }

    async fn archived_extent(
        &self,
        archived: &ArchivedPartition,
        check: &mut Check,
    ) -> Result<Option<Extent>, ArchivingError> {
        let (archive, folder) = (self.archive()?, &archived.folder);
        let mut extent: Option<Extent> = None;
        for n in archive.groups(archived, Order::Position).await? {
            let group = archive.group(archived, Order::Position, n).await?;
            each_event(&group, |event| {
                let place = (event.global_position, event.occurred_at);
                if place.0 <= self.since {
                    return;
                }
                match &mut extent {
                    None => extent = Some(Extent { first: place, last: place, events: 1 }),
                    Some(extent) => {
                        if let Some(fault) = self.order_fault(extent.last, place) {
                            let (position, before) = (place.0, extent.last.0);
                            check.add_finding(format!(
                                "{folder}: position {position} follows position {before}: {fault}"
                            ));
                        }
                        extent.last = place;
                        extent.events += 1;
                    }
                }
            })?;
        }
        Ok(extent)
    }

    /// Checks that `event_ids` has every event with the same place and content, and no other id.
    pub async fn ids(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("ids");
        for partition in self.partitions() {
            if let Some(archived) = partition.archived() {
                if self.is_damaged(&archived.folder) {
                    check.add_finding(format!("not verified: {} cannot be read", archived.folder));
                    return Ok(check);
                }
                let archive = self.archive()?;
                for n in archive.groups(&archived, Order::Position).await? {
                    let group = archive.group(&archived, Order::Position, n).await?;
                    check.checked += (group.len() - group.first_after(self.since)) as u64;
                    self.archived_ids(&group, &mut check).await?;
                }
                continue;
            }
            let findings: Vec<String> = sqlx::query_scalar(VERIFY_IDS)
                .bind(partition.starts_at)
                .bind(partition.ends_at)
                .bind(self.since)
                .bind(self.head.global_position)
                .bind(check.room())
                .fetch_all(&mut self.connection)
                .await?;
            check.add_findings(findings);
            let events: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM events WHERE occurred_at >= $1 AND occurred_at < $2 AND global_position > $3 \
                 AND global_position <= $4",
            )
            .bind(partition.starts_at)
            .bind(partition.ends_at)
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
            let events = check.checked;
            check.add_finding(format!(
                "the number of events is {known} in the table event_ids, and {events} in the log"
            ));
        }
        Ok(check)
    }

    async fn archived_ids(&mut self, group: &EventGroup, check: &mut Check) -> Result<(), ArchivingError> {
        let columns = Columns::from_group(group)?;
        let query = columns.bind_to(sqlx::query(VERIFY_ARCHIVED_IDS)).bind(check.room());
        let rows = query.fetch_all(&mut self.connection).await?;
        for row in rows {
            check.add_finding(row.try_get(0)?);
        }
        Ok(())
    }

    /// Checks that the log has everything that other tables record of it: ids, streams, sealed partitions, snapshots,
    /// positions, epochs and counts. This finds the loss of the last events, which leaves no gap in the log itself.
    pub async fn records(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("records");
        let findings: Vec<String> = sqlx::query_scalar(VERIFY_END_OF_LOG)
            .bind(self.head.global_position)
            .bind(self.head.epoch)
            .bind(self.open_from)
            .bind(check.room())
            .fetch_all(&mut self.connection)
            .await?;
        check.add_findings(findings);
        let findings: Vec<String> = sqlx::query_scalar(VERIFY_RECORDS)
            .bind(self.head.global_position)
            .bind(self.head.epoch)
            .bind(self.since == 0)
            .bind(REQUEST_EVENTS_MAX as i64)
            .bind(check.room())
            .fetch_all(&mut self.connection)
            .await?;
        check.add_findings(findings);
        let counted = "SELECT (SELECT count(*) FROM streams) + (SELECT count(*) FROM snapshots) \
                       + (SELECT count(*) FROM projection_positions)";
        let records: i64 = sqlx::query_scalar(counted).fetch_one(&mut self.connection).await?;
        check.checked = records.unsigned_abs();
        Ok(check)
    }

    /// Compares the clocks: no event may be in the future.
    pub async fn clocks(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check { checked: 1, ..Check::new("clocks") };
        let compared = compare_clocks(&mut self.connection, &self.clock, self.open_from).await?;
        if compared.is_log_ahead() {
            let seconds = compared.log_ahead.num_seconds();
            check.add_finding(format!(
                "the last event is {seconds} s in the future: later events get its time until the clock has caught up"
            ));
        }
        if compared.is_database_wrong() {
            let seconds = compared.database_ahead.num_seconds();
            let direction = if seconds > 0 { "ahead of" } else { "behind" };
            let seconds = seconds.abs();
            check.add_finding(format!("the clock of PostgreSQL is {seconds} s {direction} the clock of this machine"));
        }
        Ok(check)
    }

    /// Returns how far the proof reaches: the counters that were compared with the head.
    pub async fn reach(&mut self) -> Result<Reach, ArchivingError> {
        let row = sqlx::query(
            "SELECT (SELECT s.as_of_position FROM statistics s) AS counted_to, \
             (SELECT q.last_value FROM append_generation q) AS append_generation",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok(Reach { counted_to: row.try_get("counted_to")?, append_generation: row.try_get("append_generation")? })
    }

    /// Checks that the files and manifests of the archive are what was written. This must be the first check, because
    /// the others skip the folders that it finds damaged.
    pub async fn archive_files(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("archive");
        for partition in self.partitions() {
            let Some(archived) = partition.archived() else { continue };
            let wrong = match self.archive_damage(&archived).await {
                Ok(wrong) => wrong,
                Err(ArchivingError::Archive(error)) if error.is_permanent() => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            if let Some(wrong) = wrong {
                check.add_finding(format!("{}: {wrong}", partition.name));
                self.damaged_folders.push(archived.folder);
            }
            check.checked += 1;
        }
        Ok(check)
    }

    /// Returns what is wrong with the files of an archived partition.
    async fn archive_damage(&self, archived: &ArchivedPartition) -> Result<Option<String>, ArchivingError> {
        let (archive, folder) = (self.archive()?, &archived.folder);
        archive.clear_cache();
        let manifest = archive.manifest(archived).await?;
        for (order, file) in Order::ALL.iter().zip(&manifest.files) {
            if archive.file_digest(folder, *order).await? != (file.sha256.clone(), file.bytes) {
                return Ok(Some(format!("{folder}/{} is not the file that was written", file.name)));
            }
        }
        let same = events_digest(&archive, archived, Order::Position, &|_| {}).await? == manifest.events_sha256;
        Ok((!same).then(|| format!("the events in {folder} are not those that were written")))
    }

    /// Returns a random sample of the snapshots, for the caller to compare with a fold of their events.
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
                is_intact: row.try_get("is_intact")?,
            })
        });
        Ok(sampled.collect::<Result<_, _>>()?)
    }

    /// Ends the verification. One without findings is recorded, and the next one may begin after it. The recorded
    /// position never decreases within an epoch.
    pub async fn close(mut self, has_findings: bool) -> Result<(), ArchivingError> {
        self.connection.execute("COMMIT").await?;
        if !has_findings {
            let recorded = sqlx::query(RECORD_VERIFICATION)
                .bind(self.head.global_position)
                .bind(self.head.epoch)
                .execute(&mut self.connection)
                .await
                .map_err(DatabaseError::from);
            match recorded {
                Ok(recorded) if recorded.rows_affected() == 0 => {
                    tracing::warn!("the verification is not recorded: a later position or epoch is recorded already");
                }
                Ok(_) => {}
                Err(error) if has_sqlstate(&error, "42501") => {
                    tracing::info!("the verification is not recorded for --since-last: the login may only read");
                }
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        Ok(self.connection.close().await?)
    }
}

/// The first and the last event of a partition, and their number.
struct Extent {
    first: (Position, DateTime<Utc>),
    last: (Position, DateTime<Utc>),
    events: u64,
}
