//! The statements that find the events in a window that match a filter, through the index that fits the filter best.

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;

use crate::domain::event::Position;
use crate::domain::filter::EventFilter;
use crate::store::log::readable::WantedTypes;

/// The statements of one direction, by the index that they use.
pub(super) struct MatchStatements {
    by_aggregate: &'static str,
    by_aggregate_type: &'static str,
    by_correlation: &'static str,
    by_event_type: &'static str,
    by_position: &'static str,
}

/// The statements that return the oldest matches first.
pub(super) const FORWARD: MatchStatements = MatchStatements {
    by_aggregate: include_str!("../sql/log_events_by_aggregate.sql"),
    by_aggregate_type: include_str!("../sql/log_events_by_aggregate_type.sql"),
    by_correlation: include_str!("../sql/log_events_by_correlation.sql"),
    by_event_type: include_str!("../sql/log_events_by_event_type.sql"),
    by_position: include_str!("../sql/log_events_by_position.sql"),
};

/// The statements that return the newest matches first.
pub(super) const BACKWARD: MatchStatements = MatchStatements {
    by_aggregate: include_str!("../sql/log_events_by_aggregate_backward.sql"),
    by_aggregate_type: include_str!("../sql/log_events_by_aggregate_type_backward.sql"),
    by_correlation: include_str!("../sql/log_events_by_correlation_backward.sql"),
    by_event_type: include_str!("../sql/log_events_by_event_type_backward.sql"),
    by_position: include_str!("../sql/log_events_by_position_backward.sql"),
};

/// A window of the log: the positions after `after` and up to `to`, and the times between which their events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) after: Position,
    pub(super) to: Position,
    pub(super) earliest: DateTime<Utc>,
    pub(super) latest: DateTime<Utc>,
}

/// Returns the statement that returns the first matches in a window, at most `rows`.
pub(super) fn matches_query<'f>(
    statements: &MatchStatements,
    filter: &'f EventFilter,
    types: &'f WantedTypes,
    window: Window,
    rows: i64,
) -> Query<'f, Postgres, PgArguments> {
    fn null_if_empty<T>(values: &[T]) -> Option<&[T]> {
        (!values.is_empty()).then_some(values)
    }
    let Window { after, to, earliest, latest } = window;
    let within = |statement| sqlx::query(statement).bind(after).bind(to).bind(earliest).bind(latest).bind(rows);
    let all_of = |names: Option<&'f [String]>, prefixes: &'f [String]| {
        within(statements.by_position).bind(names).bind(prefixes).bind(null_if_empty(&filter.event_types))
    };
    let query = match types {
        WantedTypes::Many { names, prefixes } if filter.correlation_ids.is_empty() => all_of(Some(names), prefixes),
        // The partition is the only condition.
        WantedTypes::All if filter.event_types.is_empty() && filter.correlation_ids.is_empty() => all_of(None, &[]),
        types => {
            // Of many types, the few events with a correlation id are compared after they are fetched.
            let listed = if let WantedTypes::Listed(types) = types { Some(types.as_slice()) } else { None };
            within(statements.for_filter(filter))
                .bind(listed)
                .bind(null_if_empty(&filter.aggregate_ids))
                .bind(null_if_empty(&filter.event_types))
                .bind(null_if_empty(&filter.correlation_ids))
        }
    };
    query
        .bind(filter.partition.map(|partition| i32::from(partition.partition())))
        .bind(filter.partition.map(|partition| i32::from(partition.partitions())))
}

impl MatchStatements {
    /// Returns the statement with the index that is likely to return the fewest events that do not match.
    fn for_filter(&self, filter: &EventFilter) -> &'static str {
        if !filter.correlation_ids.is_empty() {
            self.by_correlation
        } else if !filter.aggregate_ids.is_empty() {
            self.by_aggregate
        } else if !filter.event_types.is_empty() && filter.readable.is_none() {
            self.by_event_type
        } else {
            // Types that the reader may not see can have events of the same event type, so the reader's own types
            // decide.
            self.by_aggregate_type
        }
    }
}
