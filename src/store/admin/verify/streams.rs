//! Checks the versions of every stream, over all partitions, archived or not.
//!
//! The database lists its streams in byte order, and so does each archived partition. The check merges these lists, so
//! its use of memory does not depend on the number of streams.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::archive::manifest::Order;
use crate::archive::partition::ArchivedPartition;
use crate::archive::place::Archive;
use crate::domain::event::BEGINNING_OF_TIME;
use crate::domain::version::Version;
use crate::store::admin::verify::check::Check;
use crate::store::admin::verify::verifier::Verifier;
use crate::store::partitions::archiver::{ArchivingError, each_event};

const VERIFY_STREAMS: &str = include_str!("../../sql/verify_streams.sql");
const VERIFY_NEW_VERSIONS: &str = include_str!("../../sql/verify_new_versions.sql");

impl Verifier {
    /// Checks that every stream has the versions 1, 2, 3 …, without gaps, up to its head.
    pub async fn versions(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("versions");
        if let Some(folder) = self.damaged_folders.first() {
            check.add_finding(format!("not verified: {folder} cannot be read"));
            return Ok(check);
        }
        // If a new partition is archived already, all streams are verified.
        let archived_since = self.partitions().iter().any(|partition| partition.archived_at.is_some());
        if self.since > 0 && !archived_since {
            let from = self.partitions().first().map_or(BEGINNING_OF_TIME, |partition| partition.starts_at);
            let findings: Vec<String> = sqlx::query_scalar(VERIFY_NEW_VERSIONS)
                .bind(self.since)
                .bind(self.head.global_position)
                .bind(from)
                .bind(check.room())
                .fetch_all(&mut self.connection)
                .await?;
            check.add_findings(findings);
            check.checked = (self.head.global_position - self.since).max(0).unsigned_abs();
            return Ok(check);
        }
        let mut archived = Vec::new();
        for partition in &self.partitions {
            if let Some(partition) = partition.archived() {
                archived.push(ArchivedStreams::open(self.archive()?, partition).await?);
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
                stream = Some(StreamRanges::from_row(name, &row)?);
            }
            if let (Some(stream), Some(first)) = (&mut stream, row.try_get("first_version")?) {
                stream.ranges.push(Range {
                    first,
                    last: row.try_get("last_version")?,
                    events: row.try_get("events")?,
                    from: row.try_get("first_occurred_at")?,
                    to: row.try_get("last_occurred_at")?,
                    is_sealed: row.try_get("is_sealed")?,
                });
            }
        }
        if let Some(stream) = stream {
            stream.check(&mut archived, &mut check).await?;
        }
        for source in archived {
            if let Some((name, _)) = source.next {
                let (folder, (aggregate_type, aggregate_id)) = (source.partition.folder, name);
                check.add_finding(format!(
                    "{folder}: the stream {aggregate_type}/{aggregate_id} is not in the table streams"
                ));
            }
        }
        Ok(check)
    }
}

/// The versions of a stream in one partition.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: Version,
    last: Version,
    events: i64,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    is_sealed: bool,
}

/// A stream with its versions in each partition.
struct StreamRanges {
    name: (String, String),
    /// The sealed version and the times in `streams`.
    head: Option<(Version, DateTime<Utc>, Option<DateTime<Utc>>)>,
    ranges: Vec<Range>,
}

impl StreamRanges {
    fn from_row(name: (String, String), row: &PgRow) -> Result<Self, sqlx::Error> {
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
        let mut report = |what: String| check.add_finding(format!("stream {aggregate_type}/{aggregate_id}: {what}"));
        self.ranges.sort_by_key(|range| range.first);
        let mut last = 0;
        for range in &self.ranges {
            if range.first != last + 1 || i64::from(range.last - range.first) + 1 != range.events {
                report(format!(
                    "versions {} to {} (number of events: {}) follow version {last}",
                    range.first, range.last, range.events
                ));
            }
            last = range.last;
        }
        let Some((version, first_occurred_at, last_occurred_at)) = self.head else {
            report("it is not in the table streams".to_owned());
            return Ok(());
        };
        let sealed = self.ranges.iter().filter(|range| range.is_sealed).map(|range| range.last).max();
        // A partition that is being sealed at this moment may already have its versions in `streams`.
        let is_recorded =
            |range: &Range| range.last == version && Some(range.to) == last_occurred_at && Some(range.last) >= sealed;
        let is_unsealed = version == 0 && last_occurred_at.is_none() && sealed.is_none();
        if !is_unsealed && !self.ranges.iter().any(is_recorded) {
            report(format!(
                "the table streams says version {version}, and its events in sealed partitions do not end there"
            ));
        }
        // A stream that began after the head of this verification has no range.
        if let Some(first) = self.ranges.first()
            && first.from != first_occurred_at
        {
            report(format!(
                "its first event occurred at {}, and the table streams says {first_occurred_at}",
                first.from
            ));
        }
        Ok(())
    }
}

/// The streams of an archived partition, in byte order.
struct ArchivedStreams {
    archive: Arc<Archive>,
    partition: ArchivedPartition,
    /// The row groups that are not read yet.
    groups: std::ops::Range<usize>,
    /// The next stream, with all of its versions.
    next: Option<((String, String), Range)>,
    /// The streams after it that were read. The last one may continue in the next row group.
    read_ahead: VecDeque<((String, String), Range)>,
}

impl ArchivedStreams {
    async fn open(archive: Arc<Archive>, partition: ArchivedPartition) -> Result<Self, ArchivingError> {
        let groups = archive.groups(&partition, Order::Aggregate).await?;
        let mut source = Self { archive, partition, groups, next: None, read_ahead: VecDeque::new() };
        source.advance().await?;
        Ok(source)
    }

    /// Moves the next stream to `next`. It is complete when a later stream, or the end, was read.
    async fn advance(&mut self) -> Result<(), ArchivingError> {
        while self.read_ahead.len() < 2 {
            let Some(n) = self.groups.next() else { break };
            let group = self.archive.group(&self.partition, Order::Aggregate, n).await?;
            each_event(&group, |event| {
                match self.read_ahead.back_mut() {
                    Some((name, range))
                        if (name.0.as_str(), name.1.as_str()) == (event.aggregate_type, event.aggregate_id) =>
                    {
                        // If the versions in a partition have a gap, the number of events is too small.
                        range.last = range.last.max(event.version);
                        range.to = event.occurred_at;
                        range.events += 1;
                    }
                    _ => self.read_ahead.push_back((
                        (event.aggregate_type.to_owned(), event.aggregate_id.to_owned()),
                        Range {
                            first: event.version,
                            last: event.version,
                            events: 1,
                            from: event.occurred_at,
                            to: event.occurred_at,
                            is_sealed: true,
                        },
                    )),
                }
            })?;
        }
        self.next = self.read_ahead.pop_front();
        Ok(())
    }

    /// Takes the versions of a stream. The caller takes streams in byte order.
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
