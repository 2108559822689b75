//! Checks the read replica once a second. While it is away, the primary serves its reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::jobs::repeat::repeat;
use crate::metrics::Metrics;
use crate::store::readers::Readers;

const PAUSE: Duration = Duration::from_secs(1);

/// Checks the replica once, and returns the task that repeats the check until shutdown. It logs one line when the replica
/// is away, and one when it is back.
pub async fn start(
    readers: Arc<Readers>,
    metrics: Arc<Metrics>,
    closing: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let job = ReplicaJob { readers, metrics, was_up: AtomicBool::new(true) };
    job.check().await;
    async move { repeat(closing, PAUSE, |_| job.check()).await }
}

struct ReplicaJob {
    readers: Arc<Readers>,
    metrics: Arc<Metrics>,
    was_up: AtomicBool,
}

impl ReplicaJob {
    async fn check(&self) {
        let checked = self.readers.check_replica().await;
        let is_up = self.readers.uses_replica() || !self.readers.has_replica();
        self.metrics.replica_up.set(is_up.into());
        self.metrics.replica_lag_seconds.set(self.readers.replica_lag().as_secs_f64());
        let was_up = self.was_up.swap(is_up, Ordering::Relaxed);
        match checked {
            Err(error) if was_up => {
                tracing::warn!(%error, "the read replica is not available, and the primary serves its reads");
            }
            Ok(()) if !was_up => tracing::info!("the read replica is available again"),
            _ => {}
        }
    }
}
