//! Reports events that must exist and were not found. Such a log is damaged, and an operator has to act.

use crate::metrics::Metrics;
use crate::store::error::StoreError;

/// Counts and logs a missing event.
pub fn report_missing_event(metrics: &Metrics, cause: &str) {
    metrics.missing_events.inc();
    tracing::error!(cause, "an event is missing from the log");
}

/// Reports the error if it is about a missing event. Streamed responses use it for errors after their head was sent,
/// because they cannot return a problem any more.
pub fn report_if_event_missing(metrics: &Metrics, error: &StoreError) {
    if let StoreError::EventMissing(_) = error {
        report_missing_event(metrics, &error.to_string());
    }
}
