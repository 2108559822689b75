//! Acknowledging claims.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::domain::claim_id::ClaimId;
use crate::domain::event::Position;
use crate::groups::claim::{Claim, ClaimOptions, ClaimResult, Delivery, KeyUse, new_claim};
use crate::groups::error::{GroupError, PARKED_MAX};
use crate::groups::group::ActiveGroup;
use crate::groups::parked::retry_seconds;
use crate::groups::state::Plan;
use crate::groups::window::GroupEvent;
use crate::mutants;
use crate::shares::client::ClientId;
use crate::store::error::StoreError;
use crate::store::groups::parked::{NewParkedStream, ParkedStream};
use crate::store::groups::steps::{NewStep, Step, StepKind};
use crate::subscriptions::ring::LiveEvent;

/// What a worker acknowledges.
#[derive(Debug, Clone)]
pub struct Acknowledgement {
    pub last_processed_position: Position,
    pub failed: Vec<Failure>,
    /// The claim ends, even if events are left.
    pub release: bool,
    /// The seconds for which the partition rests after the claim.
    pub rest_seconds: i32,
}

/// An event that a worker could not process.
#[derive(Debug, Clone)]
pub struct Failure {
    pub global_position: Position,
    pub reason: String,
    pub retry: RetryTime,
}

/// When a failed event is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryTime {
    /// By the settings of the group.
    BySettings,
    /// After a number of seconds.
    After(i32),
    /// When an operator decides.
    ByOperator,
}

/// The result of an acknowledgement.
pub struct Acknowledged {
    pub claim_id: ClaimId,
    pub last_processed_position: Position,
    /// The number of streams that the acknowledgement parked.
    pub parked_streams: i32,
    /// The acknowledgement was accepted before.
    pub is_replayed: bool,
    pub claim: NextClaim,
}

/// The claim in the response to an acknowledgement.
pub enum NextClaim {
    None,
    /// The same claim, with its unprocessed events; or the next one that a former response has handed out.
    Open(Box<Claim>),
    New(Delivery),
}

/// An acknowledgement of an open claim.
struct Prepared {
    step: Box<NewStep>,
    /// The number of streams that it has parked before; `None` if it was not accepted before.
    parked_before: Option<i32>,
}

impl ActiveGroup {
    /// Acknowledges a claim. With `next`, also hands out the next one if the claim ends.
    pub async fn acknowledge(
        self: &Arc<Self>,
        claim_id: ClaimId,
        acknowledgement: Acknowledgement,
        next: Option<ClaimOptions>,
    ) -> Result<Acknowledged, GroupError> {
        let abandoned = CancellationToken::new();
        let _abandon = abandoned.clone().drop_guard();
        let (group, client) = (self.clone(), ClientId::current());
        let acknowledging = client.scope(async move {
            // A repeated request finds the claim that this one hands out.
            let key = format!("next:{claim_id}:{}", acknowledgement.last_processed_position);
            let next = next.map(|options| ClaimOptions { key: Some(key), ..options });
            group.acknowledge_and_claim(claim_id, &acknowledgement, next, &abandoned).await
        });
        tokio::spawn(acknowledging).await.unwrap_or(Err(StoreError::ShuttingDown.into()))
    }

    async fn acknowledge_and_claim(
        self: &Arc<Self>,
        claim_id: ClaimId,
        acknowledgement: &Acknowledgement,
        next: Option<ClaimOptions>,
        abandoned: &CancellationToken,
    ) -> Result<Acknowledged, GroupError> {
        let position = acknowledgement.last_processed_position;
        let done = |parked_streams, is_replayed, claim| Acknowledged {
            claim_id,
            last_processed_position: position,
            parked_streams,
            is_replayed,
            claim,
        };
        let mut is_current = false;
        loop {
            let Some(step) = self.claimed_step(claim_id).await? else {
                let parked_streams = self.accepted_before(claim_id, position).await?;
                let claim = match next {
                    Some(options) => self.next_claim(&options, abandoned).await?,
                    None => NextClaim::None,
                };
                return Ok(done(parked_streams, true, claim));
            };
            let Prepared { step: new, parked_before } = match self.prepare(&step, claim_id, acknowledgement).await {
                Ok(prepared) => prepared,
                // A refusal does not end in a step, which compares the state, so the current state decides.
                Err(_) if !is_current => {
                    self.refresh(Duration::ZERO).await?;
                    is_current = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let is_ended = new.step.claim.number.is_none();
            let parked_streams = parked_before.unwrap_or(new.step.newly_parked);
            let result = match next.as_ref().filter(|_| is_ended && new.parked.is_empty() && new.unparked.is_empty()) {
                Some(options) => self.take_both(&new, options).await?,
                None => self.take(&new).await?.map(|step| (step, None)),
            };
            let Some((step, claim)) = result else { continue };
            self.metrics.claims.with_label_values(&[if is_ended { "acknowledged" } else { "extended" }]).inc();
            let claim = match (claim, next) {
                (Some(claim), _) => NextClaim::New(Delivery::new(self, claim)),
                (None, _) if !is_ended => self.claim_of(step).await?.map_or(NextClaim::None, NextClaim::Open),
                (None, Some(options)) => self.next_claim(&options, abandoned).await?,
                (None, None) => NextClaim::None,
            };
            return Ok(done(parked_streams, parked_before.is_some(), claim));
        }
    }

    /// Checks an acknowledgement of an open claim, and returns its step.
    async fn prepare(
        &self,
        step: &Step,
        claim_id: ClaimId,
        acknowledgement: &Acknowledgement,
    ) -> Result<Prepared, GroupError> {
        let position = acknowledgement.last_processed_position;
        self.check_epoch(claim_id, position).await?;
        check_position(step, position)?;
        let is_reached = position == step.acknowledged_position();
        let parked_before = if is_reached { self.parked_before(step, acknowledgement).await? } else { None };
        // What is parked already is not parked again: the step only extends the lease, or ends the claim.
        let step = Box::new(self.new_acknowledgement(step, acknowledgement).await?);
        Ok(Prepared { step, parked_before })
    }

    /// Returns the state of the claim's partition if the claim is open. Reads it again if it seems to have ended.
    pub(super) async fn claimed_step(&self, claim_id: ClaimId) -> Result<Option<Step>, GroupError> {
        let open = || {
            if mutants::is(mutants::ACKNOWLEDGED_WITHOUT_FENCE) {
                let step = self.state().view(claim_id.partition).map(|view| view.step.clone());
                return step.filter(|step| step.claim.number.is_some());
            }
            self.step_of(claim_id)
        };
        if let Some(step) = open() {
            return Ok(Some(step));
        }
        self.refresh(Duration::ZERO).await?;
        Ok(open())
    }

    /// Returns the number of streams that an accepted acknowledgement of an ended claim parked. Fails if it was not
    /// accepted.
    async fn accepted_before(&self, claim_id: ClaimId, position: Position) -> Result<i32, GroupError> {
        let parked = self.feed.primary.accepted_acknowledgement(self.group_no, claim_id, position).await?;
        if let Some(parked) = parked {
            return Ok(parked);
        }
        self.check_epoch(claim_id, position).await?;
        let step = self.state().view(claim_id.partition).map(|view| view.step.clone());
        self.metrics.claims.with_label_values(&["lost"]).inc();
        Err(GroupError::ClaimLost {
            last_processed_position: step.as_ref().map(|step| step.last_processed_position),
            claimed_by: step.filter(|step| step.claim.number.is_some()).and_then(|step| step.claim.worker),
        })
    }

    /// Fails if the claim is of an older epoch, and the acknowledged events may be lost.
    async fn check_epoch(&self, claim_id: ClaimId, position: Position) -> Result<(), GroupError> {
        let epoch = self.state().epoch;
        if claim_id.epoch >= epoch {
            return Ok(());
        }
        match self.feed.primary.last_common_position(claim_id.epoch).await? {
            Some(last_common_position) if position > last_common_position => {
                Err(StoreError::EpochChanged { epoch, last_common_position }.into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the number of streams that this acknowledgement has parked before, while the claim stayed open; `None` if it
    /// is new.
    async fn parked_before(&self, step: &Step, acknowledgement: &Acknowledgement) -> Result<Option<i32>, GroupError> {
        if acknowledgement.failed.is_empty() || step.claim.parked_type.is_some() {
            return Ok(None);
        }
        let mut streams = HashSet::new();
        for failure in &acknowledgement.failed {
            let Some(event) = self.parked_event(failure.global_position).await? else { return Ok(None) };
            streams.insert((event.aggregate_type.clone(), event.aggregate_id.clone()));
        }
        Ok(i32::try_from(streams.len()).ok())
    }

    /// Returns the step of an acknowledgement.
    async fn new_acknowledgement(&self, step: &Step, acknowledgement: &Acknowledgement) -> Result<NewStep, GroupError> {
        let (settings, epoch) = {
            let state = self.state();
            (state.group.settings.clone(), state.epoch)
        };
        let to = step.claim.claimed_to.unwrap_or(0);
        let mut position = acknowledgement.last_processed_position;
        if mutants::is(mutants::ACKNOWLEDGED_TO_THE_END) {
            position = to;
        }
        let failed = self.first_failures(step, acknowledgement).await?;
        let mut new = NewStep::plain(step.next(StepKind::Acknowledged), epoch);
        let is_retry = step.claim.parked_type.is_some();
        // The later events of a retry wait behind a failed one.
        let ends = position >= to || acknowledgement.release || is_retry && !failed.is_empty();
        if is_retry {
            self.retry_acknowledged(step, position, failed, &settings.retry_after, ends, &mut new).await?;
        } else {
            new.step.last_processed_position = position;
            if position > step.last_processed_position {
                // The lease of all events up to `careful_to` has expired once.
                new.step.expired_leases = i32::from(position < step.careful_to);
            }
            let parked = i32::try_from(failed.len()).unwrap_or(i32::MAX);
            if parked > 0 && self.state().parked().saturating_add(parked) > PARKED_MAX {
                return Err(GroupError::TooManyParked);
            }
            if !mutants::is(mutants::FAILURE_NOT_PARKED) {
                (new.step.parked, new.step.newly_parked) = (step.parked + parked, parked);
                let change =
                    |(event, failure): (GroupEvent, &Failure)| new_parked(&event, failure, 1, &settings.retry_after);
                new.parked = failed.into_iter().map(change).collect();
            }
        }
        if ends {
            new.step.end_claim();
            new.rest_seconds = Some(acknowledgement.rest_seconds).filter(|seconds| *seconds > 0);
            if mutants::is(mutants::FAILURE_RESTS_PARTITION) && !acknowledgement.failed.is_empty() {
                new.rest_seconds = Some(3_600);
            }
        } else {
            new.lease_seconds = Some(settings.lease_seconds);
        }
        Ok(new)
    }

    /// Completes the step of an acknowledgement of a retry: the parked stream is moved or removed.
    async fn retry_acknowledged(
        &self,
        step: &Step,
        position: Position,
        failed: Vec<(GroupEvent, &Failure)>,
        retry_after: &[i32],
        ends: bool,
        new: &mut NewStep,
    ) -> Result<(), GroupError> {
        let Some((aggregate_type, aggregate_id)) = step.claim.retried_stream() else { return Ok(()) };
        new.step.claim.parked_position = Some(position);
        let parked = self.feed.primary.parked_stream(self.group_no, aggregate_type, aggregate_id).await?;
        let Some(parked) = parked else { return Ok(()) };
        if let Some((event, failure)) = failed.into_iter().next() {
            let attempts = parked.attempts_after_failure(&event);
            new.parked = vec![new_parked(&event, failure, attempts, retry_after)];
            new.step.newly_parked = 1;
            return Ok(());
        }
        let is_done = position >= step.claim.claimed_to.unwrap_or(0) && step.claim.is_complete;
        if is_done || mutants::is(mutants::UNPARKED_TOO_EARLY) && ends {
            new.step.parked -= 1;
            new.unparked = vec![parked.to_unparked()];
        } else if position > step.acknowledged_position() {
            // The next event of the stream is due at once, and has not failed yet.
            let moved = ParkedStream { last_processed_position: position, ..parked };
            let (rest, _) = self.events_of_parked(&moved, step.last_processed_position, 1).await?;
            new.parked = vec![moved.to_waiting(rest.first())];
        }
        Ok(())
    }

    /// Returns the failed events, of each stream the first one, with their failures.
    async fn first_failures<'a>(
        &self,
        step: &Step,
        acknowledgement: &'a Acknowledgement,
    ) -> Result<Vec<(GroupEvent, &'a Failure)>, GroupError> {
        if acknowledgement.failed.is_empty() {
            return Ok(Vec::new());
        }
        let claim = self.claim_of(step.clone()).await?.ok_or(GroupError::ClaimNotFound)?;
        let mut first: HashMap<(&str, &str), (GroupEvent, &Failure)> = HashMap::new();
        for (index, failure) in acknowledgement.failed.iter().enumerate() {
            let in_claim = claim.events.iter().find(|event| event.global_position == failure.global_position);
            let Some(event) = in_claim else {
                // An event behind one that has failed in this claim is parked with its stream.
                if self.parked_event(failure.global_position).await?.is_some() {
                    continue;
                }
                return Err(GroupError::NotInClaim(index));
            };
            let stream = (&*event.aggregate_type, &*event.aggregate_id);
            let is_earlier = first.get(&stream).is_none_or(|(known, _)| known.position() > event.global_position);
            if is_earlier {
                first.insert(stream, (GroupEvent::new(event.clone()), failure));
            }
        }
        let mut failures: Vec<_> = first.into_values().collect();
        failures.sort_unstable_by_key(|(event, _)| event.position());
        Ok(failures)
    }

    /// Returns the event at a position if its stream is parked, and the event is not processed.
    async fn parked_event(&self, position: Position) -> Result<Option<Arc<LiveEvent>>, GroupError> {
        let Some(GroupEvent { event, .. }) = self.event_at(position).await? else { return Ok(None) };
        let (aggregate_type, aggregate_id) = (&event.aggregate_type, &event.aggregate_id);
        let parked = self.feed.primary.parked_stream(self.group_no, aggregate_type, aggregate_id).await?;
        Ok(parked.is_some_and(|parked| parked.last_processed_position < position).then_some(event))
    }

    /// Takes the step that ends a claim and that of the next claim in one transaction, if the next one is in memory.
    /// Returns `None` if the state of the acknowledged partition has changed.
    async fn take_both(
        &self,
        new: &NewStep,
        options: &ClaimOptions,
    ) -> Result<Option<(Step, Option<Box<Claim>>)>, GroupError> {
        self.look_ahead().await?;
        let planned = self.plan_after(new, options);
        let Some((claim, events)) = planned else {
            return Ok(self.take(new).await?.map(|step| (step, None)));
        };
        let results = self.feed.primary.step_two(new, &claim).await;
        let (first, second) = match results {
            Ok((first, second)) => (Ok(first), Ok(second)),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        let step = self.record(new, first).await;
        let claimed = self.record(&claim, second).await;
        let Some(step) = step? else { return Ok(None) };
        let claim = claimed?.and_then(|step| Claim::new(step, None, events));
        if let Some(claim) = &claim {
            self.count_claim(claim);
            self.state().last_was_retry = false;
        }
        Ok(Some((step, claim)))
    }

    /// Plans the claim that follows once a step is taken; `None` if something else must be done first.
    fn plan_after(&self, new: &NewStep, options: &ClaimOptions) -> Option<(NewStep, Vec<GroupEvent>)> {
        let mut state = self.state();
        let view = state.view_mut(new.step.partition)?;
        if view.is_busy || view.step.step + 1 != new.step.step {
            return None;
        }
        // The claim is planned as if the step was taken. No other task sees that, because the lock is held.
        let before = view.clone();
        let mut step = new.step.clone();
        if new.rest_seconds.is_some() {
            step.not_before = Some(DateTime::<Utc>::MAX_UTC);
        }
        view.advance(step, &[], &[]);
        let claim = match state.plan(options.limit) {
            Plan::Claim(step, events) => new_claim(&state, &step, &events, options, 1).map(|claim| (claim, events)),
            Plan::Expire(step) | Plan::Park(step, _) | Plan::ReadBehind(step, _) => {
                state.view_mut(step.partition)?.is_busy = false;
                None
            }
            _ => None,
        };
        let is_busy = claim.as_ref().is_some_and(|(claim, _)| claim.step.partition == new.step.partition);
        let view = state.view_mut(new.step.partition)?;
        *view = before;
        view.is_busy = is_busy;
        claim
    }

    /// Hands out the claim that follows an ended one.
    async fn next_claim(
        self: &Arc<Self>,
        options: &ClaimOptions,
        abandoned: &CancellationToken,
    ) -> Result<NextClaim, GroupError> {
        if let Some(key) = &options.key
            && let KeyUse::Ended(_) = self.find_key(key).await?
        {
            return Ok(NextClaim::None);
        }
        Ok(match self.claim_or_wait(options, abandoned).await? {
            ClaimResult::New(delivery) => NextClaim::New(delivery),
            ClaimResult::Known(claim) => NextClaim::Open(claim),
            ClaimResult::Nothing => NextClaim::None,
        })
    }
}

/// Fails unless a position can be acknowledged.
fn check_position(step: &Step, position: Position) -> Result<(), GroupError> {
    let acknowledged = step.acknowledged_position();
    if position < acknowledged {
        return Err(GroupError::PositionRegressed(acknowledged));
    }
    let to = step.claim.claimed_to.unwrap_or(0);
    if position > to { Err(GroupError::PositionBeyondClaim(to)) } else { Ok(()) }
}

/// Returns a stream to park because of a failed event.
fn new_parked(event: &GroupEvent, failure: &Failure, attempts: i32, retry_after: &[i32]) -> NewParkedStream {
    let retry_seconds = match failure.retry {
        RetryTime::BySettings => retry_seconds(retry_after, attempts),
        RetryTime::After(seconds) => Some(seconds),
        RetryTime::ByOperator => None,
    };
    event.to_parked(attempts, failure.reason.clone(), retry_seconds)
}
