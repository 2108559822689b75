//! Events of a stream, and single events.
//!
//! A read begins with the head of the stream, whose times bound the partitions to read. Events never change, so a page
//! that is read after the head is consistent with it.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::domain::event::{Position, StoredEvent};
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::error::{MissingEvent, StoreError};
use crate::store::fetch_size::FetchSize;
use crate::store::reader::{CatalogueCheck, Reader};
use crate::store::row::event_from_row;
use crate::store::streams::archived::ArchivedStream;
use crate::store::streams::head::StreamHead;
use crate::store::streams::range::{Direction, StreamReadState, VersionRange};

const STREAM_EVENTS_FORWARD: &str = include_str!("../sql/stream_events_forward.sql");
const STREAM_EVENTS_BACKWARD: &str = include_str!("../sql/stream_events_backward.sql");
const EVENT_LOCATION: &str = include_str!("../sql/event_location.sql");
const EVENTS_AT: &str = include_str!("../sql/events_at.sql");
const EVENT_TIME: &str = include_str!("../sql/event_time.sql");
const VERSION_AT: &str = include_str!("../sql/version_at.sql");

/// The events of a stream that a reader wants.
#[derive(Debug, Clone, Copy)]
pub struct StreamRead<'s> {
    pub stream: &'s StreamId,
    pub head: &'s StreamHead,
    /// Versions above the head are ignored.
    pub range: VersionRange,
    /// The largest number of events.
    pub limit: usize,
}

impl Reader {
    /// Delivers the events of a stream in order, until `deliver` stops the read or all are read. Returns the rest of
    /// the range.
    pub async fn read_stream(
        &self,
        read: StreamRead<'_>,
        fetch_size: &mut FetchSize,
        mut deliver: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()> + Send,
    ) -> Result<VersionRange, StoreError> {
        let StreamRead { stream, head, mut range, limit } = read;
        let statement = match range.direction {
            Direction::Forward => STREAM_EVENTS_FORWARD,
            Direction::Backward => STREAM_EVENTS_BACKWARD,
        };
        range.to = range.to.min(head.version);
        let mut state = StreamReadState::new(range, limit);
        let mut catalogue = self.catalogue();
        fetch_size.begin_page();
        while !state.is_done() {
            let mut connection = self.acquire().await?;
            let before = state.range;
            let mut rows = sqlx::query(statement)
                .bind(stream.aggregate_type())
                .bind(stream.aggregate_id())
                .bind(state.range.from)
                .bind(state.range.to)
                .bind(fetch_size.rows_for(state.wanted))
                .bind(head.first_occurred_at)
                .bind(head.last_occurred_at)
                .fetch(&mut *connection);
            let (mut events, mut bytes, mut has_gap) = (0, 0, false);
            while let Some(row) = rows.try_next().await? {
                let event = event_from_row(&row)?;
                if event.version != state.range.next() {
                    has_gap = true;
                    break;
                }
                events += 1;
                bytes += event.approximate_bytes();
                self.raise_high_water_mark(event.global_position);
                if state.deliver(&event, &mut deliver) {
                    break;
                }
            }
            let is_read_to_end = !has_gap && !state.is_stopped && matches!(rows.try_next().await, Ok(None));
            drop(rows);
            if events > 0 {
                fetch_size.adjust(events, bytes);
                if is_read_to_end {
                    connection.hand_off();
                }
                continue;
            }
            // The next version is not in the database: it is in the archive, or missing.
            let check = self.check_catalogue(&mut connection, &catalogue).await?;
            drop(connection);
            let is_unchanged = matches!(check, CatalogueCheck::Unchanged);
            if let CatalogueCheck::Changed(changed) = check {
                catalogue = changed;
            }
            let archived = ArchivedStream { reader: self, catalogue: &catalogue, stream, head };
            if let Err(error) = archived.read(&mut state, &mut deliver).await {
                catalogue = self.catalogue_if_moved(&catalogue, error).await?;
                continue;
            }
            if state.range == before && is_unchanged {
                let version = state.range.next();
                return Err(StoreError::EventMissing(MissingEvent::Version { stream: stream.to_string(), version }));
            }
        }
        Ok(state.range)
    }

    /// Returns the version that a stream had at a time; `None` if it had no event yet.
    pub async fn version_at(
        &self,
        stream: &StreamId,
        head: &StreamHead,
        time: DateTime<Utc>,
    ) -> Result<Option<Version>, StoreError> {
        let mut catalogue = self.catalogue();
        loop {
            let mut connection = self.acquire().await?;
            let in_database: Option<Version> = sqlx::query_scalar(VERSION_AT)
                .bind(stream.aggregate_type())
                .bind(stream.aggregate_id())
                .bind(time)
                .bind(head.first_occurred_at)
                .fetch_optional(&mut *connection)
                .await?;
            let check = self.check_catalogue(&mut connection, &catalogue).await?;
            drop(connection);
            match check {
                CatalogueCheck::Changed(changed) => catalogue = changed,
                CatalogueCheck::Unchanged => {
                    let archived = ArchivedStream { reader: self, catalogue: &catalogue, stream, head };
                    return Ok(in_database.max(archived.version_at(time).await?));
                }
            }
        }
    }

    /// Returns the time of an event of a stream.
    pub async fn event_time(
        &self,
        stream: &StreamId,
        head: &StreamHead,
        version: Version,
    ) -> Result<DateTime<Utc>, StoreError> {
        let in_database = sqlx::query_scalar(EVENT_TIME)
            .bind(stream.aggregate_type())
            .bind(stream.aggregate_id())
            .bind(version)
            .bind(head.first_occurred_at)
            .bind(head.last_occurred_at)
            .fetch_optional(&mut *self.acquire().await?)
            .await?;
        if let Some(time) = in_database {
            return Ok(time);
        }
        let only = StreamRead { stream, head, range: VersionRange::forward(version, version), limit: 1 };
        let mut time = None;
        let deliver = |event: &StoredEvent<'_>| {
            time = Some(event.occurred_at);
            ControlFlow::Break(())
        };
        self.read_stream(only, &mut FetchSize::default(), deliver).await?;
        let missing = MissingEvent::Version { stream: stream.to_string(), version };
        time.ok_or(StoreError::EventMissing(missing))
    }

    /// Passes the event with this id to `convert` and returns the result; `None` if no event has the id.
    pub async fn read_event<T>(
        &self,
        event_id: Uuid,
        convert: impl FnOnce(&StoredEvent<'_>) -> T,
    ) -> Result<Option<T>, StoreError> {
        let location: Option<(Position, DateTime<Utc>)> =
            sqlx::query_as(EVENT_LOCATION).bind(event_id).fetch_optional(&mut *self.acquire().await?).await?;
        let Some((position, occurred_at)) = location else { return Ok(None) };
        let mut catalogue = self.catalogue();
        loop {
            let mut connection = self.acquire().await?;
            let row = sqlx::query(EVENTS_AT)
                .bind([position])
                .bind([occurred_at])
                .bind(occurred_at)
                .bind(occurred_at)
                .fetch_optional(&mut *connection)
                .await?;
            if let Some(row) = row {
                let event = event_from_row(&row)?;
                self.raise_high_water_mark(event.global_position);
                return Ok(Some(convert(&event)));
            }
            let check = self.check_catalogue(&mut connection, &catalogue).await?;
            drop(connection);
            let is_unchanged = matches!(check, CatalogueCheck::Unchanged);
            if let CatalogueCheck::Changed(changed) = check {
                catalogue = changed;
            }
            let found = match self.find_archived_event(&catalogue, position, occurred_at).await {
                Ok(found) => found,
                Err(error) => {
                    catalogue = self.catalogue_if_moved(&catalogue, error).await?;
                    continue;
                }
            };
            if let Some((group, at)) = found {
                return Ok(Some(convert(&group.event(at).map_err(StoreError::unreadable)?)));
            }
            if is_unchanged {
                return Err(StoreError::EventMissing(MissingEvent::AtPosition(position)));
            }
        }
    }
}
