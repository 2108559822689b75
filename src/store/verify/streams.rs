//! Versions: every stream, with what each month has of it, wherever that is.
//!
//! The database lists its streams in byte order, and so does each archived month: they are gone through side by side, and
//! little is held in memory, however many there are.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{Check, Verifier};
use crate::archive::{Archive, Order};
use crate::domain::version::Version;
use crate::store::BEGINNING_OF_TIME;
use crate::store::archive::{ArchivingError, each_event};

const VERIFY_STREAMS: &str = include_str!("../sql/verify_streams.sql");
const VERIFY_NEW_VERSIONS: &str = include_str!("../sql/verify_new_versions.sql");

impl Verifier {
    /// Versions 1, 2, 3 … without a hole in every stream, up to its head.
    pub async fn versions(&mut self) -> Result<Check, ArchivingError> {
        let mut check = Check::new("versions");
        if let Some(folder) = self.unreadable.first() {
            check.find(format!("not looked at: {folder} cannot be read"));
            return Ok(check);
        }
        // What was archived since is looked at with everything else.
        let archived_since = self.months().iter().any(|month| month.archived_folder().is_some());
        if self.since > 0 && !archived_since {
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
    fn of(name: (String, String), row: &PgRow) -> Result<Self, sqlx::Error> {
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
        let rolled_up = self.ranges.iter().filter(|range| range.is_rolled_up).map(|range| range.last).max();
        // A month that is just being rolled up may be noted already.
        let is_noted = |range: &Range| {
            range.last == version && Some(range.to) == last_occurred_at && Some(range.last) >= rolled_up
        };
        let none_is = version == 0 && last_occurred_at.is_none() && rolled_up.is_none();
        if !none_is && !self.ranges.iter().any(is_noted) {
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
    /// Row groups that are still to be read.
    groups: std::ops::Range<usize>,
    /// The stream that comes next, all of it.
    next: Option<((String, String), Range)>,
    /// What was read after it; the last of these may go on in the next row group.
    waiting: VecDeque<((String, String), Range)>,
}

impl ArchivedStreams {
    async fn open(archive: Arc<Archive>, folder: String) -> Result<Self, ArchivingError> {
        let groups = archive.groups(&folder, Order::Aggregate).await?;
        let mut source = Self { archive, folder, groups, next: None, waiting: VecDeque::new() };
        source.advance().await?;
        Ok(source)
    }

    /// The next stream is complete in `next` once a later one, or the end, has been seen.
    async fn advance(&mut self) -> Result<(), ArchivingError> {
        while self.waiting.len() < 2 {
            let Some(n) = self.groups.next() else { break };
            let group = self.archive.group(&self.folder, Order::Aggregate, n).await?;
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
