//! The filter of a consumer group.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::filter::EventFilter;

/// The events of a group. The members are the parameters of `GET /events`, without times; an empty list is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupFilter {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aggregate_type: Vec<String>,
    /// Allowed only with exactly one aggregate type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aggregate_id: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_type: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub correlation_id: Vec<Uuid>,
}

impl GroupFilter {
    /// Sorts the values, so that equal filters are equal values.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        fn normalize<T: Ord>(values: &mut Vec<T>) {
            values.sort_unstable();
            values.dedup();
        }
        normalize(&mut self.aggregate_type);
        normalize(&mut self.aggregate_id);
        normalize(&mut self.event_type);
        normalize(&mut self.correlation_id);
        self
    }

    /// Returns the filter of a read of the log.
    pub fn to_event_filter(&self) -> EventFilter {
        EventFilter {
            aggregate_types: self.aggregate_type.clone(),
            aggregate_ids: self.aggregate_id.clone(),
            event_types: self.event_type.clone(),
            correlation_ids: self.correlation_id.clone(),
            ..EventFilter::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_filters_are_equal_values_and_the_json_has_only_conditions() {
        let parse = |text: &str| serde_json::from_str::<GroupFilter>(text).map(GroupFilter::normalized);
        let one = parse(r#"{"aggregate_type": ["b", "a", "b"], "event_type": []}"#).expect("a filter");
        assert_eq!(Some(&one), parse(r#"{"aggregate_type": ["a", "b"]}"#).ok().as_ref());
        assert_eq!(serde_json::to_string(&one).expect("JSON"), r#"{"aggregate_type":["a","b"]}"#);
        assert_eq!(parse("{}").expect("a filter"), GroupFilter::default());
        assert!(parse(r#"{"occurred_from": "2026-01-01T00:00:00Z"}"#).is_err());
    }
}
