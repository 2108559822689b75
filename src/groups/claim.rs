//! Handing out claims.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::claim_id::ClaimId;
use crate::domain::event::Position;
use crate::groups::error::GroupError;
use crate::groups::group::{ActiveGroup, CHUNK_BYTES, Extension, Source};
use crate::groups::parked::retry_seconds;
use crate::groups::state::{Behind, GroupState, Plan};
use crate::groups::window::{GroupEvent, partition_of};
use crate::mutants;
use crate::shares::client::ClientId;
use crate::store::error::StoreError;
use crate::store::groups::parked::{NewParkedStream, ParkedStream};
use crate::store::groups::steps::{NewStep, OpenClaim, Step, StepKind};
use crate::subscriptions::feed::{SubscriberKind, SubscriberSlot};
use crate::subscriptions::ring::LiveEvent;

/// Why a stream is parked whose events no worker finished.
pub(super) const NOT_FINISHED: &str = "no worker finished it";

/// The pause between two reads of the states while a worker waits, doubled each time up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// States that are older are read again before a claim is planned.
const STATES_AGE_MAX: Duration = Duration::from_millis(250);
/// The pause until the writer has begun the epoch of a log that was moved.
const EPOCH_PAUSE: Duration = Duration::from_millis(50);
/// The longest wait for a step that another request takes.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// The number of due parked streams that are compared with the free partitions.
const DUE_MAX: i64 = 1_000;

/// The claim that a worker wants.
#[derive(Debug, Clone)]
pub struct ClaimOptions {
    /// The largest number of events.
    pub limit: usize,
    pub worker: Option<String>,
    /// The key under which a repeated request finds the same claim.
    pub key: Option<String>,
    pub wait: Duration,
}

/// A claim with its unprocessed events.
#[derive(Debug, Clone)]
pub struct Claim {
    pub claim_id: ClaimId,
    pub step: Step,
    /// The parked stream that the claim retries.
    pub retry: Option<ParkedStream>,
    pub events: Vec<Arc<LiveEvent>>,
}

/// A claim for a response. If the response cannot be delivered, the claim is released.
pub struct Delivery {
    group: Arc<ActiveGroup>,
    claim: Box<Claim>,
    is_delivered: bool,
}

/// The result of asking for a claim.
pub enum ClaimResult {
    New(Delivery),
    /// The key has made this claim before, and it is open.
    Known(Box<Claim>),
    Nothing,
}

/// The result of one attempt.
enum Attempt {
    Claimed(Box<Claim>),
    /// The key is in use.
    KeyInUse,
    Nothing(Option<DateTime<Utc>>),
}

impl Claim {
    pub(super) fn new(step: Step, retry: Option<ParkedStream>, events: Vec<GroupEvent>) -> Option<Box<Self>> {
        let events = events.into_iter().map(|event| event.event).collect();
        Some(Box::new(Self { claim_id: step.claim_id()?, step, retry, events }))
    }
}

impl Delivery {
    pub(super) fn new(group: &Arc<ActiveGroup>, claim: Box<Claim>) -> Self {
        Self { group: group.clone(), claim, is_delivered: false }
    }

    /// Returns the claim.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The response is delivered: the claim stays open.
    pub fn complete(&mut self) {
        self.is_delivered = true;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.is_delivered {
            return;
        }
        let (group, claim_id) = (self.group.clone(), self.claim.claim_id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = group.release(claim_id).await {
                    tracing::debug!(%error, %claim_id, "a claim that was not delivered ends with its lease");
                }
            });
        }
    }
}

impl ActiveGroup {
    /// Hands out a claim, or waits for one. If the caller drops the future, no claim is left behind.
    pub async fn claim(self: &Arc<Self>, mut options: ClaimOptions) -> Result<ClaimResult, GroupError> {
        if mutants::is(mutants::CLAIM_KEY_IGNORED) {
            options.key = None;
        }
        let abandoned = CancellationToken::new();
        let _abandon = abandoned.clone().drop_guard();
        let (group, client) = (self.clone(), ClientId::current());
        // A step that was sent to the database must be completed, so the caller cannot cancel it.
        let claiming = tokio::spawn(client.scope(async move { group.claim_or_wait(&options, &abandoned).await }));
        claiming.await.unwrap_or(Err(StoreError::ShuttingDown.into()))
    }

    /// Hands out a claim, or waits for one until the options' time is up or the caller has abandoned it.
    pub(super) async fn claim_or_wait(
        self: &Arc<Self>,
        options: &ClaimOptions,
        abandoned: &CancellationToken,
    ) -> Result<ClaimResult, GroupError> {
        let started = Instant::now();
        let deadline = started + options.wait;
        let mut key_use = 1;
        if let Some(key) = options.key.as_deref() {
            match self.find_key(key).await? {
                KeyUse::Open(claim) => return Ok(ClaimResult::Known(claim)),
                KeyUse::Ended(last_use) => key_use = last_use + 1,
                KeyUse::Unknown => {}
            }
        }
        let mut slot = None;
        let mut pause = PAUSE_MIN;
        let mut source = Source::Log;
        self.refresh(STATES_AGE_MAX).await?;
        let (mut changes, mut tail) = (self.changes(), self.feed.tail());
        loop {
            changes.mark_unchanged();
            tail.mark_unchanged();
            let wake_at = match self.attempt(options, key_use, source).await? {
                Attempt::Claimed(claim) => {
                    self.count_claim(&claim);
                    return Ok(ClaimResult::New(Delivery::new(self, claim)));
                }
                Attempt::KeyInUse => match self.find_key(options.key.as_deref().unwrap_or_default()).await? {
                    KeyUse::Open(claim) => return Ok(ClaimResult::Known(claim)),
                    KeyUse::Ended(last_use) => {
                        key_use = last_use + 1;
                        continue;
                    }
                    KeyUse::Unknown => continue,
                },
                Attempt::Nothing(wake_at) => wake_at,
            };
            // Another process may have ended a claim since the states were read.
            if source == Source::Log && self.refresh(started.elapsed()).await? {
                continue;
            }
            source = Source::Ring;
            if self.state().is_busy() && Instant::now() < deadline + BUSY_MAX {
                // Another request is taking a step. Its result decides whether something is left.
                let _ = tokio::time::timeout(BUSY_MAX, changes.changed()).await;
                continue;
            }
            if Instant::now() >= deadline {
                return self.claim_of_key(options).await;
            }
            if slot.is_none() {
                slot = Some(SubscriberSlot::acquire(&self.feed, SubscriberKind::Claim)?);
            }
            let until_wake = wake_at.map_or(pause, |at| (at - self.state().now()).to_std().unwrap_or_default());
            let next = Instant::now() + until_wake.min(pause);
            let is_woken_by_events_alone = mutants::is(mutants::NOT_WOKEN_AT_LEASE_END);
            let next = if is_woken_by_events_alone { deadline } else { next.min(deadline) };
            tokio::select! {
                _ = changes.changed(), if !is_woken_by_events_alone => {}
                _ = tail.changed() => pause = PAUSE_MIN,
                () = tokio::time::sleep_until(next) => {
                    self.refresh(pause).await?;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                () = abandoned.cancelled() => return Ok(ClaimResult::Nothing),
                () = self.feed.closing.cancelled() => return Err(StoreError::ShuttingDown.into()),
            }
        }
    }

    /// Counts a claim that is handed out.
    pub(super) fn count_claim(&self, claim: &Claim) {
        self.metrics.claims.with_label_values(&["claimed"]).inc();
        self.metrics.claimed_events.inc_by(claim.events.len() as u64);
    }

    /// Returns the claim that another request with the key has made in the meantime.
    async fn claim_of_key(&self, options: &ClaimOptions) -> Result<ClaimResult, GroupError> {
        let Some(key) = &options.key else { return Ok(ClaimResult::Nothing) };
        Ok(match self.find_key(key).await? {
            KeyUse::Open(claim) => ClaimResult::Known(claim),
            KeyUse::Ended(_) | KeyUse::Unknown => ClaimResult::Nothing,
        })
    }

    /// Takes steps until a claim is handed out, or nothing is left to hand out.
    async fn attempt(&self, options: &ClaimOptions, key_use: i32, source: Source) -> Result<Attempt, GroupError> {
        self.refresh(STATES_AGE_MAX).await?;
        self.look_ahead().await?;
        loop {
            let plan = {
                let mut state = self.state();
                state.used_at = std::time::Instant::now();
                state.plan(options.limit)
            };
            match plan {
                Plan::Nothing(wake_at) => return Ok(Attempt::Nothing(wake_at)),
                Plan::ReadParked(partitions) => self.read_parked(&partitions).await?,
                Plan::Expire(step) => self.expire(&step).await?,
                Plan::Retry => match self.claim_retry(options, key_use).await? {
                    RetryAttempt::Claimed(claim) => return Ok(Attempt::Claimed(claim)),
                    RetryAttempt::KeyInUse => return Ok(Attempt::KeyInUse),
                    RetryAttempt::Again => {}
                },
                Plan::Park(step, event) => self.park_unfinished(&step, &event).await?,
                Plan::ReadBehind(step, after) => self.read_behind(&step, after).await?,
                Plan::Restart(after) => self.state().restart_window(after),
                Plan::Extend => {
                    if self.extend(source).await? == Extension::AtHead {
                        return Ok(Attempt::Nothing(self.state().next_wake_at()));
                    }
                }
                Plan::Claim(step, events) => {
                    let new = new_claim(&self.state(), &step, &events, options, key_use);
                    let Some(new) = new else {
                        self.set_idle(step.partition);
                        continue;
                    };
                    match self.take_claim(&new).await? {
                        Some(step) => {
                            self.state().last_was_retry = false;
                            if let Some(claim) = Claim::new(step, None, events) {
                                return Ok(Attempt::Claimed(claim));
                            }
                        }
                        None if options.key.is_some() => return Ok(Attempt::KeyInUse),
                        None => {}
                    }
                }
            }
        }
    }

    /// Takes the step of a claim. While the log has moved and the writer has not begun an epoch, waits a moment.
    async fn take_claim(&self, new: &NewStep) -> Result<Option<Step>, GroupError> {
        let stepped = self.take(new).await?;
        if stepped.is_none() && self.state().window.epoch == 0 {
            tokio::time::sleep(EPOCH_PAUSE).await;
        }
        Ok(stepped)
    }

    /// Ends a claim whose lease has expired. Its events are handed out one by one.
    async fn expire(&self, step: &Step) -> Result<(), GroupError> {
        let parked = self.failed_retry(step).await;
        if parked.is_err() {
            self.set_idle(step.partition);
        }
        let parked = parked?;
        let mut next = step.next(StepKind::Expired);
        if step.claim.parked_type.is_none() {
            next.careful_to = next.careful_to.max(step.claim.claimed_to.unwrap_or(0));
            next.expired_leases += 1;
        }
        next.end_claim();
        let epoch = self.state().epoch;
        let new = NewStep { parked: parked.into_iter().collect(), ..NewStep::plain(next, epoch) };
        if self.take(&new).await?.is_some() {
            self.metrics.claims.with_label_values(&["expired"]).inc();
        }
        Ok(())
    }

    /// Returns the change of the parked stream of a retry whose lease has expired; `None` if the claim was no retry.
    async fn failed_retry(&self, step: &Step) -> Result<Option<NewParkedStream>, GroupError> {
        let Some((aggregate_type, aggregate_id)) = step.claim.retried_stream() else { return Ok(None) };
        let parked = self.feed.primary.parked_stream(self.group_no, aggregate_type, aggregate_id).await?;
        let Some(parked) = parked else { return Ok(None) };
        let (events, _) = self.events_of_parked(&parked, step.last_processed_position, 1).await?;
        let mut change = parked.to_new();
        if let Some(first) = events.first() {
            change.attempts = parked.attempts_after_failure(first);
            change.event = first.to_failed();
        }
        change.reason = NOT_FINISHED.to_owned();
        change.retry_seconds = retry_seconds(&self.state().group.settings.retry_after, change.attempts);
        Ok(Some(change))
    }

    /// Parks the stream of an event that no worker has finished. An operator decides about it.
    async fn park_unfinished(&self, step: &Step, event: &GroupEvent) -> Result<(), GroupError> {
        let epoch = self.state().epoch;
        let parked = event.to_parked(step.expired_leases, NOT_FINISHED.to_owned(), None);
        let mut next = step.next(StepKind::Changed);
        next.parked += 1;
        next.newly_parked = 1;
        // It was the first event that waited.
        next.last_processed_position = event.position();
        // The lease of all events up to `careful_to` has expired once.
        next.expired_leases = i32::from(event.position() < step.careful_to);
        let new = NewStep { parked: vec![parked], ..NewStep::plain(next, epoch) };
        self.take(&new).await?;
        Ok(())
    }

    /// Reads the events of a partition that is behind the window.
    async fn read_behind(&self, step: &Step, after: Position) -> Result<(), GroupError> {
        let (partition, to) = (step.partition, self.state().window.from());
        let mark = self.feed.read_mark();
        let read = self.read_partition(partition, after, to, CHUNK_BYTES).await;
        if let Ok((_, events, reached)) = &read
            && !mark.is_void()
        {
            let mut state = self.state();
            let view = state.view_mut(partition).filter(|view| view.step.step == step.step);
            if let Some(view) = view
                && events.is_empty()
            {
                view.raise_examined(*reached);
            }
            state.behind = Some(Behind { partition, from: after, to: *reached, events: events.clone() });
        }
        self.set_idle(partition);
        read.map(drop)
    }
}

/// The result of looking up a key.
pub(super) enum KeyUse {
    Unknown,
    /// The last claim with the key has ended. The field is the number of its use.
    Ended(i32),
    Open(Box<Claim>),
}

/// The result of trying to retry a parked stream.
pub(super) enum RetryAttempt {
    Claimed(Box<Claim>),
    KeyInUse,
    /// The state has changed: plan again.
    Again,
}

impl ActiveGroup {
    /// Looks up the claim that was made with a key.
    pub(super) async fn find_key(&self, key: &str) -> Result<KeyUse, GroupError> {
        let Some((partition, number, key_use)) = self.feed.primary.claim_of_key(self.group_no, key).await? else {
            return Ok(KeyUse::Unknown);
        };
        self.refresh(Duration::ZERO).await?;
        let step = self.state().view(partition).map(|view| view.step.clone());
        match step.filter(|step| step.claim.number == Some(number)) {
            Some(step) => Ok(self.claim_of(step).await?.map_or(KeyUse::Ended(key_use), KeyUse::Open)),
            None => Ok(KeyUse::Ended(key_use)),
        }
    }

    /// Hands out the events of a parked stream that is due, if its partition is free.
    async fn claim_retry(&self, options: &ClaimOptions, key_use: i32) -> Result<RetryAttempt, GroupError> {
        let due = self.feed.primary.parked_streams_due(self.group_no, DUE_MAX).await?;
        let chosen = {
            let mut state = self.state();
            let (now, partitions) = (state.now(), state.group.settings.partitions);
            let (epoch, lease_seconds) = (state.epoch, state.group.settings.lease_seconds);
            let chosen = due.iter().find_map(|parked| {
                let view = state.view_mut(partition_of(parked.bucket, partitions))?;
                if view.is_busy || view.step.claim.number.is_some() || view.step.rests(now) {
                    return None;
                }
                view.is_busy = true;
                Some((parked.clone(), view.step.clone(), epoch, lease_seconds))
            });
            if chosen.is_none() {
                // The time was outdated, or the partitions of all due streams are claimed: new events are next.
                state.last_was_retry = true;
                state.next_retry_at = if due.is_empty() { None } else { state.next_wake_at() };
            }
            chosen
        };
        let Some((due, step, epoch, lease_seconds)) = chosen else { return Ok(RetryAttempt::Again) };
        // The list of due streams may be older than the step. A stream changes only with a step of its partition, so what
        // is read now is what the step is based on, or the step fails.
        let read = self.feed.primary.parked_stream(self.group_no, &due.aggregate_type, &due.aggregate_id).await;
        let parked = match read {
            Ok(Some(parked)) if parked.retry_at == due.retry_at => parked,
            Ok(_) => {
                self.set_idle(step.partition);
                return Ok(RetryAttempt::Again);
            }
            Err(error) => {
                self.set_idle(step.partition);
                return Err(error.into());
            }
        };

        // After a worker did not finish it, its events are handed out one by one.
        let limit = if parked.reason == NOT_FINISHED { 1 } else { options.limit };
        let read = self.events_of_parked(&parked, step.last_processed_position, limit).await;
        if read.is_err() {
            self.set_idle(step.partition);
        }
        let (events, is_complete) = read?;
        let Some(last) = events.last() else {
            // All its events are processed, or were skipped.
            let mut next = step.next(StepKind::Changed);
            next.parked -= 1;
            let new = NewStep { unparked: vec![parked.to_unparked()], ..NewStep::plain(next, epoch) };
            self.take(&new).await?;
            return Ok(RetryAttempt::Again);
        };
        let mut next = step.next(StepKind::Claimed);
        next.epoch = epoch;
        next.claim = OpenClaim {
            number: Some(next.step),
            claimed_to: Some(last.position()),
            claimed_until: None,
            parked_type: Some(parked.aggregate_type.clone()),
            parked_id: Some(parked.aggregate_id.clone()),
            parked_position: Some(parked.last_processed_position),
            is_complete,
            worker: options.worker.clone(),
        };
        (next.claim_key, next.key_use) = (options.key.clone(), key_use);
        let new = NewStep { lease_seconds: Some(lease_seconds), ..NewStep::plain(next, epoch) };
        let Some(step) = self.take_claim(&new).await? else {
            return Ok(if options.key.is_some() { RetryAttempt::KeyInUse } else { RetryAttempt::Again });
        };
        self.state().last_was_retry = true;
        Ok(Claim::new(step, Some(parked), events).map_or(RetryAttempt::Again, RetryAttempt::Claimed))
    }

    /// Returns an open claim with its unprocessed events; `None` if its parked stream is gone.
    pub(super) async fn claim_of(&self, step: Step) -> Result<Option<Box<Claim>>, GroupError> {
        let Some((aggregate_type, aggregate_id)) = step.claim.retried_stream() else {
            let events = self.rest_of_claim(&step).await?;
            return Ok(Claim::new(step, None, events));
        };
        let parked = self.feed.primary.parked_stream(self.group_no, aggregate_type, aggregate_id).await?;
        let Some(parked) = parked else { return Ok(None) };
        let to = step.claim.claimed_to.unwrap_or(0);
        let (mut events, _) = self.events_of_parked(&parked, to, usize::MAX).await?;
        events.retain(|event| event.position() > step.acknowledged_position());
        Ok(Claim::new(step, Some(parked), events))
    }

    /// Returns the unprocessed events of a claim of new events.
    async fn rest_of_claim(&self, step: &Step) -> Result<Vec<GroupEvent>, GroupError> {
        loop {
            let in_memory = {
                let state = self.state();
                let is_parked_known = state.view(step.partition).is_some_and(|view| view.parked.is_some());
                is_parked_known.then(|| state.events_of_claim(step))
            };
            match in_memory {
                None => self.read_parked(&[step.partition]).await?,
                Some(Some(events)) => return Ok(events),
                Some(None) => break,
            }
        }
        let to = step.claim.claimed_to.unwrap_or(0);
        let mut found = Vec::new();
        let mut after = step.last_processed_position;
        while after < to {
            let (_, events, reached) = self.read_partition(step.partition, after, to, usize::MAX).await?;
            found.extend(events);
            after = reached;
        }
        let state = self.state();
        let parked = state.view(step.partition).and_then(|view| view.parked.as_ref());
        found.retain(|event| !parked.is_some_and(|parked| parked.has(event)));
        Ok(found)
    }

    /// Returns a claim if it is open.
    pub async fn read_claim(&self, claim_id: ClaimId) -> Result<Box<Claim>, GroupError> {
        self.refresh(Duration::ZERO).await?;
        let step = self.step_of(claim_id).ok_or(GroupError::ClaimNotFound)?;
        self.claim_of(step).await?.ok_or(GroupError::ClaimNotFound)
    }

    /// Returns the open claims, without events.
    pub async fn open_claims(&self) -> Result<Vec<Step>, GroupError> {
        self.refresh(Duration::ZERO).await?;
        Ok(self.steps().into_iter().filter(|step| step.claim.number.is_some()).collect())
    }

    /// Ends a claim without acknowledging anything. Returns whether it was open.
    pub async fn release(&self, claim_id: ClaimId) -> Result<bool, GroupError> {
        loop {
            let Some(step) = self.claimed_step(claim_id).await? else { return Ok(false) };
            let mut next = step.next(StepKind::Released);
            next.end_claim();
            let epoch = self.state().epoch;
            if self.take(&NewStep::plain(next, epoch)).await?.is_some() {
                self.metrics.claims.with_label_values(&["released"]).inc();
                return Ok(true);
            }
        }
    }
}

/// Returns the step that hands out new events after a step; `None` if there are no events.
pub(super) fn new_claim(
    state: &GroupState,
    step: &Step,
    events: &[GroupEvent],
    options: &ClaimOptions,
    key_use: i32,
) -> Option<NewStep> {
    let epoch = state.window.epoch;
    let mut step = step.next(StepKind::Claimed);
    step.epoch = epoch;
    step.claim = OpenClaim {
        number: Some(step.step),
        claimed_to: Some(events.last()?.position()),
        worker: options.worker.clone(),
        ..OpenClaim::default()
    };
    (step.claim_key, step.key_use) = (options.key.clone(), key_use);
    let lease_seconds = Some(state.group.settings.lease_seconds);
    Some(NewStep { lease_seconds, ..NewStep::plain(step, epoch) })
}
