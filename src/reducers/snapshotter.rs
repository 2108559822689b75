//! Automatic snapshots: written in the background when a stream crosses a multiple of the snapshot interval.
//!
//! There are two lanes, and each serves the aggregate types in turn. A fold that takes too long in the fast lane is
//! abandoned, and repeated in the slow lane, which then makes the snapshots of its type. The fast lane makes two snapshots
//! at a time, and one of a type, so a slow reducer alone delays no snapshot of another type.
//!
//! Snapshots are an optimization: a missing or late one only makes a load slower. Several processes may write
//! the same snapshot; the later version remains.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::join3;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::name::StreamId;
use crate::domain::reducer::Reducer;
use crate::domain::version::Version;
use crate::metrics::Metrics;
use crate::reducers::error::FoldError;
use crate::reducers::fold::{AsOf, fold};
use crate::reducers::javascript::workers::Workers;
use crate::shares::queue::FairQueue;
use crate::store::error::StoreError;
use crate::store::primary::Primary;
use crate::store::streams::snapshots::NewSnapshot;

/// The number of aggregates that may wait for a snapshot in one lane. Further ones wait until they cross the next
/// multiple. One type may have at most as many as remain free.
const QUEUE_LENGTH: usize = 1_024;
/// The longest time of a fold in the fast lane.
const FAST_FOLD_MAX: Duration = Duration::from_millis(500);
/// The longest time of a fold in the slow lane. A longer one counts as a failure of its aggregate.
const SLOW_FOLD_MAX: Duration = Duration::from_secs(30);
/// The number of recorded failures. When it is reached, all are cleared and tried again.
const FAILURES_MAX: usize = 10_000;

/// The cached reducers, and the aggregates whose snapshots are due.
pub struct Snapshotter {
    primary: Arc<Primary>,
    workers: Arc<Workers>,
    metrics: Arc<Metrics>,
    fast: Lane,
    slow: Lane,
    /// The types whose snapshots the slow lane makes.
    slow_types: Mutex<HashSet<String>>,
    /// The revision of the reducer that failed for an aggregate, because it would fail again.
    failures: Mutex<HashMap<StreamId, i64>>,
    /// By aggregate type. It may be outdated, because another process can replace a reducer. Only hints depend on it.
    reducers: RwLock<HashMap<String, Arc<Reducer>>>,
}

/// The aggregates that wait for a snapshot, by type.
struct Lane {
    due: Mutex<Due>,
    /// Notified when an aggregate is added, or a type may be served again.
    added: Notify,
}

struct Due {
    streams: FairQueue<String, StreamId>,
    waiting: HashSet<StreamId>,
    /// The types whose snapshots are being made. The lane makes one snapshot of a type at a time.
    in_progress: HashSet<String>,
}

/// An aggregate whose snapshot is being made. Its type may be served again when this is dropped.
struct InProgress<'l> {
    lane: &'l Lane,
    stream: StreamId,
}

impl Lane {
    fn new() -> Self {
        let due = Due { streams: FairQueue::new(1), waiting: HashSet::new(), in_progress: HashSet::new() };
        Self { due: Mutex::new(due), added: Notify::new() }
    }

    /// Adds an aggregate that does not wait yet, unless its type has its share of the queue.
    fn add(&self, stream: &StreamId) {
        let mut due = self.lock();
        let of_type = due.streams.len_of(&stream.aggregate_type().to_owned());
        let free = QUEUE_LENGTH - due.streams.len();
        let fits = free > 0 && (of_type == 0 || of_type < free);
        if fits && due.waiting.insert(stream.clone()) {
            due.streams.push(stream.aggregate_type().to_owned(), stream.clone(), 1);
            self.added.notify_one();
        }
    }

    /// Waits for the next aggregate, in the turn of its type.
    async fn next(&self) -> InProgress<'_> {
        loop {
            {
                let mut due = self.lock();
                let Due { streams, waiting, in_progress } = &mut *due;
                if let Some((aggregate_type, stream)) = streams.pop_of(|of_type| !in_progress.contains(of_type)) {
                    in_progress.insert(aggregate_type);
                    // A later append must add the aggregate again, because its head is read next.
                    waiting.remove(&stream);
                    if !streams.is_empty() {
                        self.added.notify_one();
                    }
                    return InProgress { lane: self, stream };
                }
            }
            self.added.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.lane.lock().in_progress.remove(self.stream.aggregate_type());
        self.lane.added.notify_one();
    }
}

impl Snapshotter {
    /// Creates the snapshotter. The returned future does its work until `closing` is cancelled.
    pub async fn start(
        primary: Arc<Primary>,
        workers: Arc<Workers>,
        metrics: Arc<Metrics>,
        closing: CancellationToken,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + 'static), StoreError> {
        let snapshotter = Arc::new(Self {
            primary,
            workers,
            metrics,
            fast: Lane::new(),
            slow: Lane::new(),
            slow_types: Mutex::default(),
            failures: Mutex::default(),
            reducers: RwLock::default(),
        });
        snapshotter.refresh().await?;
        let run = run(snapshotter.clone(), closing);
        Ok((snapshotter, run))
    }

    /// Reads the reducers from the database.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let reducers = self.primary.reducers().await?;
        let by_type = reducers.into_iter().map(|reducer| (reducer.aggregate_type.clone(), Arc::new(reducer)));
        *self.reducers.write().unwrap_or_else(PoisonError::into_inner) = by_type.collect();
        Ok(())
    }

    /// Returns the cached reducer of a type.
    pub fn reducer(&self, aggregate_type: &str) -> Option<Arc<Reducer>> {
        self.reducers.read().unwrap_or_else(PoisonError::into_inner).get(aggregate_type).cloned()
    }

    /// Enqueues the aggregate if an append that moved its stream from one version to another makes a snapshot due.
    pub fn on_append(&self, stream: &StreamId, before: Version, after: Version) {
        if self.reducer(stream.aggregate_type()).is_some_and(|reducer| reducer.is_snapshot_due(before, after)) {
            self.enqueue(stream);
        }
    }

    /// Enqueues the aggregate if a load or a fold has read more events after its snapshot than the interval, or has
    /// found an unusable snapshot.
    pub fn on_load(&self, stream: &StreamId, events: usize, unusable_snapshot: bool) {
        let Some(reducer) = self.reducer(stream.aggregate_type()) else { return };
        if unusable_snapshot || events > reducer.source.snapshot_every as usize {
            self.enqueue(stream);
        }
    }

    fn enqueue(&self, stream: &StreamId) {
        let lane = if self.slow_types().contains(stream.aggregate_type()) { &self.slow } else { &self.fast };
        lane.add(stream);
    }

    fn slow_types(&self) -> MutexGuard<'_, HashSet<String>> {
        self.slow_types.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed_before(&self, stream: &StreamId, revision: i64) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(stream) == Some(&revision)
    }

    fn record_failure(&self, stream: &StreamId, revision: i64) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= FAILURES_MAX {
            failures.clear();
        }
        failures.insert(stream.clone(), revision);
    }

    /// Makes the due snapshot of an aggregate, if it is not stored.
    async fn make_snapshot(&self, stream: &StreamId) -> Result<(), FoldError> {
        let Some(reducer) = self.primary.reducer(stream.aggregate_type()).await? else { return Ok(()) };
        let Some(head) = self.primary.stream_head(stream).await? else { return Ok(()) };
        let version = reducer.snapshot_version(head.version);
        if version == 0 || self.has_failed_before(stream, reducer.revision) {
            return Ok(());
        }
        // Read before the events: if something is erased in the meantime, the snapshot is refused.
        let erasure = self.primary.last_erasure_of(stream).await?;
        let folded = fold(&self.primary, &self.workers, &reducer, stream, AsOf::Version(version)).await;
        if matches!(folded, Err(FoldError::Failed(_))) {
            self.record_failure(stream, reducer.revision);
        }
        let folded = folded?;
        if folded.unusable_snapshot {
            // An unusable snapshot may claim a later version, and would then prevent the new one.
            self.primary.delete_snapshot(stream).await?;
        } else if folded.snapshot_version == Some(version) {
            return Ok(());
        }
        let new = NewSnapshot {
            version,
            state: &folded.state,
            revision: Some(&reducer.revision.to_string()),
            occurred_at: folded.occurred_at,
            reducer: Some(reducer.revision),
            erasure,
        };
        if self.primary.put_snapshot(stream, new).await?.is_some() {
            self.metrics.snapshots_written.inc();
        }
        Ok(())
    }
}

async fn run(snapshotter: Arc<Snapshotter>, closing: CancellationToken) {
    let fast = || async {
        loop {
            let InProgress { stream, .. } = &snapshotter.fast.next().await;
            let made = tokio::time::timeout(FAST_FOLD_MAX, snapshotter.make_snapshot(stream)).await;
            match made {
                Ok(made) => snapshotter.report(stream, made),
                Err(_) => {
                    snapshotter.slow_types().insert(stream.aggregate_type().to_owned());
                    snapshotter.slow.add(stream);
                }
            }
        }
    };
    let slow = async {
        loop {
            let InProgress { stream, .. } = &snapshotter.slow.next().await;
            let started = Instant::now();
            let made = tokio::time::timeout(SLOW_FOLD_MAX, snapshotter.make_snapshot(stream)).await;
            if started.elapsed() < FAST_FOLD_MAX / 2 {
                snapshotter.slow_types().remove(stream.aggregate_type());
            }
            match made {
                Ok(made) => snapshotter.report(stream, made),
                Err(_) => snapshotter.give_up(stream),
            }
        }
    };
    closing.run_until_cancelled(join3(fast(), fast(), slow)).await;
}

impl Snapshotter {
    /// Makes no snapshot of the aggregate until its type has another reducer.
    fn give_up(&self, stream: &StreamId) {
        if let Some(reducer) = self.reducer(stream.aggregate_type()) {
            self.record_failure(stream, reducer.revision);
        }
        self.metrics.reducer_failures.inc();
        tracing::warn!(%stream, "no snapshot was made: the fold took more than {SLOW_FOLD_MAX:?}");
    }

    /// Counts and logs the result of a snapshot.
    fn report(&self, stream: &StreamId, made: Result<(), FoldError>) {
        match made {
            Ok(()) => {}
            // The reason is a text of the reducer, which can contain data of the event, so it is not logged.
            Err(FoldError::Failed(failure)) => {
                self.metrics.reducer_failures.inc();
                tracing::debug!(%stream, version = failure.version, "no snapshot was made: the reducer failed");
            }
            Err(FoldError::Invalid(invalid)) => {
                self.metrics.reducer_failures.inc();
                tracing::debug!(%stream, error = invalid.message, "no snapshot was made: the reducer cannot be used");
            }
            Err(error) => tracing::debug!(%stream, %error, "no snapshot was made"),
        }
    }
}
