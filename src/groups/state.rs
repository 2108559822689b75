//! What a process knows of a group: the settings, the states of the partitions, the window of the log; and which claim
//! is next. Everything here is in memory, and nothing waits.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::cursor::{Cursor, Epoch};
use crate::domain::erasure::ErasureNo;
use crate::domain::event::Position;
use crate::domain::partition::Partition;
use crate::groups::error::PARKED_MAX;
use crate::groups::window::{GroupEvent, Window};
use crate::mutants;
use crate::store::groups::parked::{NewParkedStream, UnparkedStream};
use crate::store::groups::settings::Group;
use crate::store::groups::steps::{GroupStates, Step};

/// The largest size of the events of a claim, in bytes. A claim has at least one event.
pub(super) const CLAIM_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A group is in use for this time after a request of a worker.
const IN_USE_MAX: Duration = Duration::from_secs(5);

/// The names of the parked streams of a partition: ids by type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ParkedNames(HashMap<String, HashSet<String>>);

/// A partition, as far as the process knows.
#[derive(Debug, Clone)]
pub(super) struct PartitionView {
    pub(super) step: Step,
    /// The names of the parked streams at this step; `None` if they must be read.
    pub(super) parked: Option<ParkedNames>,
    /// Every event up to here is processed, or belongs to a parked stream: at least the position of the step.
    examined: Position,
    /// When the process learned of the step.
    known_since: Instant,
    /// A task of this process takes a step of the partition.
    pub(super) is_busy: bool,
    /// The steps up to this one are deleted.
    pub(super) deleted_to: i64,
}

/// Events of one partition that are behind the window: all events of the partition after `from` and up to `to`.
pub(super) struct Behind {
    pub(super) partition: Partition,
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) events: Vec<GroupEvent>,
}

/// The first unprocessed event of a partition that belongs to no parked stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FirstWaiting {
    /// It is at this position.
    At(Position),
    /// There is none up to this position.
    NoneUpTo(Position),
    /// The window begins after this position, at which the partition continues.
    BehindWindow(Position),
}

/// What a process knows of a group.
pub(super) struct GroupState {
    pub(super) group: Group,
    pub(super) views: Vec<PartitionView>,
    pub(super) window: Window,
    pub(super) behind: Option<Behind>,
    /// The epoch of the log when the states were read.
    pub(super) epoch: Epoch,
    pub(super) read_at: Instant,
    /// The time of the database at `read_at`.
    database_time: DateTime<Utc>,
    pub(super) next_retry_at: Option<DateTime<Utc>>,
    /// The last claim was a retry: new events are next.
    pub(super) last_was_retry: bool,
    pub(super) used_at: Instant,
    /// The newest erasure when the events of the window were read.
    erasure: ErasureNo,
}

/// What must be done for the next claim. A plan about a partition has the state that it is based on: its step fails if the
/// state has changed since. The partition is marked as busy.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing can be handed out before this time of the database (`None`: before the group or the log changes).
    Nothing(Option<DateTime<Utc>>),
    /// The names of the parked streams of these partitions must be read.
    ReadParked(Vec<Partition>),
    /// The lease of the claim of this partition has expired.
    Expire(Box<Step>),
    /// Parked streams are due.
    Retry,
    /// The stream of this event is parked, because no worker has finished it.
    Park(Box<Step>, GroupEvent),
    /// These events are handed out.
    Claim(Box<Step>, Vec<GroupEvent>),
    /// The partition continues after a position that is behind the window.
    ReadBehind(Box<Step>, Position),
    /// The window begins again, after this position.
    Restart(Position),
    /// The window must be extended.
    Extend,
}

impl ParkedNames {
    /// Adds a stream.
    pub(super) fn insert(&mut self, aggregate_type: &str, aggregate_id: &str) {
        self.0.entry(aggregate_type.to_owned()).or_default().insert(aggregate_id.to_owned());
    }

    fn remove(&mut self, aggregate_type: &str, aggregate_id: &str) {
        if let Some(ids) = self.0.get_mut(aggregate_type) {
            ids.remove(aggregate_id);
        }
    }

    /// Returns whether the stream of an event is parked.
    pub(super) fn has(&self, event: &GroupEvent) -> bool {
        let event = &event.event;
        !mutants::is(mutants::PARKED_STREAMS_IN_BATCHES)
            && self.0.get(&*event.aggregate_type).is_some_and(|ids| ids.contains(&*event.aggregate_id))
    }
}

impl PartitionView {
    fn new(step: Step) -> Self {
        let parked = (step.parked == 0).then(ParkedNames::default);
        let (examined, known_since) = (step.last_processed_position, Instant::now());
        Self { step, parked, examined, known_since, is_busy: false, deleted_to: 0 }
    }

    /// Replaces the state by one that was read from the database, by a read that began at `read_at`.
    fn replace_by_read(&mut self, step: Step, read_at: Instant) {
        // A failover may lose steps. A read that began before this process learned of a step may miss it.
        let is_lost =
            step.step < self.step.step || step.step == self.step.step && step.stepped_at != self.step.stepped_at;
        if is_lost && read_at > self.known_since {
            *self = Self { is_busy: self.is_busy, ..Self::new(step) };
        } else {
            self.replace(step);
        }
    }

    /// Replaces the state if a step is newer. The names of parked streams may have changed with it.
    fn replace(&mut self, step: Step) {
        if step.step <= self.step.step {
            return;
        }
        // Without the parked streams that have been removed since, more events may wait than were seen.
        let is_known = self.step.parked == 0;
        self.examined =
            if is_known { self.examined.max(step.last_processed_position) } else { step.last_processed_position };
        self.parked = (step.parked == 0).then(ParkedNames::default);
        (self.step, self.known_since) = (step, Instant::now());
    }

    /// Replaces the state by a step that this process has taken.
    pub(super) fn advance(&mut self, step: Step, parked: &[NewParkedStream], unparked: &[UnparkedStream]) {
        if step.step != self.step.step + 1 {
            self.replace(step);
            return;
        }
        if let Some(names) = &mut self.parked {
            parked.iter().for_each(|stream| names.insert(&stream.aggregate_type, &stream.aggregate_id));
            unparked.iter().for_each(|stream| names.remove(&stream.aggregate_type, &stream.aggregate_id));
        }
        let position = step.last_processed_position;
        // Events of a stream that is no longer parked may wait after the position.
        self.examined = if unparked.is_empty() { self.examined.max(position) } else { position };
        (self.step, self.known_since) = (step, Instant::now());
    }

    /// Returns the first event that waits.
    pub(super) fn first_waiting(&self, window: &Window, behind: Option<&Behind>) -> FirstWaiting {
        let Some(parked) = &self.parked else { return FirstWaiting::BehindWindow(self.examined) };
        let mut after = self.examined;
        if let Some(behind) = self.own(behind) {
            let mut events = behind.events.iter().skip_while(|event| event.position() <= after);
            if let Some(event) = events.find(|event| !parked.has(event)) {
                return FirstWaiting::At(event.position());
            }
            after = after.max(behind.to);
        }
        if after < window.from() {
            return FirstWaiting::BehindWindow(after);
        }
        match window.events(self.step.partition, after).find(|event| !parked.has(event)) {
            Some(event) => FirstWaiting::At(event.position()),
            None => FirstWaiting::NoneUpTo(after.max(window.to())),
        }
    }

    /// Returns the events behind the window if they are this partition's, and begin where it continues.
    fn own<'b>(&self, behind: Option<&'b Behind>) -> Option<&'b Behind> {
        behind.filter(|behind| {
            let continues = behind.from <= self.examined && self.examined < behind.to;
            behind.partition == self.step.partition && continues
        })
    }

    /// Records that no event up to a position waits.
    pub(super) fn raise_examined(&mut self, position: Position) {
        self.examined = self.examined.max(position);
    }

    /// Returns the events of the next claim: the first ones that wait.
    fn batch(&self, window: &Window, behind: Option<&Behind>, limit: usize) -> Vec<GroupEvent> {
        let Some(parked) = &self.parked else { return Vec::new() };
        let mut bytes = 0;
        let mut batch: Vec<GroupEvent> = Vec::new();
        let behind = self.own(behind).map(|behind| &*behind.events).unwrap_or_default().iter();
        let behind = behind.skip_while(|event| event.position() <= self.examined);
        // A claim has events of one of the two: what lies between them is unknown.
        let mut events = behind.filter(|event| !parked.has(event)).peekable();
        let from_window = events.peek().is_none().then(|| window.events(self.step.partition, self.examined));
        let from_window = from_window.into_iter().flatten().filter(|event| !parked.has(event));
        for event in events.chain(from_window) {
            bytes += event.event.json.len();
            let is_careful = batch.first().is_some_and(|first| first.position() <= self.step.careful_to)
                && !mutants::is(mutants::CAREFUL_TO_IGNORED);
            if batch.len() == limit || is_careful || !batch.is_empty() && bytes > CLAIM_BYTES_MAX {
                break;
            }
            batch.push(event.clone());
        }
        batch
    }

    /// Returns whether the stream of the first waiting event is to be parked: a number of leases for this event have
    /// expired. After the lease of several events it is unknown which of them the worker did not finish.
    fn is_unfinished(&self, first: &GroupEvent, retries: usize) -> bool {
        let leases = usize::try_from(self.step.expired_leases).unwrap_or(0);
        leases > retries && (leases > 1 || first.position() >= self.step.careful_to)
    }
}

impl GroupState {
    /// Creates the state from what was read. The window is empty, and begins at the least advanced partition.
    pub(super) fn new(group: Group, states: GroupStates, read_at: Instant) -> Self {
        let after = states.steps.iter().map(|step| step.last_processed_position).min().unwrap_or(0);
        Self {
            window: Window::new(group.settings.partitions, after),
            behind: None,
            group,
            views: states.steps.into_iter().map(PartitionView::new).collect(),
            epoch: states.epoch,
            read_at,
            database_time: states.now,
            next_retry_at: states.next_retry_at,
            last_was_retry: false,
            used_at: read_at,
            erasure: 0,
        }
    }

    /// Replaces the states by newer ones.
    pub(super) fn update(&mut self, group: Group, states: GroupStates, read_at: Instant) {
        if group.settings.partitions != self.window.partitions() {
            self.window.divide(group.settings.partitions);
            self.behind = None;
            self.views = states.steps.into_iter().map(PartitionView::new).collect();
        } else {
            // The group may have been reset in the meantime.
            let is_changed = group.revision != self.group.revision;
            for (view, step) in self.views.iter_mut().zip(states.steps) {
                view.replace_by_read(step, read_at);
                if is_changed {
                    view.examined = view.step.last_processed_position;
                }
            }
        }
        self.group = group;
        if states.epoch != self.epoch {
            self.forget();
        }
        (self.epoch, self.next_retry_at) = (states.epoch, states.next_retry_at);
        (self.read_at, self.database_time) = (read_at, states.now);
    }

    /// Returns the time of the database.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.database_time + TimeDelta::from_std(self.read_at.elapsed()).unwrap_or_default()
    }

    /// Returns the view of a partition; `None` if the group has no such partition.
    pub(super) fn view(&self, partition: Partition) -> Option<&PartitionView> {
        self.views.get(usize::try_from(partition).ok()?)
    }

    /// Returns the view of a partition, to change it.
    pub(super) fn view_mut(&mut self, partition: Partition) -> Option<&mut PartitionView> {
        self.views.get_mut(usize::try_from(partition).ok()?)
    }

    /// Returns the number of parked streams.
    pub(super) fn parked(&self) -> i32 {
        self.views.iter().map(|view| view.step.parked).sum()
    }

    /// Returns whether workers use the group in this process.
    pub(super) fn is_in_use(&self) -> bool {
        self.used_at.elapsed() < IN_USE_MAX
    }

    /// Returns the cursor after which the window continues.
    pub(super) fn end_of_window(&self) -> Cursor {
        Cursor { epoch: Some(self.window.epoch).filter(|epoch| *epoch > 0), position: self.window.to() }
    }

    /// Drops the events of the window, and what was concluded from them.
    pub(super) fn restart_window(&mut self, after: Position) {
        self.window = Window::new(self.group.settings.partitions, after);
        self.behind = None;
    }

    /// Drops the events that were read before an erasure.
    pub(super) fn forget_events_before(&mut self, erasure: ErasureNo) {
        if self.erasure != erasure {
            self.erasure = erasure;
            self.restart_window(self.window.from());
        }
    }

    /// Forgets all conclusions, because the log was found to be another one.
    pub(super) fn forget(&mut self) {
        for view in &mut self.views {
            view.examined = view.step.last_processed_position;
        }
        let after = self.views.iter().map(|view| view.examined).min().unwrap_or(0);
        self.restart_window(after);
    }

    /// Removes the oldest events, so that the window has at most `bytes_max` bytes.
    pub(super) fn shrink_window(&mut self, bytes_max: usize) {
        let from = self.window.excess(bytes_max);
        if from == self.window.from() {
            return;
        }
        for view in &mut self.views {
            match view.first_waiting(&self.window, self.behind.as_ref()) {
                FirstWaiting::At(position) => view.raise_examined(from.min(position - 1)),
                FirstWaiting::NoneUpTo(_) => view.raise_examined(from),
                FirstWaiting::BehindWindow(_) => {}
            }
        }
        self.window.begin_after(from);
    }

    /// Decides what is next for a worker that wants at most `limit` events. If the plan is a step of a partition, the
    /// partition is marked as busy.
    pub(super) fn plan(&mut self, limit: usize) -> Plan {
        if self.group.settings.paused {
            return Plan::Nothing(None);
        }
        let now = self.now();
        let retries = self.group.settings.retry_after.len();
        let mut wake_at: Option<DateTime<Utc>> = None;
        let mut wake = |at: Option<DateTime<Utc>>| {
            wake_at = [wake_at, at].into_iter().flatten().min();
        };
        let is_retry_due = self.next_retry_at.is_some_and(|at| at <= now);
        wake(self.next_retry_at.filter(|at| *at > now));

        let mut free = Vec::new();
        for view in &self.views {
            if view.is_busy {
                continue;
            }
            let step = &view.step;
            if step.is_leased(now) && !mutants::is(mutants::LIVE_LEASES_IGNORED) {
                wake(step.claim.claimed_until);
            } else if step.rests(now) {
                wake(step.not_before);
            } else {
                free.push(step.partition);
            }
        }
        let unknown: Vec<_> =
            free.iter().copied().filter(|p| self.view(*p).is_some_and(|view| view.parked.is_none())).collect();
        if !unknown.is_empty() {
            return Plan::ReadParked(unknown);
        }

        let mut behind = Vec::new();
        let mut waiting = Vec::new();
        for partition in &free {
            let Some(view) = self.view(*partition) else { continue };
            match view.first_waiting(&self.window, self.behind.as_ref()) {
                FirstWaiting::At(position) => waiting.push((position, *partition)),
                FirstWaiting::NoneUpTo(_) => {}
                FirstWaiting::BehindWindow(after) => behind.push((after, *partition)),
            }
        }
        let expired = free.iter().copied().find(|partition| {
            let step = self.view(*partition).map(|view| &view.step);
            step.is_some_and(|step| step.claim.number.is_some() && !step.is_leased(now))
        });
        if let Some(partition) = expired {
            return self.mark_busy(partition, Plan::Expire);
        }
        let has_new = !waiting.is_empty() || !behind.is_empty();
        if is_retry_due && !free.is_empty() && !(self.last_was_retry && has_new) {
            return Plan::Retry;
        }
        // What was read behind the window is handed out before something else is read there.
        let found_behind = self.behind.as_ref().and_then(|behind| {
            waiting
                .iter()
                .copied()
                .find(|(position, partition)| *partition == behind.partition && *position <= behind.to)
        });
        // Of other partitions behind the window only their last position is known. If most are there, the window is in the
        // wrong place.
        if found_behind.is_none()
            && let Some((after, partition)) = behind.iter().min().copied()
        {
            return if behind.len() * 2 >= self.views.len() {
                Plan::Restart(after)
            } else {
                self.mark_busy(partition, |step| Plan::ReadBehind(step, after))
            };
        }
        let Some((_, partition)) = found_behind.or_else(|| waiting.into_iter().min()) else {
            return if free.is_empty() { Plan::Nothing(wake_at) } else { Plan::Extend };
        };
        let Some(view) = self.view(partition) else { return Plan::Nothing(wake_at) };
        let batch = view.batch(&self.window, self.behind.as_ref(), limit);
        let Some(first) = batch.first() else { return Plan::Nothing(wake_at) };
        if view.is_unfinished(first, retries) && self.parked() < PARKED_MAX {
            let first = first.clone();
            return self.mark_busy(partition, |step| Plan::Park(step, first));
        }
        self.mark_busy(partition, |step| Plan::Claim(step, batch))
    }

    /// Records when parked streams are due that this process has parked.
    pub(super) fn note_retries(&mut self, parked: &[NewParkedStream]) {
        let now = self.now();
        let due = parked.iter().filter_map(|stream| stream.retry_seconds).min();
        let due = due.map(|seconds| now + TimeDelta::seconds(seconds.into()));
        self.next_retry_at = [self.next_retry_at, due].into_iter().flatten().min();
    }

    /// Returns whether a task of this process takes a step.
    pub(super) fn is_busy(&self) -> bool {
        self.views.iter().any(|view| view.is_busy)
    }

    /// Returns what to wait for when the window has all events of the log.
    pub(super) fn next_wake_at(&self) -> Option<DateTime<Utc>> {
        let now = self.now();
        let times = self.views.iter().flat_map(|view| {
            let leased = view.step.claim.number.and(view.step.claim.claimed_until);
            [leased, view.step.not_before]
        });
        times.chain([self.next_retry_at]).flatten().filter(|at| *at > now).min()
    }

    fn mark_busy(&mut self, partition: Partition, plan: impl FnOnce(Box<Step>) -> Plan) -> Plan {
        match self.view_mut(partition) {
            Some(view) => {
                view.is_busy = true;
                plan(Box::new(view.step.clone()))
            }
            None => Plan::Nothing(None),
        }
    }

    /// Returns the events of a partition in the window after its position and up to another one, without those of parked
    /// streams; `None` if the window does not have them all.
    pub(super) fn events_of_claim(&self, step: &Step) -> Option<Vec<GroupEvent>> {
        let view = self.view(step.partition).filter(|view| view.step.step == step.step)?;
        let (parked, to) = (view.parked.as_ref()?, step.claim.claimed_to?);
        let has_all = step.last_processed_position >= self.window.from() && to <= self.window.to();
        let events = self.window.events(step.partition, step.last_processed_position);
        let events = events.take_while(|event| event.position() <= to).filter(|event| !parked.has(event));
        has_all.then(|| events.cloned().collect())
    }

    /// Returns the position up to which every event was processed or belongs to a parked stream.
    pub(super) fn position(&self) -> Position {
        let positions = self.views.iter().map(|view| self.position_of(view));
        let position = if mutants::is(mutants::GROUP_AT_MAXIMUM) { positions.max() } else { positions.min() };
        position.unwrap_or(0)
    }

    /// Returns the position up to which no event of a partition waits, except those of parked streams.
    pub(super) fn reached_by(&self, view: &PartitionView) -> Position {
        match view.first_waiting(&self.window, self.behind.as_ref()) {
            FirstWaiting::At(position) => position - 1,
            FirstWaiting::NoneUpTo(position) | FirstWaiting::BehindWindow(position) => position,
        }
    }

    /// Returns the position up to which every event of a partition was processed, or is passed by a step of the partition.
    ///
    /// An event of a parked stream behind the last step is not passed yet: if the stream is no longer parked, the event
    /// waits.
    pub(super) fn position_of(&self, view: &PartitionView) -> Position {
        let last = view.step.last_processed_position;
        if view.step.parked == 0 {
            return self.reached_by(view);
        }
        if last < self.window.from() {
            return last;
        }
        let next = self.window.events(view.step.partition, last).next();
        next.map_or_else(|| last.max(self.window.to()), |event| event.position() - 1)
    }

    /// Returns whether the position can only increase by an acknowledgement: the window has the first waiting event of the
    /// least advanced partition.
    pub(super) fn is_position_settled(&self) -> bool {
        let position = self.position();
        let least = self.views.iter().filter(|view| self.position_of(view) == position);
        let mut least = least.map(|view| view.first_waiting(&self.window, self.behind.as_ref()));
        least.any(|first| matches!(first, FirstWaiting::At(_)))
    }
}
