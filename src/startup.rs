//! Builds the [`App`] and starts its background tasks. `annals serve` and the tests use it.

use std::sync::Arc;

use crate::app::{App, Settings};
use crate::clock::Clock;
use crate::erasures::service::Erasures;
use crate::groups::service::Groups;
use crate::jobs::projection_history::ProjectionHistory;
use crate::jobs::{api_keys, caches, clocks, erasures, groups, maintenance, projection_history, replica, statistics};
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::reducers::javascript::workers::Workers;
use crate::reducers::snapshotter::Snapshotter;
use crate::shares::limit::FairLimit;
use crate::shutdown::Shutdown;
use crate::store::append::queue::AppendQueue;
use crate::store::append::writer;
use crate::store::connection::config::DatabaseConfig;
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::readers::Readers;
use crate::subscriptions::feed::Feed;
use crate::subscriptions::projection_wait::AwaitedProjections;
use crate::subscriptions::tailer;

/// The database of a service that starts.
pub struct PreparedDatabase {
    primary: Arc<Primary>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Connects to a database whose schema is up to date. Begins the epoch, and creates and seals the partitions.
pub async fn prepare(database: &DatabaseConfig, clock: Clock) -> Result<PreparedDatabase, StoreError> {
    let metrics = Arc::new(Metrics::new());
    let primary = Primary::connect(database, clock.clone(), metrics.clone()).await?;
    maintain(&primary).await?;
    Ok(PreparedDatabase { primary, clock, metrics })
}

async fn maintain(primary: &Primary) -> Result<(), StoreError> {
    // The secret of the store, which ids are derived from, comes with the end of the move.
    if primary.is_target_of_move().await? {
        return Err(StoreError::LogMoving);
    }
    match primary.maintain_partitions().await {
        Err(StoreError::LogMoving) => {
            tracing::warn!("this database refuses writes: its log is moving, or has moved");
            Ok(())
        }
        maintained => maintained,
    }
}

/// Starts the writer, the tailer, the snapshotter and the jobs.
pub async fn start(
    settings: Settings,
    database: PreparedDatabase,
    read_replica: Option<&DatabaseConfig>,
    shutdown: Shutdown,
) -> Result<Arc<App>, StoreError> {
    let PreparedDatabase { primary, clock, metrics } = database;
    let started_at = clock.now();
    primary.check_archive().await?;
    let derived_ids = primary.derived_ids().await?;
    let closing = shutdown.soft();
    let readers = Readers::new(primary.clone(), read_replica);
    shutdown.track(replica::start(readers.clone(), metrics.clone(), closing.clone()).await);

    let (append_queue, queued) = AppendQueue::new(settings.queue);
    shutdown.track(writer::run(primary.clone(), queued, closing.clone()));
    let feed = Feed::new(primary.clone(), readers.clone(), settings.feed, closing.clone());
    shutdown.track(tailer::run(feed.clone()));
    let awaited_projections = AwaitedProjections::new(feed.clone());
    shutdown.track(awaited_projections.clone().run());
    let consumer_groups = Groups::new(feed.clone(), awaited_projections.clone(), metrics.clone());
    shutdown.track(groups::run(consumer_groups.clone(), primary.clone(), metrics.clone(), closing.clone()));
    let workers = Workers::new(settings.program.clone());
    let (snapshotter, snapshotting) =
        Snapshotter::start(primary.clone(), workers.clone(), metrics.clone(), closing.clone()).await?;
    shutdown.track(snapshotting);

    shutdown.track(maintenance::run(maintenance::Maintenance {
        primary: primary.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        archive_after: settings.archive_after,
        closing: closing.clone(),
    }));
    shutdown.track(statistics::run(primary.clone(), metrics.clone(), closing.clone()));
    shutdown.track(clocks::run(primary.clone(), metrics.clone(), closing.clone()));
    shutdown.track(caches::run(caches::Caches {
        primary: primary.clone(),
        readers: readers.clone(),
        snapshotter: snapshotter.clone(),
        metrics: metrics.clone(),
        closing: closing.clone(),
    }));
    let projection_history = ProjectionHistory::new(started_at);
    shutdown.track(projection_history::run(
        projection_history.clone(),
        primary.clone(),
        clock.clone(),
        closing.clone(),
    ));
    let erasures = Erasures::new(primary.clone(), append_queue.clone(), derived_ids, metrics.clone());
    shutdown.track(erasures::run(erasures::ErasureJob {
        erasures: erasures.clone(),
        primary: primary.clone(),
        metrics: metrics.clone(),
        clock: clock.clone(),
        rewrite_every: settings.erase_rewrite_every,
        closing: closing.clone(),
    }));
    let keyring = Arc::new(Keyring::default());
    if settings.needs_keys {
        shutdown.track(api_keys::run(keyring.clone(), primary.clone(), closing));
    }
    // The service accepts requests once it can say whether it is ready. The writer's own limits of time end the wait.
    append_queue.writer_started().await;
    Ok(Arc::new(App {
        requests_in_progress: FairLimit::new(settings.clients.requests_in_progress),
        settings,
        primary,
        readers,
        append_queue,
        feed,
        awaited_projections,
        groups: consumer_groups,
        erasures,
        projection_history,
        workers,
        snapshotter,
        keyring,
        derived_ids,
        metrics,
        clock,
        started_at,
        shutdown,
    }))
}
