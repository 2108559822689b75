//! Samples the positions of all projections, so that clients see whether a projection catches up. The samples are in the
//! memory of this process, and begin anew with it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::jobs::repeat::repeat;
use crate::jobs::samples::{Sample, Samples};
use crate::store::error::StoreError;
use crate::store::primary::Primary;

const PAUSE: Duration = Duration::from_secs(10);

/// The positions of all projections over time.
pub struct ProjectionHistory {
    began_at: DateTime<Utc>,
    /// Held while a sample is taken, so that the samples are in the order of their times.
    sampling: Mutex<()>,
    samples: RwLock<Samples>,
}

impl ProjectionHistory {
    /// Creates an empty history, which begins at this time.
    pub fn new(began_at: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self { began_at, sampling: Mutex::default(), samples: RwLock::default() })
    }

    /// Samples all projections.
    pub async fn sample(&self, primary: &Primary, clock: &Clock) -> Result<(), StoreError> {
        let _sampling = self.sampling.lock().await;
        let at = clock.now();
        let positions = primary.all_projection_positions().await?;
        // The head is read later, so that it is not before a position.
        let head = primary.log_head().await?.global_position;
        self.samples.write().unwrap_or_else(PoisonError::into_inner).add(at, head, positions);
        Ok(())
    }

    /// Returns the time from which on the samples are complete, and the samples of a projection, in order.
    pub fn of(&self, projection_name: &str) -> (DateTime<Utc>, Vec<Sample>) {
        let samples = self.samples.read().unwrap_or_else(PoisonError::into_inner);
        (samples.dropped_before().unwrap_or(self.began_at), samples.of(projection_name))
    }
}

/// Runs until shutdown. While the database is unavailable, there are no samples.
pub async fn run(history: Arc<ProjectionHistory>, primary: Arc<Primary>, clock: Clock, closing: CancellationToken) {
    let pass = |_| async {
        if let Err(error) = history.sample(&primary, &clock).await {
            tracing::debug!(%error, "failed to sample the projections");
        }
    };
    repeat(closing, PAUSE, pass).await;
}
