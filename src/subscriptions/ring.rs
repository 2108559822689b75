//! The ring: the last events of the log, encoded once for all subscribers; bounded in events and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::erasure::ErasureNo;
use crate::domain::event::{Position, StoredEvent};
use crate::domain::filter::EventFacts;
use crate::domain::version::Version;
use crate::mutants;
use crate::wire::event::write_event;

/// An event as subscribers receive it, with the fields that filters compare.
#[derive(Debug)]
pub struct LiveEvent {
    pub global_position: Position,
    pub version: Version,
    pub json: Bytes,
    pub event_id: Uuid,
    pub aggregate_type: Box<str>,
    pub aggregate_id: Box<str>,
    pub event_type: Box<str>,
    correlation_id: Option<Uuid>,
    occurred_at: DateTime<Utc>,
}

impl LiveEvent {
    /// Encodes an event.
    pub fn new(event: &StoredEvent<'_>) -> Self {
        Self {
            global_position: event.global_position,
            version: event.version,
            json: encode(event).into(),
            event_id: event.event_id,
            aggregate_type: event.aggregate_type.into(),
            aggregate_id: event.aggregate_id.into(),
            event_type: event.event_type.into(),
            correlation_id: event.correlation_id,
            occurred_at: event.occurred_at,
        }
    }

    /// Returns the fields that filters compare.
    pub fn facts(&self) -> EventFacts<'_> {
        EventFacts {
            aggregate_type: &self.aggregate_type,
            aggregate_id: &self.aggregate_id,
            event_type: &self.event_type,
            correlation_id: self.correlation_id,
            occurred_at: self.occurred_at,
        }
    }
}

/// Encodes an event as subscribers receive it.
fn encode(event: &StoredEvent<'_>) -> Vec<u8> {
    let mut json = Vec::with_capacity(256 + event.event_data.len());
    write_event(&mut json, event);
    json
}

/// A contiguous part of the log: all events after `from` and up to `to`.
pub(super) struct Ring {
    /// 0 until the tailer has read the log.
    epoch: Epoch,
    from: Position,
    to: Position,
    events: VecDeque<Arc<LiveEvent>>,
    bytes: usize,
    events_max: usize,
    bytes_max: usize,
    /// The number of times that the log was found shorter than before.
    rewinds: u64,
    /// The newest erasure when the events were read.
    erasure: ErasureNo,
}

/// The result of reading the ring.
pub(super) enum Found {
    /// The next events. They are all events up to the position `to`.
    Events { epoch: Epoch, events: Vec<Arc<LiveEvent>>, to: Position },
    /// The next event is not in the ring.
    Behind,
    /// The tailer has not read the log yet.
    NotStarted,
}

impl Ring {
    /// Creates an empty ring with these limits.
    pub(super) fn new(events_max: usize, bytes_max: usize) -> Self {
        Self {
            epoch: 0,
            from: 0,
            to: 0,
            events: VecDeque::new(),
            bytes: 0,
            events_max,
            bytes_max,
            rewinds: 0,
            erasure: 0,
        }
    }

    /// Returns whether the tailer has read the log.
    pub(super) fn has_started(&self) -> bool {
        self.epoch > 0
    }

    /// Returns the number of times that the log was found shorter than before.
    pub(super) fn rewinds(&self) -> u64 {
        self.rewinds
    }

    /// Returns the cursor of the end of the ring.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { epoch: Some(self.epoch), position: self.to }
    }

    /// Clears the ring, which then begins after a position. Its events will be those after an erasure.
    pub(super) fn restart(&mut self, epoch: Epoch, position: Position, erasure: ErasureNo) {
        self.erasure = erasure;
        self.rewinds += u64::from(position < self.to);
        self.events.clear();
        self.bytes = 0;
        (self.epoch, self.from, self.to) = (epoch, position, position);
    }

    /// Adds the next events, which are all events up to `to`. The oldest events are removed when a limit is exceeded.
    pub(super) fn extend(&mut self, epoch: Epoch, events: &[Arc<LiveEvent>], to: Position) {
        self.epoch = epoch;
        for event in events {
            debug_assert!(event.global_position > self.to);
            self.bytes += event.json.len();
            self.to = event.global_position;
            self.events.push_back(event.clone());
        }
        self.to = self.to.max(to);
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.json.len();
            self.from = oldest.global_position;
        }
    }

    /// Returns the newest erasure when the events were read.
    pub(super) fn erasure(&self) -> ErasureNo {
        self.erasure
    }

    /// Returns the events after `position`, with about `bytes` bytes at most. `erasure` is the newest erasure: events that
    /// were read before it may have erased content, and are not returned.
    pub(super) fn read(&self, position: Position, bytes: usize, erasure: ErasureNo) -> Found {
        if self.epoch == 0 {
            return Found::NotStarted;
        }
        let is_outdated = self.erasure != erasure && position < self.to && !mutants::is(mutants::RING_NOT_RESTARTED);
        if position < self.from || is_outdated {
            return Found::Behind;
        }
        let first = self.events.partition_point(|event| event.global_position <= position);
        let mut size = 0;
        let room = |event: &&Arc<LiveEvent>| {
            let fits = size < bytes;
            size += event.json.len();
            fits
        };
        let events: Vec<_> = self.events.range(first..).take_while(room).cloned().collect();
        let all = first + events.len() == self.events.len();
        let to = match events.last() {
            Some(last) if !all => last.global_position,
            _ => self.to.max(position),
        };
        Found::Events { epoch: self.epoch, events, to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: Position) -> Arc<LiveEvent> {
        let stored = StoredEvent {
            event_id: Uuid::nil(),
            aggregate_type: "T",
            aggregate_id: "1",
            version: 1,
            global_position: position,
            event_type: "E",
            event_data: "1",
            metadata: None,
            occurred_at: DateTime::UNIX_EPOCH,
            correlation_id: None,
            causation_id: None,
        };
        Arc::new(LiveEvent { json: vec![b'x'; 10].into(), ..LiveEvent::new(&stored) })
    }

    fn positions(ring: &Ring, after: Position, bytes: usize) -> Option<(Vec<Position>, Position)> {
        match ring.read(after, bytes, ring.erasure()) {
            Found::Behind | Found::NotStarted => None,
            Found::Events { events, to, .. } => Some((events.iter().map(|event| event.global_position).collect(), to)),
        }
    }

    #[test]
    fn the_ring_is_contiguous_and_reports_readers_that_are_behind() {
        let mut ring = Ring::new(3, 1_000);
        ring.restart(1, 10, 0);
        assert_eq!(positions(&ring, 9, 100), None);
        assert_eq!(positions(&ring, 10, 100), Some((vec![], 10)));
        ring.extend(1, &[event(11), event(12)], 12);
        assert_eq!(positions(&ring, 10, 100), Some((vec![11, 12], 12)));
        assert_eq!(positions(&ring, 11, 100), Some((vec![12], 12)));
        // A reader that is ahead of the tailer.
        assert_eq!(positions(&ring, 20, 100), Some((vec![], 20)));
        ring.extend(1, &[event(13), event(14)], 15);
        assert_eq!(positions(&ring, 10, 100), None);
        assert_eq!(positions(&ring, 11, 100), Some((vec![12, 13, 14], 15)));
        // A part of the ring: the reader continues after the part.
        assert_eq!(positions(&ring, 11, 10), Some((vec![12], 12)));
        assert_eq!(positions(&ring, 11, 11), Some((vec![12, 13], 13)));
        assert_eq!(positions(&ring, 13, 1), Some((vec![14], 15)));
        ring.restart(2, 12, 0);
        assert_eq!((positions(&ring, 12, 100), ring.cursor().epoch), (Some((vec![], 12)), Some(2)));
    }

    #[test]
    fn events_that_were_read_before_an_erasure_are_not_returned() {
        let mut ring = Ring::new(3, 1_000);
        ring.restart(1, 10, 4);
        ring.extend(1, &[event(11)], 11);
        assert!(matches!(ring.read(10, 100, 4), Found::Events { .. }));
        assert!(matches!(ring.read(10, 100, 5), Found::Behind));
        // A reader at the end needs none of them.
        assert!(matches!(ring.read(11, 100, 5), Found::Events { .. }));
    }

    #[test]
    fn the_ring_is_bounded_in_bytes() {
        let mut ring = Ring::new(100, 25);
        ring.extend(1, &(1..=5).map(event).collect::<Vec<_>>(), 5);
        assert_eq!(positions(&ring, 2, 100), None);
        assert_eq!(positions(&ring, 3, 100), Some((vec![4, 5], 5)));
    }
}
