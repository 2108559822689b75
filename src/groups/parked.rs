//! Parked streams: what is tried again, and what operators do with them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::event::{Position, StoredEvent};
use crate::domain::name::StreamId;
use crate::domain::partition::bucket;
use crate::groups::error::GroupError;
use crate::groups::group::ActiveGroup;
use crate::groups::state::CLAIM_BYTES_MAX;
use crate::groups::window::{GroupEvent, partition_of};
use crate::store::error::StoreError;
use crate::store::fetch_size::FetchSize;
use crate::store::groups::parked::{NewParkedStream, ParkedQuery, ParkedStream, RetryQuery};
use crate::store::groups::steps::{NewStep, StepKind};
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;
use crate::subscriptions::ring::LiveEvent;

/// Why a stream is parked whose failed event is processed or skipped.
const WAITS: &str = "an earlier event of the stream failed";

/// Returns the seconds until an event is tried again that has failed a number of times; `None` if an operator decides.
pub(super) fn retry_seconds(retry_after: &[i32], attempts: i32) -> Option<i32> {
    retry_after.get(usize::try_from(attempts - 1).ok()?).copied()
}

/// Returns the name of a parked stream.
pub fn stream_id(parked: &ParkedStream) -> Result<StreamId, StoreError> {
    StreamId::parse(parked.aggregate_type.clone(), parked.aggregate_id.clone())
        .map_err(|fault| StoreError::unreadable(format!("the name of a parked stream {}", fault.fault)))
}

impl ParkedStream {
    /// Returns the number of times that an event of the stream has failed, if it fails once more.
    pub(super) fn attempts_after_failure(&self, event: &GroupEvent) -> i32 {
        if event.position() == self.event.global_position { self.attempts + 1 } else { 1 }
    }

    /// Returns the change of a stream whose failed event is processed or skipped: its next event is due at once, and has not
    /// failed yet.
    pub(super) fn to_waiting(&self, next: Option<&GroupEvent>) -> NewParkedStream {
        let event = next.map_or_else(|| self.event.clone(), GroupEvent::to_failed);
        NewParkedStream { event, attempts: 0, reason: WAITS.to_owned(), retry_seconds: Some(0), ..self.to_new() }
    }
}

impl ActiveGroup {
    /// Returns the unprocessed events of a parked stream up to a position, at most `limit`, and whether these are all.
    pub(super) async fn events_of_parked(
        &self,
        parked: &ParkedStream,
        to: Position,
        limit: usize,
    ) -> Result<(Vec<GroupEvent>, bool), GroupError> {
        let (stream, primary) = (stream_id(parked)?, &self.feed.primary);
        let Some(head) = primary.stream_head(&stream).await? else { return Ok((Vec::new(), true)) };
        let read = StreamRead {
            stream: &stream,
            head: &head,
            range: VersionRange::forward(parked.event.version, head.version),
            limit: usize::MAX,
        };
        let (mut events, mut bytes, mut is_complete) = (Vec::new(), 0, true);
        let deliver = |event: &StoredEvent<'_>| {
            if event.global_position > to {
                return ControlFlow::Break(());
            }
            if event.global_position <= parked.last_processed_position {
                return ControlFlow::Continue(());
            }
            let event = LiveEvent::new(event);
            if !self.has(&event) {
                return ControlFlow::Continue(());
            }
            bytes += event.json.len();
            if events.len() == limit || !events.is_empty() && bytes > CLAIM_BYTES_MAX {
                is_complete = false;
                return ControlFlow::Break(());
            }
            events.push(GroupEvent::new(Arc::new(event)));
            ControlFlow::Continue(())
        };
        primary.read_stream(read, &mut FetchSize::default(), deliver).await?;
        Ok((events, is_complete))
    }

    /// Returns parked streams, in byte order of type and id.
    pub async fn parked_streams(&self, query: ParkedQuery<'_>) -> Result<Vec<ParkedStream>, GroupError> {
        Ok(self.feed.primary.parked_streams(self.group_no, query).await?)
    }

    /// Returns a parked stream.
    pub async fn parked_stream(&self, stream: &StreamId) -> Result<ParkedStream, GroupError> {
        let parked =
            self.feed.primary.parked_stream(self.group_no, stream.aggregate_type(), stream.aggregate_id()).await?;
        parked.ok_or(GroupError::ParkedStreamNotFound)
    }

    /// Returns the event that failed, in JSON; `None` if it is not in the log.
    pub async fn failed_event(&self, parked: &ParkedStream) -> Result<Option<Arc<LiveEvent>>, GroupError> {
        Ok(self.event_at(parked.event.global_position).await?.map(|event| event.event))
    }

    /// Moves a parked stream to a position, and makes it due: the events up to there are skipped. Returns `None` if it is
    /// no longer parked then.
    pub async fn move_parked_stream(
        &self,
        stream: &StreamId,
        position: Position,
        expected: Option<Position>,
    ) -> Result<Option<ParkedStream>, GroupError> {
        loop {
            self.refresh(Duration::ZERO).await?;
            let bucket = bucket(stream.aggregate_type(), stream.aggregate_id());
            let (step, epoch) = {
                let state = self.state();
                let view = state.view(partition_of(bucket, state.group.settings.partitions));
                (view.map(|view| view.step.clone()), state.epoch)
            };
            let step = step.ok_or(GroupError::GroupNotFound)?;
            // It is read after the step, and changes only with one: so the new step is based on both, or fails.
            let parked = self.parked_stream(stream).await?;
            let current = parked.last_processed_position;
            if expected.is_some_and(|expected| expected != current) {
                return Err(GroupError::PositionConflict(current));
            }
            if position < current {
                return Err(GroupError::PositionRegressed(current));
            }
            if position > step.last_processed_position.max(current) {
                return Err(GroupError::PositionBeyondClaim(step.last_processed_position.max(current)));
            }
            let is_under_way = step.claim.retried_stream() == Some((stream.aggregate_type(), stream.aggregate_id()));
            if is_under_way && position == current {
                return Ok(Some(parked));
            }
            let moved = ParkedStream { last_processed_position: position, ..parked };
            let (rest, _) = self.events_of_parked(&moved, step.last_processed_position, 1).await?;
            let mut new = NewStep::plain(step.next(StepKind::Changed), epoch);
            if is_under_way {
                // The worker of the retry has events that are skipped.
                new.step.end_claim();
            }
            let mut change = moved.to_new();
            change.retry_seconds = Some(0);
            match rest.first() {
                // The events of an open claim are those of streams that were not parked when it was handed out. If the
                // stream were removed now, the acknowledgement of the claim would pass its events.
                None if new.step.claim.number.is_none() => {
                    new.step.parked -= 1;
                    new.unparked = vec![moved.to_unparked()];
                }
                None => new.parked = vec![change],
                Some(first) if first.event.global_position != moved.event.global_position => {
                    new.parked = vec![moved.to_waiting(Some(first))];
                }
                Some(_) => new.parked = vec![change],
            }
            if self.take(&new).await?.is_some() {
                self.retry_soon();
                return match self.parked_stream(stream).await {
                    Err(GroupError::ParkedStreamNotFound) => Ok(None),
                    parked => parked.map(Some),
                };
            }
        }
    }

    /// Makes parked streams due. Returns their number.
    pub async fn retry_parked_streams(&self, query: RetryQuery<'_>) -> Result<u64, GroupError> {
        let retried = self.feed.primary.retry_parked_streams(self.group_no, query).await?;
        self.retry_soon();
        Ok(retried)
    }

    /// Records that parked streams may be due, and wakes waiting workers.
    pub(super) fn retry_soon(&self) {
        {
            let mut state = self.state();
            state.next_retry_at = Some(state.now());
        }
        self.notify_change();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_tried_again_after_each_pause_and_then_an_operator_decides() {
        assert_eq!(
            (1..=3).map(|attempts| retry_seconds(&[1, 5], attempts)).collect::<Vec<_>>(),
            [Some(1), Some(5), None]
        );
        assert_eq!(retry_seconds(&[], 1), None);
        assert_eq!(retry_seconds(&[7], 0), None);
    }
}
