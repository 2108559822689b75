//! Which events of the log a reader wants.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::access::Pattern;
use super::event::StoredEvent;

/// Conditions that an event has to fulfil, all of them; an empty list is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub aggregate_types: Vec<String>,
    /// Only beside exactly one aggregate type.
    pub aggregate_ids: Vec<String>,
    pub event_types: Vec<String>,
    pub correlation_ids: Vec<Uuid>,
    /// Included.
    pub occurred_from: Option<DateTime<Utc>>,
    /// Excluded.
    pub occurred_to: Option<DateTime<Utc>>,
    /// Types that whoever reads may see; `None`: all.
    pub readable: Option<Vec<Pattern>>,
}

/// What a filter asks of an event.
#[derive(Debug, Clone, Copy)]
pub struct EventFacts<'e> {
    pub aggregate_type: &'e str,
    pub aggregate_id: &'e str,
    pub event_type: &'e str,
    pub correlation_id: Option<Uuid>,
    pub occurred_at: DateTime<Utc>,
}

impl EventFilter {
    /// Whether nothing but the time is asked for: times are ordered along the log, so such events lie side by side.
    pub fn is_by_time_alone(&self) -> bool {
        self.aggregate_types.is_empty()
            && self.aggregate_ids.is_empty()
            && self.event_types.is_empty()
            && self.correlation_ids.is_empty()
    }

    /// Whether whoever reads may see an event of this type.
    pub fn may_see(&self, aggregate_type: &str) -> bool {
        self.readable.as_ref().is_none_or(|types| types.iter().any(|pattern| pattern.matches(aggregate_type)))
    }

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
    }
}

impl StoredEvent<'_> {
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
