//! The engine of a fold: merge-patch in this process, or JavaScript in a worker process.

use std::sync::Arc;

use crate::domain::event::StoredEvent;
use crate::domain::reducer::{Language, ReducerSource};
use crate::mutants;
use crate::reducers::error::{FoldError, not_json};
use crate::reducers::javascript::fold::JavaScriptFold;
use crate::reducers::javascript::message::Output;
use crate::reducers::javascript::workers::Workers;
use crate::reducers::merge_patch::MergePatchFold;

/// A worker receives events in chunks of about this size.
const CHUNK_BYTES: usize = 256 * 1024;

/// The engine of one fold.
pub(super) enum Engine {
    MergePatch {
        fold: MergePatchFold,
        output: Output,
        /// The states to return, for [`Output::StatesFrom`].
        states: Vec<String>,
        bytes: usize,
    },
    JavaScript(Box<JavaScriptFold>),
}

impl Engine {
    /// Prepares a fold. [`Engine::begin`] must be called before the first event.
    pub(super) async fn prepare(
        workers: &Arc<Workers>,
        aggregate_type: &str,
        source: &ReducerSource,
        output: Output,
    ) -> Result<Self, FoldError> {
        Ok(match source.language {
            Language::MergePatch => {
                let fold = MergePatchFold::from_state(None).map_err(not_json)?;
                Self::MergePatch { fold, output, states: Vec::new(), bytes: 0 }
            }
            Language::JavaScript => {
                let fold = JavaScriptFold::prepare(workers, aggregate_type, source, output).await?;
                Self::JavaScript(Box::new(fold))
            }
        })
    }

    /// Begins with the state of a snapshot, or before the first event.
    pub(super) fn begin(&mut self, state: Option<&str>) -> Result<(), FoldError> {
        match self {
            Self::MergePatch { fold, .. } => *fold = MergePatchFold::from_state(state).map_err(not_json)?,
            Self::JavaScript(fold) => fold.begin(state).map_err(not_json)?,
        }
        Ok(())
    }

    /// Adds the next event. Returns whether [`Engine::flush`] should be called.
    pub(super) fn push(&mut self, event: &StoredEvent<'_>) -> Result<bool, FoldError> {
        match self {
            Self::MergePatch { fold, output, states, bytes } => {
                if event.is_folded() || mutants::is(mutants::ERASED_EVENTS_FOLDED) {
                    fold.apply(event)?;
                }
                if output.has_state_after(event.version) {
                    let state = fold.state();
                    *bytes += state.len();
                    states.push(state);
                }
                Ok(false)
            }
            Self::JavaScript(fold) => {
                fold.push(event);
                Ok(fold.pending_bytes() >= CHUNK_BYTES)
            }
        }
    }

    /// Returns the number of bytes that the engine holds in memory: states to return, or events to send.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::MergePatch { bytes, .. } => *bytes,
            Self::JavaScript(fold) => fold.pending_bytes(),
        }
    }

    /// Sends the events to a worker.
    pub(super) async fn flush(&mut self) -> Result<(), FoldError> {
        match self {
            Self::MergePatch { .. } => Ok(()),
            Self::JavaScript(fold) => fold.flush().await,
        }
    }

    /// Returns the state after the last event, as JSON.
    pub(super) async fn finish(self) -> Result<String, FoldError> {
        match self {
            Self::MergePatch { fold, .. } => Ok(fold.state()),
            Self::JavaScript(fold) => fold.finish().await,
        }
    }

    /// Returns the requested states, as JSON, for [`Output::StatesFrom`].
    pub(super) async fn finish_with_every_state(self) -> Result<Vec<String>, FoldError> {
        match self {
            Self::MergePatch { states, .. } => Ok(states),
            Self::JavaScript(fold) => fold.finish_with_every_state().await,
        }
    }
}
