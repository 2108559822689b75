//! The window of a group: a contiguous part of the log with the group's events, by partition; bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::domain::cursor::Epoch;
use crate::domain::event::Position;
use crate::domain::partition::{Partition, bucket};
use crate::mutants;
use crate::store::groups::parked::{FailedEvent, NewParkedStream};
use crate::subscriptions::ring::LiveEvent;

/// The approximate memory of an event beside its JSON.
const EVENT_BYTES: usize = 200;

/// The events of a group after `from` and up to `to`.
pub(super) struct Window {
    /// 0 until the log is read.
    pub(super) epoch: Epoch,
    from: Position,
    to: Position,
    /// The events of each partition, in order.
    partitions: Vec<VecDeque<GroupEvent>>,
    /// The position and the size of each event, in order.
    sizes: VecDeque<(Position, usize)>,
    bytes: usize,
}

/// An event of the group.
#[derive(Debug, Clone)]
pub(super) struct GroupEvent {
    pub(super) bucket: u8,
    pub(super) event: Arc<LiveEvent>,
}

impl GroupEvent {
    /// Computes the bucket of the event's stream.
    pub(super) fn new(event: Arc<LiveEvent>) -> Self {
        Self { bucket: bucket(&event.aggregate_type, &event.aggregate_id), event }
    }

    /// Returns the position of the event.
    pub(super) fn position(&self) -> Position {
        self.event.global_position
    }

    /// Returns its stream as one to park, because the event has failed.
    pub(super) fn to_parked(&self, attempts: i32, reason: String, retry_seconds: Option<i32>) -> NewParkedStream {
        NewParkedStream {
            aggregate_type: self.event.aggregate_type.to_string(),
            aggregate_id: self.event.aggregate_id.to_string(),
            bucket: i16::from(self.bucket),
            last_processed_position: self.position() - 1,
            event: self.to_failed(),
            attempts,
            reason,
            retry_seconds,
        }
    }

    /// Returns what identifies the event, if it has failed.
    pub(super) fn to_failed(&self) -> FailedEvent {
        FailedEvent {
            event_id: self.event.event_id,
            event_type: self.event.event_type.to_string(),
            version: self.event.version,
            global_position: self.position(),
        }
    }
}

/// Returns the partition of a bucket, if the group has this number of partitions.
pub(super) fn partition_of(bucket: impl Into<i16>, partitions: i16) -> Partition {
    bucket.into() % partitions.max(1)
}

impl Window {
    /// Creates an empty window that begins after a position.
    pub(super) fn new(partitions: i16, after: Position) -> Self {
        let count = usize::try_from(partitions).unwrap_or(1);
        Self {
            epoch: 0,
            from: after,
            to: after,
            partitions: vec![VecDeque::new(); count],
            sizes: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Returns the position after which the window begins.
    pub(super) fn from(&self) -> Position {
        self.from
    }

    /// Returns the position up to which the window has all events.
    pub(super) fn to(&self) -> Position {
        self.to
    }

    /// Returns the approximate memory of the events.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of partitions.
    pub(super) fn partitions(&self) -> i16 {
        i16::try_from(self.partitions.len()).unwrap_or(i16::MAX)
    }

    /// Adds the events up to a position.
    pub(super) fn extend(&mut self, epoch: Epoch, events: Vec<GroupEvent>, to: Position) {
        self.epoch = epoch;
        let partitions = self.partitions();
        for event in events {
            debug_assert!(event.position() > self.to);
            let size = event.event.json.len() + EVENT_BYTES;
            self.bytes += size;
            self.sizes.push_back((event.position(), size));
            let partition = usize::try_from(partition_of(event.bucket, partitions)).unwrap_or(0);
            self.partitions[partition].push_back(event);
        }
        self.to = self.to.max(to);
    }

    /// Returns the position up to which events must be removed, so that at most `bytes_max` bytes are left; the window's
    /// beginning, if none must be.
    pub(super) fn excess(&self, bytes_max: usize) -> Position {
        let (mut bytes, mut from) = (self.bytes, self.from);
        // The last event stays, however large it is: otherwise it would be read again and again.
        for (position, size) in self.sizes.iter().take(self.sizes.len().saturating_sub(1)) {
            if bytes <= bytes_max {
                break;
            }
            bytes -= size;
            from = *position;
        }
        from
    }

    /// Removes the events up to a position.
    pub(super) fn begin_after(&mut self, position: Position) {
        self.from = self.from.max(position);
        while let Some((_, size)) = self.sizes.pop_front_if(|(first, _)| *first <= position) {
            self.bytes -= size;
        }
        for events in &mut self.partitions {
            while events.pop_front_if(|event| event.position() <= position).is_some() {}
        }
    }

    /// Returns the events of a partition after a position, in order.
    pub(super) fn events(&self, partition: Partition, after: Position) -> impl Iterator<Item = &GroupEvent> {
        let events = usize::try_from(partition).ok().and_then(|partition| self.partitions.get(partition));
        events.into_iter().flat_map(move |events| {
            let first = events.partition_point(|event| event.position() <= after);
            events.range(first..)
        })
    }

    /// Divides the events among another number of partitions.
    pub(super) fn divide(&mut self, partitions: i16) {
        let number = if mutants::is(mutants::FORMER_PARTITIONS) { self.partitions() } else { partitions };
        let mut events: Vec<_> = self.partitions.drain(..).flatten().collect();
        events.sort_unstable_by_key(GroupEvent::position);
        self.partitions = vec![VecDeque::new(); usize::try_from(partitions).unwrap_or(1)];
        for event in events {
            let partition = usize::try_from(partition_of(event.bucket, number)).unwrap_or(0);
            self.partitions[partition].push_back(event);
        }
    }
}
