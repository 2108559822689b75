//! Trying a reducer out: the state after each event, and nothing stored.

use std::sync::Arc;

use super::fold::{FoldError, not_json};
use super::javascript::{JavaScriptFold, Workers};
use super::merge_patch::MergePatchFold;
use crate::domain::reducer::{Language, ReducerSource};
use crate::store::StoredEvent;

/// Events that a reducer is tried out on, and bytes of what is handed to it or comes of it.
const EVENTS_MAX: usize = 1_000;
pub(super) const BYTES_MAX: usize = 8 * 1024 * 1024;

pub struct Trial {
    engine: Engine,
    events: usize,
}

enum Engine {
    MergePatch { fold: MergePatchFold, states: Vec<String>, bytes: usize },
    JavaScript(Box<JavaScriptFold>),
}

impl Trial {
    pub async fn begin(
        workers: &Arc<Workers>,
        aggregate_type: &str,
        source: &ReducerSource,
    ) -> Result<Self, FoldError> {
        let engine = match source.language {
            Language::MergePatch => {
                let fold = MergePatchFold::begin(None).map_err(not_json)?;
                Engine::MergePatch { fold, states: Vec::new(), bytes: 0 }
            }
            Language::JavaScript => {
                let mut fold = workers.begin(aggregate_type, source, true).await?;
                fold.start(None).map_err(not_json)?;
                Engine::JavaScript(Box::new(fold))
            }
        };
        Ok(Self { engine, events: 0 })
    }

    /// Events that may still be taken; the rest is not tried.
    pub fn room(&self) -> usize {
        let full = match &self.engine {
            Engine::MergePatch { bytes, .. } => *bytes >= BYTES_MAX,
            Engine::JavaScript(fold) => fold.pending() >= BYTES_MAX,
        };
        if full { 0 } else { EVENTS_MAX - self.events }
    }

    pub fn take(&mut self, event: &StoredEvent<'_>) -> Result<(), FoldError> {
        self.events += 1;
        match &mut self.engine {
            Engine::MergePatch { fold, states, bytes } => {
                fold.apply(event)?;
                let state = fold.state();
                *bytes += state.len();
                states.push(state);
            }
            Engine::JavaScript(fold) => fold.take(event),
        }
        Ok(())
    }

    /// The state after each event that was taken, as JSON.
    pub async fn finish(self) -> Result<Vec<String>, FoldError> {
        match self.engine {
            Engine::MergePatch { states, .. } => Ok(states),
            Engine::JavaScript(fold) => fold.finish_each().await,
        }
    }
}
