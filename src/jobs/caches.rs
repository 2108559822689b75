//! Refreshes cached data that other processes can change: the reducers, and the lag of projections and of the read
//! replica. `/metrics` returns the lag, and never uses the database itself.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::jobs::repeat::repeat;
use crate::metrics::Metrics;
use crate::reducers::snapshotter::Snapshotter;
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::readers::Readers;

const PAUSE: Duration = Duration::from_secs(5);
/// The number of projections with a series of their own: those that were moved last. So unused names cannot displace the
/// projections in use.
const PROJECTIONS_MAX: usize = 200;

/// The parts of the service that the job uses.
pub struct Caches {
    pub primary: Arc<Primary>,
    pub readers: Arc<Readers>,
    pub snapshotter: Arc<Snapshotter>,
    pub metrics: Arc<Metrics>,
    pub closing: CancellationToken,
}

/// Runs until shutdown. While the database is unavailable, the series have their last values, and `/readyz` reports the
/// outage.
pub async fn run(caches: Caches) {
    let pass = |_| async {
        if let Err(error) = caches.refresh().await {
            tracing::debug!(%error, "failed to refresh projections and reducers");
        }
    };
    repeat(caches.closing.clone(), PAUSE, pass).await;
}

impl Caches {
    async fn refresh(&self) -> Result<(), StoreError> {
        self.snapshotter.refresh().await?;
        let mut projections = self.primary.projections().await?;
        projections.sort_by_key(|projection| Reverse(projection.last_processed_at));
        let head = self.primary.log_head().await?.global_position;
        if let Some(replica) = self.readers.replica() {
            // A replica that is away is reported by its own job.
            if let Ok(replica_head) = replica.log_head().await {
                self.metrics.replica_lag_events.set((head - replica_head.global_position).max(0));
            }
        }
        let lags = &self.metrics.projection_lag_events;
        // Removes the series of projections that were deleted, or that are no longer among those moved last.
        lags.reset();
        for projection in projections.iter().take(PROJECTIONS_MAX) {
            lags.with_label_values(&[&projection.projection_name]).set(projection.lag(head));
        }
        Ok(())
    }
}
