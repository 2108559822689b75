//! Waiting until a projection has processed a position.
//!
//! A wait is woken, and does not poll: a position that a request of this process sets wakes its waits at once. Positions
//! that other processes set are found by one task, with one statement for all awaited projections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::domain::event::Position;
use crate::store::error::StoreError;
use crate::subscriptions::feed::{Feed, SubscriberKind, SubscriberSlot, TooManySubscribers};

/// The pause between two reads of the awaited positions. It is longer if the reads are slow.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 20;
/// A position before every position: that of a projection that was not read yet.
const UNKNOWN: Position = -1;

/// The projections for which requests of this process wait.
pub struct AwaitedProjections {
    feed: Arc<Feed>,
    /// The last known position of each; `None` if the projection does not exist.
    positions: Mutex<HashMap<String, watch::Sender<Option<Position>>>>,
    /// Wakes the task that reads the positions.
    started: Notify,
}

/// One request that waits for a projection. It counts as a subscriber.
pub struct ProjectionWait {
    awaited: Arc<AwaitedProjections>,
    projection_name: String,
    /// `None` only while this is dropped.
    position: Option<watch::Receiver<Option<Position>>>,
    slot: SubscriberSlot,
}

impl AwaitedProjections {
    /// Creates an empty list.
    pub fn new(feed: Arc<Feed>) -> Arc<Self> {
        Arc::new(Self { feed, positions: Mutex::default(), started: Notify::new() })
    }

    /// Wakes the waits for a projection whose position was set (`None`: it was deleted).
    pub fn report(&self, projection_name: &str, position: Option<Position>) {
        if let Some(awaited) = self.lock().get(projection_name) {
            awaited.send_replace(position);
        }
    }

    /// Reads the awaited positions until shutdown.
    pub async fn run(self: Arc<Self>) {
        let closing = self.feed.closing.clone();
        let read = async {
            loop {
                let names: Vec<String> = self.lock().keys().cloned().collect();
                if names.is_empty() {
                    self.started.notified().await;
                    continue;
                }
                let began = Instant::now();
                if let Err(error) = self.read(&names).await {
                    tracing::debug!(%error, "failed to read the positions of awaited projections");
                }
                tokio::time::sleep((began.elapsed() * PAUSE_FACTOR).clamp(PAUSE, PAUSE_MAX)).await;
            }
        };
        closing.run_until_cancelled(read).await;
    }

    async fn read(&self, names: &[String]) -> Result<(), StoreError> {
        let found = self.feed.primary.projection_positions(names).await?;
        let positions = self.lock();
        for name in names {
            if let Some(awaited) = positions.get(name) {
                let position = found.get(name).copied();
                awaited.send_if_modified(|known| std::mem::replace(known, position) != position);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Option<Position>>>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProjectionWait {
    /// Starts to wait for a projection. The caller reads its position afterwards, so that no change is missed, and so that
    /// a client with too many waits costs no statement.
    pub fn start(awaited: &Arc<AwaitedProjections>, projection_name: &str) -> Result<Self, TooManySubscribers> {
        let slot = SubscriberSlot::acquire(&awaited.feed, SubscriberKind::LongPoll)?;
        let position = {
            let mut positions = awaited.lock();
            let unknown = || watch::Sender::new(Some(UNKNOWN));
            positions.entry(projection_name.to_owned()).or_insert_with(unknown).subscribe()
        };
        awaited.started.notify_one();
        Ok(Self {
            awaited: awaited.clone(),
            projection_name: projection_name.to_owned(),
            position: Some(position),
            slot,
        })
    }

    /// Waits until the projection has processed `wanted` or was deleted, or the deadline passes. Fails if the process
    /// shuts down.
    pub async fn wait(&mut self, wanted: Position, deadline: tokio::time::Instant) -> Result<(), StoreError> {
        let has_passed = |position: &Option<Position>| position.is_none_or(|position| position >= wanted);
        let position = self.position.as_mut().expect("it is taken only by drop");
        tokio::select! {
            _ = position.wait_for(has_passed) => Ok(()),
            () = tokio::time::sleep_until(deadline) => Ok(()),
            () = self.slot.feed.closing.cancelled() => Err(StoreError::ShuttingDown),
        }
    }
}

impl Drop for ProjectionWait {
    fn drop(&mut self) {
        let mut positions = self.awaited.lock();
        // Under the lock, so that the last one of several waits removes the entry.
        self.position = None;
        if positions.get(&self.projection_name).is_some_and(|sender| sender.receiver_count() == 0) {
            positions.remove(&self.projection_name);
        }
    }
}
