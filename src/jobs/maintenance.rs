//! Maintenance: creates partitions ahead of the log, seals those whose month is over, and archives old ones if
//! configured.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::jobs::repeat::repeat;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::partitions::archiver::{Archiver, ArchivingError, Include};
use crate::store::primary::Primary;

/// The pause between two passes. An append that needs a missing partition creates it, so its length is not critical.
const PAUSE: Duration = Duration::from_secs(60);
/// The number of passes between two warnings about projections that hold back the archive: an hour.
const WARN_EVERY: u32 = 60;

/// The parts of the service that the job uses.
pub struct Maintenance {
    pub primary: Arc<Primary>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// A partition is archived when its month ended at least this time ago; `None`: never.
    pub archive_after: Option<Duration>,
    pub closing: CancellationToken,
}

/// Runs until shutdown.
pub async fn run(maintenance: Maintenance) {
    let pass = |number| {
        let maintenance = &maintenance;
        async move {
            match maintenance.pass(number).await {
                // The log is moving: its partitions are sealed where it moves to.
                Ok(()) | Err(StoreError::LogMoving) => {}
                Err(error) => tracing::warn!(%error, "maintenance failed; retrying later"),
            }
        }
    };
    repeat(maintenance.closing.clone(), PAUSE, pass).await;
}

impl Maintenance {
    async fn pass(&self, number: u32) -> Result<(), StoreError> {
        // The first pass was part of the start.
        if number > 0 {
            self.primary.maintain_partitions().await?;
        }
        self.metrics.maintenance_last_success_timestamp_seconds.set(self.clock.now().timestamp());
        if let Some(after) = self.archive_after {
            self.archive_old_partitions(after, number).await;
        }
        let partitions = self.primary.partitions().await?;
        let last = self.primary.log_head().await?.occurred_at.unwrap_or_default().max(self.clock.now());
        let ahead = partitions.iter().filter(|partition| partition.starts_at > last).count();
        self.metrics.partitions_ahead.set(i64::try_from(ahead).unwrap_or(i64::MAX));
        let archived = partitions.iter().filter(|partition| partition.archived_at.is_some()).count();
        self.metrics.partitions_archived.set(i64::try_from(archived).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn archive_old_partitions(&self, after: Duration, number: u32) {
        match self.archive(after).await {
            Ok(()) => {}
            Err(waiting @ ArchivingError::ProjectionsBehind(_)) if number.is_multiple_of(WARN_EVERY) => {
                tracing::warn!(%waiting, "an old partition is not archived yet");
            }
            // Another process archives, or a condition is not met yet.
            Err(
                waiting @ (ArchivingError::Busy
                | ArchivingError::ProjectionsBehind(_)
                | ArchivingError::NotCounted(_)
                | ArchivingError::StillUsed(_)),
            ) => tracing::info!(%waiting, "an old partition is not archived yet"),
            Err(error) => {
                self.metrics.archive_failures.inc();
                tracing::warn!(%error, "failed to archive an old partition; retrying later");
            }
        }
    }

    /// Archives the partitions whose month ended at least `after` ago.
    async fn archive(&self, after: Duration) -> Result<(), ArchivingError> {
        let mut archiver = self.primary.archiver().await?;
        let archived = archive_before(&mut archiver, self.clock.now() - after).await;
        archiver.close().await?;
        archived
    }
}

async fn archive_before(archiver: &mut Archiver, before: DateTime<Utc>) -> Result<(), ArchivingError> {
    let plan = archiver.plan(before, Include::NeverRestored).await?;
    for partition in &plan.leftovers {
        archiver.drop_table(partition).await?;
    }
    for partition in &plan.partitions {
        let manifest = archiver.archive(partition, &|_| {}).await?;
        tracing::info!(partition = partition.name, events = manifest.events, "archived a partition");
    }
    Ok(())
}
