//! Filters of the log.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::access::Pattern;
use crate::domain::event::StoredEvent;
use crate::domain::partition::PartitionOf;

/// The conditions that an event must meet. An empty list, or `None`, is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub aggregate_types: Vec<String>,
    /// Allowed only with exactly one aggregate type.
    pub aggregate_ids: Vec<String>,
    pub event_types: Vec<String>,
    pub correlation_ids: Vec<Uuid>,
    /// Inclusive.
    pub occurred_from: Option<DateTime<Utc>>,
    /// Exclusive.
    pub occurred_to: Option<DateTime<Utc>>,
    /// The partition of the streams; `None`: all streams.
    pub partition: Option<PartitionOf>,
    /// The aggregate types that the reader may see; `None`: all.
    pub readable: Option<Vec<Pattern>>,
}

/// The properties of an event that a filter compares.
#[derive(Debug, Clone, Copy)]
pub struct EventFacts<'e> {
    pub aggregate_type: &'e str,
    pub aggregate_id: &'e str,
    pub event_type: &'e str,
    pub correlation_id: Option<Uuid>,
    pub occurred_at: DateTime<Utc>,
}

impl EventFilter {
    /// Returns whether the time is the only condition, and the reader may see all types. Times never decrease along the
    /// log, so the matching events are adjacent.
    pub fn is_by_time_alone(&self) -> bool {
        self.aggregate_types.is_empty()
            && self.aggregate_ids.is_empty()
            && self.event_types.is_empty()
            && self.correlation_ids.is_empty()
            && self.partition.is_none()
            && self.readable.is_none()
    }

    /// Returns whether the reader may see the events of an aggregate type.
    pub fn may_see(&self, aggregate_type: &str) -> bool {
        self.readable.as_ref().is_none_or(|types| types.iter().any(|pattern| pattern.matches(aggregate_type)))
    }

    /// Returns whether an event meets all conditions.
    pub fn matches(&self, event: &EventFacts<'_>) -> bool {
        let one_of = |wanted: &[String], name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
        self.may_see(event.aggregate_type)
            && one_of(&self.aggregate_types, event.aggregate_type)
            && one_of(&self.aggregate_ids, event.aggregate_id)
            && one_of(&self.event_types, event.event_type)
            && (self.correlation_ids.is_empty()
                || event.correlation_id.is_some_and(|id| self.correlation_ids.contains(&id)))
            && self.occurred_from.is_none_or(|from| event.occurred_at >= from)
            && self.occurred_to.is_none_or(|to| event.occurred_at < to)
            // The most expensive comparison is the last one.
            && self.partition.is_none_or(|partition| partition.has(event.aggregate_type, event.aggregate_id))
    }
}

impl StoredEvent<'_> {
    /// Returns the properties that a filter compares.
    pub fn facts(&self) -> EventFacts<'_> {
        EventFacts {
            aggregate_type: self.aggregate_type,
            aggregate_id: self.aggregate_id,
            event_type: self.event_type,
            correlation_id: self.correlation_id,
            occurred_at: self.occurred_at,
        }
    }
}
