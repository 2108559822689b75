//! The number of events before each of some times, from positions alone.
//!
//! Positions have no gaps within an epoch, and times never go backwards along the log. So the last position before a
//! time, without the gaps at the starts of epochs, is the number of events before that time. The result is exact, and
//! the same for every process. The catalogue has the last position of each sealed partition, so only times within a
//! partition are searched: by bisection in the database, or by the statistics of the row groups in the archive, and
//! then in one row group.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::archive::error::ArchiveError;
use crate::archive::found_position::FoundPosition;
use crate::archive::manifest::Order;
use crate::archive::partition::ArchivedPartition;
use crate::domain::event::Position;
use crate::store::connection::session::Session;
use crate::store::error::StoreError;
use crate::store::log::scan::LogSegment;
use crate::store::log::segment::positions_before;
use crate::store::partitions::catalogue::{Catalogue, PlaceBefore};
use crate::store::reader::{CatalogueCheck, Reader};

/// The largest number of row groups that one call reads. Each takes tens of milliseconds.
pub const ARCHIVED_GROUPS_MAX: usize = 100;

const EPOCH_STARTS: &str = include_str!("../sql/epoch_starts.sql");
const FIRST_POSITION_AFTER: &str = include_str!("../sql/first_position_after.sql");

/// Why the numbers of events were not found.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// The times are in more row groups of the archive than one call reads. The field is their number.
    #[error("the times are in {0} row groups of archived partitions")]
    TooManyGroups(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the last event before a time is.
#[derive(Debug, Clone)]
enum Place {
    At(Position),
    /// In a segment of the database, or before it.
    InDatabase(LogSegment),
    /// In an archived partition, or at the position.
    InArchive(Position, Arc<ArchivedPartition>),
}

/// The positions from `from` up to `to`, which no event has, because an epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    from: Position,
    to: Position,
}

/// What the database says: a place for each time, and the gaps. The gaps in archived partitions are open questions.
struct InDatabase {
    places: Vec<Place>,
    gaps: Vec<Gap>,
    archived_starts: ArchivedStarts,
}

/// The positions at which epochs begin in archived partitions, and the partitions.
type ArchivedStarts = Vec<(Position, Arc<ArchivedPartition>)>;

impl Reader {
    /// Returns the number of events before each of some times, which are in order.
    pub async fn count_events_before(&self, times: &[DateTime<Utc>]) -> Result<Vec<Position>, CountError> {
        let InDatabase { places, mut gaps, archived_starts } = self.find_in_database(times).await?;
        let positions = self.find_in_archive(times, places).await?;
        for (start, partition) in archived_starts {
            let failed = |error: ArchiveError| self.archive_error(&partition, &error);
            let first = self.archive()?.first_position_after(&partition, start - 1).await.map_err(failed)?;
            gaps.extend(first.and_then(|first| Gap::between(start, first)));
        }
        Ok(positions.into_iter().map(|position| position - missing_up_to(position, &gaps)).collect())
    }

    /// Finds the positions of the times that are not in archived partitions.
    async fn find_in_database(&self, times: &[DateTime<Utc>]) -> Result<InDatabase, StoreError> {
        loop {
            let mut connection = self.acquire().await?;
            let (catalogue, head) = self.catalogue_and_head(&mut connection).await?;
            let Some(head_time) = head.occurred_at else {
                let places = vec![Place::At(0); times.len()];
                return Ok(InDatabase { places, gaps: Vec::new(), archived_starts: Vec::new() });
            };
            let place = |time: &DateTime<Utc>| {
                if *time > head_time {
                    return Place::At(head.global_position);
                }
                place_before(&catalogue, *time, head.global_position, head_time)
            };
            let places: Vec<_> = times.iter().map(place).collect();
            let places = search_segments(&mut connection, times, places).await?;
            let (gaps, archived_starts) = find_gaps(&mut connection, &catalogue, head_time).await?;
            // A partition that was archived in the meantime looked empty.
            if let CatalogueCheck::Unchanged = self.check_catalogue(&mut connection, &catalogue).await? {
                return Ok(InDatabase { places, gaps, archived_starts });
            }
        }
    }

    /// Finds the positions of the times in archived partitions.
    async fn find_in_archive(&self, times: &[DateTime<Utc>], places: Vec<Place>) -> Result<Vec<Position>, CountError> {
        let mut positions = Vec::with_capacity(places.len());
        // The times whose position is in a row group: their index, the partition and the row group.
        let mut in_groups = Vec::new();
        for (index, place) in places.into_iter().enumerate() {
            let position = match place {
                Place::At(position) => position,
                // Every segment of the database was searched.
                Place::InDatabase(segment) => segment.after,
                Place::InArchive(after, partition) => {
                    let failed = |error: ArchiveError| self.archive_error(&partition, &error);
                    match self.archive()?.last_position_before(&partition, times[index]).await.map_err(failed)? {
                        FoundPosition::At(position) => position.unwrap_or(after),
                        FoundPosition::InGroup(n) => {
                            in_groups.push((index, partition.clone(), n));
                            after
                        }
                    }
                }
            };
            positions.push(position);
        }
        let groups: BTreeSet<(&str, usize)> =
            in_groups.iter().map(|(_, partition, n)| (partition.name.as_str(), *n)).collect();
        if groups.len() > ARCHIVED_GROUPS_MAX {
            return Err(CountError::TooManyGroups(groups.len()));
        }
        for (index, partition, n) in &in_groups {
            let failed = |error: ArchiveError| self.archive_error(partition, &error);
            let group = self.archive()?.group(partition, Order::Position, *n).await.map_err(failed)?;
            if let Some(position) = group.last_position_before(times[*index]) {
                positions[*index] = position;
            }
        }
        Ok(positions)
    }
}

impl Place {
    /// Returns whether both places are in the same segment of the database.
    fn is_in_segment_of(&self, other: &Self) -> bool {
        matches!((self, other), (Self::InDatabase(one), Self::InDatabase(other)) if one.after == other.after)
    }
}

impl Gap {
    /// Returns the gap between the start of an epoch and its first event; `None` if there is none.
    fn between(start: Position, first: Position) -> Option<Self> {
        (start < first).then_some(Self { from: start, to: first - 1 })
    }
}

/// Returns the place of the last event before a time, which is not after the head.
fn place_before(catalogue: &Catalogue, time: DateTime<Utc>, head: Position, head_time: DateTime<Utc>) -> Place {
    match catalogue.place_before(time) {
        PlaceBefore::At(position) => Place::At(position),
        PlaceBefore::Open(after) => {
            let (earliest, latest) = (catalogue.open_from, head_time);
            Place::InDatabase(LogSegment { after, to: head, earliest, latest, archived: None })
        }
        PlaceBefore::Sealed(after, partition) => match &partition.archived {
            Some(archived) => Place::InArchive(after, archived.clone()),
            None => Place::InDatabase(LogSegment {
                after,
                to: partition.last_position,
                earliest: partition.starts_at,
                latest: partition.ends_at - TimeDelta::microseconds(1),
                archived: None,
            }),
        },
    }
}

/// Replaces the places in segments of the database by positions, with one statement for each segment.
async fn search_segments(
    connection: &mut Session,
    times: &[DateTime<Utc>],
    places: Vec<Place>,
) -> Result<Vec<Place>, StoreError> {
    let mut found = Vec::with_capacity(places.len());
    for same in places.chunk_by(Place::is_in_segment_of) {
        match &same[0] {
            Place::InDatabase(segment) => {
                let times = &times[found.len()..found.len() + same.len()];
                let positions = positions_before(connection, times, segment).await?;
                found.extend(positions.into_iter().map(Place::At));
            }
            other => found.push(other.clone()),
        }
    }
    Ok(found)
}

/// Finds the gaps at the starts of epochs, and the starts in archived partitions.
async fn find_gaps(
    connection: &mut Session,
    catalogue: &Catalogue,
    head_time: DateTime<Utc>,
) -> Result<(Vec<Gap>, ArchivedStarts), StoreError> {
    let starts: Vec<Position> = sqlx::query_scalar(EPOCH_STARTS).fetch_all(&mut *connection).await?;
    let (mut gaps, mut archived_starts) = (Vec::new(), Vec::new());
    // The first epoch begins with the log.
    for start in starts.into_iter().filter(|start| *start > 1) {
        let (earliest, latest) = match catalogue.sealed_partition_after(start - 1) {
            None => (catalogue.open_from, head_time),
            Some(partition) => match &partition.archived {
                Some(archived) => {
                    archived_starts.push((start, archived.clone()));
                    continue;
                }
                None => (partition.starts_at, partition.ends_at),
            },
        };
        let first: Option<Position> = sqlx::query_scalar(FIRST_POSITION_AFTER)
            .bind(start - 1)
            .bind(earliest)
            .bind(latest)
            .fetch_optional(&mut *connection)
            .await?;
        gaps.extend(first.and_then(|first| Gap::between(start, first)));
    }
    Ok((gaps, archived_starts))
}

/// Returns the number of positions up to a position that no event has.
fn missing_up_to(position: Position, gaps: &[Gap]) -> Position {
    gaps.iter().map(|gap| (position.min(gap.to) - gap.from + 1).max(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_positions_of_gaps_are_not_counted() {
        assert_eq!((Gap::between(11, 11), Gap::between(11, 14)), (None, Some(Gap { from: 11, to: 13 })));
        let gaps = [Gap { from: 11, to: 13 }, Gap { from: 21, to: 21 }];
        let counted = [0, 10, 12, 13, 14, 20, 22].map(|position| position - missing_up_to(position, &gaps));
        assert_eq!(counted, [0, 10, 10, 10, 11, 17, 18]);
    }
}
