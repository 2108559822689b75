//! The position of a group: every event up to it was processed, or belongs to a parked stream.
//!
//! The partitions have positions of their own, and a partition without waiting events does not move by itself. So the
//! position of the group is computed from the states and the window. The stored position of its projection follows.

use std::time::{Duration, Instant};

use crate::domain::event::Position;
use crate::groups::error::GroupError;
use crate::groups::group::{ActiveGroup, Extension, Source};
use crate::store::error::StoreError;

/// The time for which the position of a group is searched for in the log.
const SEARCH_MAX: Duration = Duration::from_millis(250);

impl ActiveGroup {
    /// Computes the position from states that are at most this old, and stores it.
    pub async fn follow(&self, age: Duration) -> Result<Position, GroupError> {
        self.refresh(age).await?;
        let deadline = Instant::now() + SEARCH_MAX;
        loop {
            let unknown: Vec<_> = {
                let state = self.state();
                let views = state.views.iter().filter(|view| view.parked.is_none());
                views.map(|view| view.step.partition).collect()
            };
            if !unknown.is_empty() {
                self.read_parked(&unknown).await?;
            }
            let is_settled = {
                let mut state = self.state();
                let least = state.position();
                // The window is elsewhere: it begins again where the group continues.
                let is_behind = least < state.window.from();
                if is_behind && !state.is_in_use() {
                    state.restart_window(least);
                }
                is_behind && state.is_in_use() || state.is_position_settled()
            };
            if is_settled || self.extend(Source::Log).await? == Extension::AtHead || Instant::now() >= deadline {
                break;
            }
        }
        // A partition passes the events of its parked streams by a step.
        let advanced =
            self.advance(|state, view| view.step.parked > 0 && state.reached_by(view) > state.position_of(view)).await;
        unless_moving(advanced)?;
        let (position, revision) = {
            let state = self.state();
            (state.position(), state.group.revision)
        };
        let moved = self.feed.primary.move_group(self.group_no, revision, position).await;
        if unless_moving(moved.map_err(GroupError::from))?.unwrap_or(false) {
            self.report(position);
        }
        Ok(position)
    }
}

/// Returns the result of a write that only records what is known; `None` if the log is moving and refuses it: the position
/// of the group is known without it.
fn unless_moving<T>(written: Result<T, GroupError>) -> Result<Option<T>, GroupError> {
    match written {
        Err(GroupError::Store(StoreError::LogMoving)) => Ok(None),
        written => written.map(Some),
    }
}
