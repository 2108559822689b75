//! One group of a process: reads its states, and extends its window of the log.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::domain::claim_id::ClaimId;
use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::event::{Position, StoredEvent};
use crate::domain::filter::EventFilter;
use crate::domain::group::GroupFilter;
use crate::domain::partition::Partition;
use crate::groups::error::GroupError;
use crate::groups::state::{GroupState, ParkedNames};
use crate::groups::window::{GroupEvent, partition_of};
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::groups::settings::Group;
use crate::store::groups::steps::{NewStep, Step, StepResult};
use crate::store::log::scan::LogScan;
use crate::subscriptions::feed::Feed;
use crate::subscriptions::projection_wait::AwaitedProjections;
use crate::subscriptions::ring::LiveEvent;

/// The approximate size of the part of the log that one read adds to the window.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;
/// The largest distance to the end of the log at which a claim waits for the events in between.
const LOOK_AHEAD_POSITIONS: Position = 10_000;

/// A group, as a process uses it.
pub struct ActiveGroup {
    pub(super) name: String,
    pub(super) group_no: i64,
    /// The filter never changes.
    filter: EventFilter,
    pub(super) feed: Arc<Feed>,
    awaited: Arc<AwaitedProjections>,
    pub(super) metrics: Arc<Metrics>,
    /// The largest size of the window, in bytes: the share of the group in the memory of the process.
    window_bytes_max: Arc<AtomicUsize>,
    state: Mutex<GroupState>,
    /// Held while the states are read from the database.
    reading: AsyncMutex<()>,
    /// Held while the window is extended.
    extending: AsyncMutex<()>,
    /// Increases when a step was taken or read, so that waiting workers look again.
    changes: watch::Sender<u64>,
}

/// Where the window is extended from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The ring if it has new events, and the table otherwise: the end of the ring may be behind the head of the log.
    Log,
    /// The ring, whose changes wake the caller, and the table for what the ring does not have.
    Ring,
}

/// Whether the window has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    Moved,
    /// The window has all events of the log.
    AtHead,
}

impl ActiveGroup {
    /// Reads the states of a group; `None` if it was deleted in the meantime.
    pub(super) async fn open(
        group: Group,
        feed: Arc<Feed>,
        awaited: Arc<AwaitedProjections>,
        metrics: Arc<Metrics>,
        window_bytes_max: Arc<AtomicUsize>,
    ) -> Result<Option<Arc<Self>>, StoreError> {
        let read_at = Instant::now();
        let states = feed.primary.partition_states(group.group_no, group.settings.partitions).await?;
        let Some(states) = states.filter(|states| is_consistent(&group, &states.steps)) else { return Ok(None) };
        Ok(Some(Arc::new(Self {
            name: group.group_name.clone(),
            group_no: group.group_no,
            filter: group.filter.to_event_filter(),
            feed,
            awaited,
            metrics,
            window_bytes_max,
            state: Mutex::new(GroupState::new(group, states, read_at)),
            reading: AsyncMutex::default(),
            extending: AsyncMutex::default(),
            changes: watch::Sender::new(0),
        })))
    }

    /// Returns the name of the group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the filter of the group.
    pub fn filter(&self) -> GroupFilter {
        self.state().group.filter.clone()
    }

    /// Returns the group as it was read last.
    pub fn group(&self) -> Group {
        self.state().group.clone()
    }

    /// Returns the states of the partitions as they were read last.
    pub fn steps(&self) -> Vec<Step> {
        self.state().views.iter().map(|view| view.step.clone()).collect()
    }

    /// Returns whether no request has used the group for a time.
    pub(super) fn is_unused(&self, time: Duration) -> bool {
        self.state().used_at.elapsed() > time
    }

    /// Wakes the requests that wait for the position of the group.
    pub(super) fn report(&self, position: Position) {
        self.awaited.report(&self.name, Some(position));
    }

    /// Returns the states of the partitions as they were read last, each with the position up to which every event was
    /// processed or belongs to a parked stream.
    pub fn partitions(&self) -> Vec<(Step, Position)> {
        let state = self.state();
        state.views.iter().map(|view| (view.step.clone(), state.position_of(view))).collect()
    }

    /// Returns the worker of a claim, if the claim is open.
    pub fn worker_of(&self, claim_id: ClaimId) -> Option<String> {
        self.step_of(claim_id)?.claim.worker
    }

    /// Returns the state of a claim's partition as it was read last, if the claim is open.
    pub(super) fn step_of(&self, claim_id: ClaimId) -> Option<Step> {
        let state = self.state();
        let step = &state.view(claim_id.partition)?.step;
        (step.claim_id() == Some(claim_id)).then(|| step.clone())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, GroupState> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Events that were read before an erasure may have erased content.
        state.forget_events_before(self.feed.newest_erasure());
        state
    }

    /// Returns a receiver of the changes of the group.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn notify_change(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    /// Reads the settings and the states again if they are older than `age`. Returns whether they were. Fails if the group
    /// was deleted.
    pub(super) async fn refresh(&self, age: Duration) -> Result<bool, GroupError> {
        let wanted = Instant::now().checked_sub(age);
        let is_fresh = || wanted.is_none_or(|wanted| self.state().read_at >= wanted);
        if is_fresh() {
            return Ok(false);
        }
        let _reading = self.reading.lock().await;
        // Another task may have read them in the meantime.
        if is_fresh() {
            return Ok(true);
        }
        let primary = &self.feed.primary;
        loop {
            let read_at = Instant::now();
            let group = primary.group(&self.name).await?.filter(|group| group.group_no == self.group_no);
            let group = group.ok_or(GroupError::GroupNotFound)?;
            let states = primary.partition_states(group.group_no, group.settings.partitions).await?;
            // The group may be changed between the two statements.
            if let Some(states) = states.filter(|states| is_consistent(&group, &states.steps)) {
                self.state().update(group, states, read_at);
                self.notify_change();
                return Ok(true);
            }
        }
    }

    /// Takes a step, and records it. Returns `None` if the state has changed in the meantime; then it was read again.
    pub(super) async fn take(&self, new: &NewStep) -> Result<Option<Step>, GroupError> {
        let result = self.feed.primary.step(new).await;
        self.record(new, result).await
    }

    /// Records the result of a step, and marks the partition as no longer busy.
    pub(super) async fn record(
        &self,
        new: &NewStep,
        result: Result<StepResult, StoreError>,
    ) -> Result<Option<Step>, GroupError> {
        {
            let mut state = self.state();
            if let Some(view) = state.view_mut(new.step.partition) {
                view.is_busy = false;
                if let Ok(StepResult::Stepped(step)) = &result {
                    view.advance(Step::clone(step), &new.parked, &new.unparked);
                    state.note_retries(&new.parked);
                }
            }
        }
        self.notify_change();
        match result? {
            StepResult::Stepped(step) => Ok(Some(*step)),
            StepResult::Conflict => {
                self.refresh(Duration::ZERO).await?;
                Ok(None)
            }
            StepResult::EpochChanged => {
                self.state().forget();
                self.refresh(Duration::ZERO).await?;
                Ok(None)
            }
        }
    }

    /// Marks a partition as no longer busy, without a step.
    pub(super) fn set_idle(&self, partition: Partition) {
        if let Some(view) = self.state().view_mut(partition) {
            view.is_busy = false;
        }
        self.notify_change();
    }

    /// Reads the names of the parked streams of partitions.
    pub(super) async fn read_parked(&self, partitions: &[Partition]) -> Result<(), GroupError> {
        let (count, steps) = {
            let state = self.state();
            let step = |partition: &Partition| Some((*partition, state.view(*partition)?.step.step));
            (state.group.settings.partitions, partitions.iter().filter_map(step).collect::<Vec<_>>())
        };
        let wanted = |bucket: &i16| partitions.contains(&partition_of(*bucket, count));
        let buckets: Vec<i16> = (0..256).filter(wanted).collect();
        let names = self.feed.primary.parked_names(self.group_no, &buckets).await?;
        let mut state = self.state();
        for (partition, step) in steps {
            let Some(view) = state.view_mut(partition).filter(|view| view.step.step == step) else { continue };
            let mut parked = ParkedNames::default();
            for (bucket, aggregate_type, aggregate_id) in &names {
                if partition_of(*bucket, count) == partition {
                    parked.insert(aggregate_type, aggregate_id);
                }
            }
            // The names may be newer than the step. Then a step that is based on it fails.
            view.parked = Some(parked);
        }
        Ok(())
    }

    /// Extends the window by the next part of the log.
    pub(super) async fn extend(&self, source: Source) -> Result<Extension, GroupError> {
        let before = self.state().window.to();
        let _extending = self.extending.lock().await;
        let cursor = self.state().end_of_window();
        if cursor.position > before {
            // Another task has extended the window in the meantime.
            return Ok(Extension::Moved);
        }
        let chunk = self.chunk_bytes();
        let mark = self.feed.read_mark();
        let found = self.read_ring(cursor, chunk);
        let found = found.filter(|(_, _, to)| *to > cursor.position || source == Source::Ring);
        let read = match found {
            Some(read) => read,
            None => match self.read_table(cursor, Position::MAX, |_| true, chunk).await {
                // The log may have lost events of the window.
                Err(GroupError::Store(StoreError::EpochChanged { .. })) => {
                    self.state().forget();
                    self.refresh(Duration::ZERO).await?;
                    return Ok(Extension::Moved);
                }
                // A read replica does not have the position yet.
                Err(GroupError::Store(StoreError::Behind(_))) => return Ok(Extension::AtHead),
                read => read?,
            },
        };
        if mark.is_void() {
            return Ok(Extension::Moved);
        }
        Ok(self.add_to_window(cursor, read))
    }

    /// Extends the window to the end of the log if that is near: a claim then has all events that are committed, and not
    /// only the first one that a worker has waited for.
    pub(super) async fn look_ahead(&self) -> Result<(), GroupError> {
        let is_near = {
            let state = self.state();
            let free = self.window_bytes_max.load(Ordering::Relaxed).saturating_sub(state.window.bytes());
            let ahead = *self.feed.tail().borrow() - state.window.to();
            free >= self.chunk_bytes() && (1..=LOOK_AHEAD_POSITIONS).contains(&ahead)
        };
        if is_near {
            self.extend(Source::Ring).await?;
        }
        Ok(())
    }

    /// Returns the approximate size of the part of the log that is added to the window: a larger one would be removed again
    /// before it is used.
    fn chunk_bytes(&self) -> usize {
        CHUNK_BYTES.min(self.window_bytes_max.load(Ordering::Relaxed) / 2).max(1)
    }

    /// Reads events of the group after a cursor from the ring. Returns their epoch, the events, and the position up to which
    /// they are all events; `None` if the ring does not have them.
    fn read_ring(&self, cursor: Cursor, bytes: usize) -> Option<(Epoch, Vec<GroupEvent>, Position)> {
        let (epoch, events, to) = self.feed.read_ring(cursor.position, bytes)?;
        if cursor.epoch.is_some_and(|known| known != epoch) {
            return None;
        }
        let matching = events.into_iter().filter(|event| self.has(event));
        Some((epoch, matching.map(GroupEvent::new).collect(), to))
    }

    /// Adds what was read after a cursor to the window, unless the window was restarted in the meantime.
    fn add_to_window(&self, cursor: Cursor, (epoch, events, to): (Epoch, Vec<GroupEvent>, Position)) -> Extension {
        let mut state = self.state();
        if state.window.to() != cursor.position {
            return Extension::Moved;
        }
        state.window.extend(epoch, events, to);
        state.shrink_window(self.window_bytes_max.load(Ordering::Relaxed));
        if to > cursor.position { Extension::Moved } else { Extension::AtHead }
    }

    /// Reads events of the group after a cursor and up to a position, until the wanted ones have about `bytes_max` bytes.
    /// Returns their epoch, the events, and the position up to which they are all wanted events.
    async fn read_table(
        &self,
        cursor: Cursor,
        to: Position,
        is_wanted: impl Fn(&GroupEvent) -> bool + Send + Sync,
        bytes_max: usize,
    ) -> Result<(Epoch, Vec<GroupEvent>, Position), GroupError> {
        let mut scan = LogScan::new(self.filter.clone(), cursor, self.feed.limits().scan);
        let (mut events, mut bytes) = (Vec::new(), 0);
        let reader = self.feed.readers.for_subscribers();
        let _permit = reader.bulk_read_permit().await;
        let deliver = |event: &StoredEvent<'_>| {
            let event = GroupEvent::new(Arc::new(LiveEvent::new(event)));
            if is_wanted(&event) {
                bytes += event.event.json.len();
                events.push(event);
            }
            if bytes < bytes_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let head = reader.read_log(&mut scan, to, usize::MAX, deliver).await?;
        Ok((head.epoch, events, scan.after()))
    }

    /// Reads the events of one partition after a position and up to another one. Returns their epoch, the events, and the
    /// position up to which they are all events.
    pub(super) async fn read_partition(
        &self,
        partition: Partition,
        after: Position,
        to: Position,
        bytes_max: usize,
    ) -> Result<(Epoch, Vec<GroupEvent>, Position), GroupError> {
        let partitions = self.state().group.settings.partitions;
        let is_wanted = |event: &GroupEvent| partition_of(event.bucket, partitions) == partition;
        self.read_table(Cursor { epoch: None, position: after }, to, is_wanted, bytes_max).await
    }

    /// Returns the event of the group at a position; `None` if the group has no event there.
    pub(super) async fn event_at(&self, position: Position) -> Result<Option<GroupEvent>, GroupError> {
        if position < 1 {
            return Ok(None);
        }
        let cursor = Cursor { epoch: None, position: position - 1 };
        let (_, events, _) = self.read_table(cursor, position, |_| true, 1).await?;
        Ok(events.into_iter().next())
    }

    /// Returns whether an event belongs to the group.
    pub(super) fn has(&self, event: &LiveEvent) -> bool {
        self.filter.matches(&event.facts())
    }
}

/// Returns whether the states are those of the group: it was neither doubled nor deleted before they were read.
fn is_consistent(group: &Group, steps: &[Step]) -> bool {
    let partitions = group.settings.partitions;
    steps.len() == usize::try_from(partitions).unwrap_or(0) && steps.iter().all(|step| step.partitions == partitions)
}
