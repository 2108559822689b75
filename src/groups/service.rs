//! The groups of a process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::groups::error::GroupError;
use crate::groups::group::ActiveGroup;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::groups::settings::Group;
use crate::subscriptions::feed::Feed;
use crate::subscriptions::projection_wait::AwaitedProjections;

/// A group that was not used for this time is dropped from memory.
const UNUSED_MAX: Duration = Duration::from_secs(60);
/// The pause between two computations of the position of a group for which a request waits.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);
/// The number of steps of a deleted group that one pass deletes.
const DELETED_STEPS_MAX: i64 = 20_000;

/// The groups of a process.
pub struct Groups {
    feed: Arc<Feed>,
    awaited: Arc<AwaitedProjections>,
    metrics: Arc<Metrics>,
    active: Mutex<HashMap<String, Arc<ActiveGroup>>>,
    /// The largest size of the window of a group.
    window_bytes_max: Arc<AtomicUsize>,
    /// The name of the last group without workers in this process whose position was stored.
    visited: Mutex<String>,
}

impl Groups {
    /// Creates an empty list.
    pub fn new(feed: Arc<Feed>, awaited: Arc<AwaitedProjections>, metrics: Arc<Metrics>) -> Arc<Self> {
        let window_bytes_max = Arc::new(AtomicUsize::new(feed.limits().group_bytes));
        Arc::new(Self { feed, awaited, metrics, active: Mutex::default(), window_bytes_max, visited: Mutex::default() })
    }

    /// Returns a group.
    pub async fn open(&self, name: &str) -> Result<Arc<ActiveGroup>, GroupError> {
        if let Some(group) = self.active_group(name) {
            match group.refresh(Duration::from_millis(250)).await {
                Err(GroupError::GroupNotFound) => self.drop_group(name),
                refreshed => return refreshed.map(|_| group),
            }
        }
        // The group may be deleted and created again while it is read.
        loop {
            let group = self.feed.primary.group(name).await?.ok_or(GroupError::GroupNotFound)?;
            if let Some(group) = self.activate(group).await? {
                return Ok(group);
            }
        }
    }

    /// Returns a group whose settings were just read.
    pub async fn open_current(&self, name: &str) -> Result<Arc<ActiveGroup>, GroupError> {
        let group = self.open(name).await?;
        match group.refresh(Duration::ZERO).await {
            Err(GroupError::GroupNotFound) => {
                self.drop_group(name);
                self.open(name).await
            }
            refreshed => refreshed.map(|_| group),
        }
    }

    async fn activate(&self, group: Group) -> Result<Option<Arc<ActiveGroup>>, StoreError> {
        let name = group.group_name.clone();
        let Some(opened) = self.read(group).await? else { return Ok(None) };
        let mut active = self.active();
        // Another request may have opened it in the meantime.
        let known = active.entry(name).or_insert_with(|| opened.clone());
        if known.group_no != opened.group_no {
            *known = opened;
        }
        let group = known.clone();
        self.share_memory(&active);
        Ok(Some(group))
    }

    /// Reads the states of a group; `None` if it was deleted in the meantime.
    async fn read(&self, group: Group) -> Result<Option<Arc<ActiveGroup>>, StoreError> {
        let (feed, awaited, metrics) = (self.feed.clone(), self.awaited.clone(), self.metrics.clone());
        ActiveGroup::open(group, feed, awaited, metrics, self.window_bytes_max.clone()).await
    }

    /// Removes a group from memory.
    pub fn drop_group(&self, name: &str) {
        let mut active = self.active();
        active.remove(name);
        self.share_memory(&active);
    }

    fn share_memory(&self, active: &HashMap<String, Arc<ActiveGroup>>) {
        let limits = self.feed.limits();
        let share = (limits.all_groups_bytes / active.len().max(1)).min(limits.group_bytes);
        self.window_bytes_max.store(share, Ordering::Relaxed);
    }

    fn active(&self) -> MutexGuard<'_, HashMap<String, Arc<ActiveGroup>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active_group(&self, name: &str) -> Option<Arc<ActiveGroup>> {
        self.active().get(name).cloned()
    }

    /// Returns the groups in memory.
    pub fn active_groups(&self) -> Vec<Arc<ActiveGroup>> {
        self.active().values().cloned().collect()
    }

    /// Stores the position of a group again and again, for a request that waits for it.
    pub async fn follow(&self, group: &ActiveGroup) -> Result<(), GroupError> {
        loop {
            group.follow(FOLLOW_PAUSE).await?;
            tokio::time::sleep(FOLLOW_PAUSE).await;
        }
    }

    /// Stores the positions of the groups in memory, and that of one other group. Drops groups that are no longer used.
    pub async fn maintain(&self) -> Result<(), GroupError> {
        for group in self.active_groups() {
            match group.maintain().await {
                Err(GroupError::GroupNotFound) => self.drop_group(&group.name),
                maintained => maintained?,
            }
        }
        {
            let mut active = self.active();
            active.retain(|_, group| !group.is_unused(UNUSED_MAX));
            self.share_memory(&active);
        }
        self.maintain_next().await
    }

    /// Stores the position of the next group that is not in memory. So a group without workers does not hold back the
    /// archive if no event of it waits.
    async fn maintain_next(&self) -> Result<(), GroupError> {
        let after = self.visited.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let next = self.feed.primary.groups(&after, 1).await?.into_iter().next();
        let name = next.as_ref().map(|group| group.group_name.clone()).unwrap_or_default();
        *self.visited.lock().unwrap_or_else(PoisonError::into_inner) = name;
        let Some(group) = next.filter(|group| self.active_group(&group.group_name).is_none()) else { return Ok(()) };
        match self.read(group).await? {
            Some(group) => group.maintain().await,
            None => Ok(()),
        }
    }

    /// Deletes steps that are no longer needed.
    pub async fn delete_old_steps(&self) -> Result<(), GroupError> {
        for group in self.active_groups() {
            group.delete_old_steps().await?;
        }
        self.feed.primary.delete_steps_of_deleted_groups(DELETED_STEPS_MAX).await?;
        Ok(())
    }
}
