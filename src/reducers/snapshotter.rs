//! Snapshots that make themselves: in the background, one aggregate at a time, when a multiple of the interval was crossed.
//!
//! It is all a hint: one that is lost, or not made in time, makes a load slower and nothing else. Several replicas may make
//! the same snapshot; the later version wins.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::fold::{FoldError, Until, fold};
use super::javascript::Workers;
use crate::domain::name::StreamId;
use crate::domain::reducer::Reducer;
use crate::domain::version::Version;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::snapshots::NewSnapshot;
use crate::telemetry::metrics::Metrics;

/// Aggregates that wait for their snapshot; what does not fit is left to the next time.
const QUEUE: usize = 1_024;
/// Aggregates that are remembered as hopeless; beyond it all are tried again.
const HOPELESS_MAX: usize = 10_000;

/// What this process knows of the reducers, and the aggregates whose snapshots are due.
pub struct Snapshotter {
    store: Arc<Store>,
    workers: Arc<Workers>,
    metrics: Arc<Metrics>,
    queue: mpsc::Sender<StreamId>,
    waiting: Mutex<HashSet<StreamId>>,
    /// Aggregates for which a reducer has failed, by its revision: it will fail again.
    hopeless: Mutex<HashMap<StreamId, i64>>,
    /// By type. It may lag behind, since another replica can replace a reducer: only hints depend on it.
    reducers: RwLock<HashMap<String, Arc<Reducer>>>,
}

impl Snapshotter {
    /// Starts it; its work ends when `closing` is cancelled.
    pub async fn start(
        store: Arc<Store>,
        workers: Arc<Workers>,
        metrics: Arc<Metrics>,
        closing: CancellationToken,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + 'static), StoreError> {
        let (queue, due) = mpsc::channel(QUEUE);
        let snapshotter = Arc::new(Self {
            store,
            workers,
            metrics,
            queue,
            waiting: Mutex::default(),
            hopeless: Mutex::default(),
            reducers: RwLock::default(),
        });
        snapshotter.refresh().await?;
        let run = run(snapshotter.clone(), due, closing);
        Ok((snapshotter, run))
    }

    /// Reads the reducers anew.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let reducers = self.store.reducers().await?;
        let by_type = reducers.into_iter().map(|reducer| (reducer.aggregate_type.clone(), Arc::new(reducer)));
        *self.reducers.write().unwrap_or_else(PoisonError::into_inner) = by_type.collect();
        Ok(())
    }

    /// The reducer of a type, as far as this process knows.
    pub fn reducer(&self, aggregate_type: &str) -> Option<Arc<Reducer>> {
        self.reducers.read().unwrap_or_else(PoisonError::into_inner).get(aggregate_type).cloned()
    }

    /// A stream has grown from one version to another.
    pub fn grown(&self, stream: &StreamId, before: Version, after: Version) {
        if self.reducer(stream.aggregate_type()).is_some_and(|reducer| reducer.is_crossed(before, after)) {
            self.offer(stream);
        }
    }

    /// A load or a fold found so many events after the snapshot that it used, or one that did not fit.
    pub fn loaded(&self, stream: &StreamId, events: usize, misfit: bool) {
        let Some(reducer) = self.reducer(stream.aggregate_type()) else { return };
        if misfit || events > reducer.source.snapshot_every as usize {
            self.offer(stream);
        }
    }

    fn offer(&self, stream: &StreamId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.insert(stream.clone()) && self.queue.try_send(stream.clone()).is_err() {
            waiting.remove(stream);
        }
    }

    fn is_hopeless(&self, stream: &StreamId, revision: i64) -> bool {
        let hopeless = self.hopeless.lock().unwrap_or_else(PoisonError::into_inner);
        hopeless.get(stream) == Some(&revision)
    }

    fn give_up(&self, stream: &StreamId, revision: i64) {
        let mut hopeless = self.hopeless.lock().unwrap_or_else(PoisonError::into_inner);
        if hopeless.len() >= HOPELESS_MAX {
            hopeless.clear();
        }
        hopeless.insert(stream.clone(), revision);
    }

    /// Makes the snapshot that is due, if it is not there.
    async fn make(&self, stream: &StreamId) -> Result<(), FoldError> {
        let Some(reducer) = self.store.reducer(stream.aggregate_type()).await? else { return Ok(()) };
        let Some(head) = self.store.stream_head(stream).await? else { return Ok(()) };
        let version = reducer.snapshot_version(head.version);
        if version == 0 || self.is_hopeless(stream, reducer.revision) {
            return Ok(());
        }
        let folded = fold(&self.store, &self.workers, &reducer, stream, Until::Version(version)).await;
        if matches!(folded, Err(FoldError::Failed(_))) {
            self.give_up(stream, reducer.revision);
        }
        let folded = folded?;
        if folded.misfit {
            // Whatever it says of its version, it is in the way.
            self.store.delete_snapshot(stream).await?;
        } else if folded.snapshot_version == Some(version) {
            return Ok(());
        }
        let new = NewSnapshot {
            version,
            state: &folded.state,
            revision: Some(&reducer.revision.to_string()),
            occurred_at: folded.occurred_at,
            reducer: Some(reducer.revision),
        };
        if self.store.put_snapshot(stream, new).await?.is_some() {
            self.metrics.snapshots_written.inc();
        }
        Ok(())
    }
}

async fn run(snapshotter: Arc<Snapshotter>, mut due: mpsc::Receiver<StreamId>, closing: CancellationToken) {
    while let Some(Some(stream)) = closing.run_until_cancelled(due.recv()).await {
        // What comes from here on asks again: this one may have looked already.
        snapshotter.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&stream);
        match snapshotter.make(&stream).await {
            Ok(()) => {}
            Err(failed @ (FoldError::Failed(_) | FoldError::Invalid(_))) => {
                snapshotter.metrics.reducer_failures.inc();
                tracing::debug!(%stream, %failed, "no snapshot: the reducer failed");
            }
            Err(error) => tracing::debug!(%stream, %error, "no snapshot this time"),
        }
    }
}
