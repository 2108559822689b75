//! Upkeep of a group: its stored position follows, partitions without waiting events move forward, old steps are deleted.

use std::time::Duration;

use chrono::TimeDelta;

use crate::domain::event::Position;
use crate::groups::error::GroupError;
use crate::groups::group::ActiveGroup;
use crate::groups::state::{GroupState, PartitionView};
use crate::store::groups::steps::{NewStep, Step, StepKind};

/// The position of a partition without waiting events is stored when it is behind by this number of positions, or for this
/// time.
const ADVANCE_POSITIONS: Position = 10_000;
const ADVANCE_AGE: TimeDelta = TimeDelta::seconds(60);
/// The number of old steps of a partition that one pass deletes.
const DELETED_STEPS_MAX: i64 = 20_000;
/// States that are older are read again.
const STATES_AGE_MAX: Duration = Duration::from_millis(500);

impl ActiveGroup {
    /// Stores the position of the group, and those of partitions without waiting events.
    pub async fn maintain(&self) -> Result<(), GroupError> {
        self.follow(STATES_AGE_MAX).await?;
        let is_old = |state: &GroupState, view: &PartitionView| {
            let positions = state.reached_by(view) - view.step.last_processed_position;
            positions >= ADVANCE_POSITIONS || state.now() - view.step.stepped_at > ADVANCE_AGE
        };
        self.advance(is_old).await
    }

    /// Moves partitions forward that are free and have no waiting event up to a later position, if `is_due`.
    pub(super) async fn advance(&self, is_due: impl Fn(&GroupState, &PartitionView) -> bool) -> Result<(), GroupError> {
        let steps: Vec<NewStep> = {
            let state = self.state();
            let advance = |view: &PartitionView| {
                let reached = state.reached_by(view);
                let is_free = view.step.claim.number.is_none() && !view.is_busy && view.parked.is_some();
                if !is_free || reached <= view.step.last_processed_position || !is_due(&state, view) {
                    return None;
                }
                let next = view.step.next(StepKind::Advanced);
                Some(NewStep::plain(Step { last_processed_position: reached, ..next }, state.epoch))
            };
            state.views.iter().filter_map(advance).collect()
        };
        for new in &steps {
            self.take(new).await?;
        }
        Ok(())
    }

    /// Deletes old steps.
    pub async fn delete_old_steps(&self) -> Result<(), GroupError> {
        let partitions: Vec<_> = self.state().views.iter().map(|view| (view.step.partition, view.deleted_to)).collect();
        for (partition, after) in partitions {
            let deleted =
                self.feed.primary.delete_old_steps(self.group_no, partition, after, DELETED_STEPS_MAX).await?;
            if let (Some(last), Some(view)) = (deleted, self.state().view_mut(partition)) {
                view.deleted_to = last;
            }
        }
        Ok(())
    }
}
