//! Completes erasures: announces those whose process ended too early, removes the bytes of erased content, and measures
//! what is pending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::erasures::error::ErasureError;
use crate::erasures::service::Erasures;
use crate::jobs::repeat::repeat;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::partitions::archiver::ArchivingError;
use crate::store::primary::Primary;

const PAUSE: Duration = Duration::from_secs(5);
/// The number of passes between two attempts to remove content, if the first one fails.
const PASSES_AFTER_FAILURE: u32 = 12;

/// The parts of the service that the job uses.
pub struct ErasureJob {
    pub erasures: Arc<Erasures>,
    pub primary: Arc<Primary>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// Content is removed when the oldest pending erasure has this age, together with that of all later ones.
    pub rewrite_every: Duration,
    pub closing: CancellationToken,
}

/// Runs until shutdown. Several processes may run it, and one of them removes content at a time.
pub async fn run(job: ErasureJob) {
    let next_removal = AtomicU32::new(0);
    let pass = |number| {
        let (job, next_removal) = (&job, &next_removal);
        async move {
            match job.pass(number, next_removal).await {
                Ok(())
                | Err(ErasureError::Store(
                    StoreError::Unavailable(_)
                    | StoreError::OutcomeUnknown(_)
                    | StoreError::LogMoving
                    | StoreError::ShuttingDown,
                )) => {}
                Err(error) => tracing::warn!(%error, "failed to complete the erasures; retrying later"),
            }
        }
    };
    repeat(job.closing.clone(), PAUSE, pass).await;
}

impl ErasureJob {
    /// Runs one pass. `next_removal` is the first pass that may remove content.
    async fn pass(&self, number: u32, next_removal: &AtomicU32) -> Result<(), ErasureError> {
        self.erasures.announce_all().await?;
        let pending = self.primary.pending_erasures().await?;
        let age = pending.since.map_or(TimeDelta::zero(), |since| self.clock.now() - since);
        self.metrics.erasures_pending.set(pending.count);
        self.metrics.oldest_pending_erasure_seconds.set(age.as_seconds_f64().max(0.0));
        let is_due = age.to_std().is_ok_and(|age| age >= self.rewrite_every);
        let may_remove = number >= next_removal.load(Ordering::Relaxed);
        if pending.count > 0 && is_due && may_remove && !self.remove().await {
            next_removal.store(number.saturating_add(PASSES_AFTER_FAILURE), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes content from the files. Returns whether that succeeded.
    async fn remove(&self) -> bool {
        let removed = async {
            let mut remover = self.primary.remover().await?;
            let removed = remover.run(&|_| {}).await;
            remover.close().await?;
            removed
        };
        let removed = removed.await;
        match &removed {
            Ok(removed) => {
                let (months, erasures) = (removed.months, removed.erasures);
                tracing::info!(months, erasures, "removed erased content from the files");
            }
            // Another process archives, or a condition is not met yet.
            Err(waiting @ (ArchivingError::Busy | ArchivingError::InUse(_) | ArchivingError::StillUsed(_))) => {
                tracing::info!(%waiting, "erased content is not removed from the files yet");
            }
            Err(error) => tracing::warn!(%error, "failed to remove erased content from the files; retrying later"),
        }
        removed.is_ok()
    }
}
