//! Submits an append, counts its outcome, and notifies the snapshotter.

use std::sync::Arc;

use crate::domain::append::{AppendRequest, Outcome};
use crate::domain::event::Recorded;
use crate::metrics::Metrics;
use crate::reducers::snapshotter::Snapshotter;
use crate::store::append::error::AppendError;
use crate::store::append::queue::AppendQueue;

/// The parts of the service that an append uses.
#[derive(Clone, Copy)]
pub struct AppendParts<'a> {
    pub queue: &'a AppendQueue,
    pub metrics: &'a Metrics,
    pub snapshotter: &'a Snapshotter,
    /// The number of events between two snapshots.
    pub snapshot_every: u32,
}

/// The outcome of a request.
#[derive(Debug)]
pub struct Submitted {
    pub outcome: Outcome,
    /// For each append that was written or replayed, whether a client should store a snapshot: the append crossed a
    /// multiple of the snapshot interval, and the type has no reducer. Empty for other outcomes.
    pub snapshot_due: Vec<bool>,
}

impl AppendParts<'_> {
    /// Submits a request, and waits for its outcome.
    pub async fn submit(&self, request: &Arc<AppendRequest>) -> Result<Submitted, AppendError> {
        let timer = self.metrics.append_duration_seconds.start_timer();
        let result = self.queue.submit(request.clone()).await;
        timer.observe_duration();
        self.metrics.appends.with_label_values(&[result_label(&result)]).inc();

        let outcome = result?;
        if let Outcome::Written(places) = &outcome {
            for (append, recorded) in request.appends.iter().zip(&places.appends) {
                self.metrics.count_inserted(append.stream.aggregate_type(), append.events.len() as u64);
                if let Some((first, last)) = first_and_last(recorded) {
                    self.snapshotter.on_append(&append.stream, first.version - 1, last.version);
                }
            }
        }
        let snapshot_due = match &outcome {
            Outcome::Written(places) | Outcome::Replayed(places) => request
                .appends
                .iter()
                .zip(&places.appends)
                .map(|(append, recorded)| self.is_snapshot_due(append.stream.aggregate_type(), recorded))
                .collect(),
            Outcome::VersionConflict(_) | Outcome::EventIdReused(_) | Outcome::EventPartlyKnown(_) => Vec::new(),
        };
        Ok(Submitted { outcome, snapshot_due })
    }

    fn is_snapshot_due(&self, aggregate_type: &str, recorded: &[Recorded]) -> bool {
        let every = i64::from(self.snapshot_every);
        first_and_last(recorded).is_some_and(|(first, last)| {
            i64::from(last.version) / every > i64::from(first.version - 1) / every
                && self.snapshotter.reducer(aggregate_type).is_none()
        })
    }
}

fn first_and_last(recorded: &[Recorded]) -> Option<(&Recorded, &Recorded)> {
    recorded.first().zip(recorded.last())
}

/// Returns the value of the label `result`.
fn result_label(result: &Result<Outcome, AppendError>) -> &'static str {
    match result {
        Ok(Outcome::Written(_)) => "written",
        Ok(Outcome::Replayed(_)) => "replayed",
        Ok(Outcome::VersionConflict(_)) => "version_conflict",
        Ok(Outcome::EventIdReused(_)) => "event_id_reused",
        Ok(Outcome::EventPartlyKnown(_)) => "event_partly_known",
        Err(AppendError::Overloaded) => "overloaded",
        Err(AppendError::ClockSkew) => "clock_skew",
        Err(AppendError::ShuttingDown) => "shutting_down",
        Err(AppendError::Unavailable(_)) => "database_unavailable",
        Err(AppendError::LogMoving) => "log_moving",
        Err(AppendError::OutcomeUnknown) => "outcome_unknown",
        Err(AppendError::Internal(_)) => "internal",
    }
}
