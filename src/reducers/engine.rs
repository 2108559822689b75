//! The two engines behind one fold: merge-patch, in place; JavaScript, in a worker.

use std::sync::Arc;

use super::fold::{FoldError, not_json};
use super::javascript::{JavaScriptFold, Workers};
use super::merge_patch::MergePatchFold;
use crate::domain::reducer::{Language, Reducer};
use crate::store::StoredEvent;

/// A worker is handed events in pieces of about this size.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) enum Engine {
    MergePatch(MergePatchFold),
    JavaScript(Box<JavaScriptFold>),
}

impl Engine {
    pub(super) async fn begin(workers: &Arc<Workers>, reducer: &Reducer) -> Result<Self, FoldError> {
        let Reducer { aggregate_type, source, .. } = reducer;
        Ok(match source.language {
            Language::MergePatch => Self::MergePatch(MergePatchFold::begin(None).map_err(not_json)?),
            Language::JavaScript => Self::JavaScript(Box::new(workers.begin(aggregate_type, source, false).await?)),
        })
    }

    /// Begins with a snapshot's state, or before the first event.
    pub(super) fn start(&mut self, state: Option<&str>) -> Result<(), FoldError> {
        match self {
            Self::MergePatch(fold) => *fold = MergePatchFold::begin(state).map_err(not_json)?,
            Self::JavaScript(fold) => fold.start(state).map_err(not_json)?,
        }
        Ok(())
    }

    /// Takes the next event; whether it is time for [`Engine::flush`].
    pub(super) fn take(&mut self, event: &StoredEvent<'_>) -> Result<bool, FoldError> {
        match self {
            Self::MergePatch(fold) => fold.apply(event).map(|()| false).map_err(FoldError::from),
            Self::JavaScript(fold) => {
                fold.take(event);
                Ok(fold.pending() >= PIECE_BYTES)
            }
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), FoldError> {
        match self {
            Self::MergePatch(_) => Ok(()),
            Self::JavaScript(fold) => fold.flush().await,
        }
    }

    /// The state after the last event, as JSON.
    pub(super) async fn finish(self) -> Result<String, FoldError> {
        match self {
            Self::MergePatch(fold) => Ok(fold.state()),
            Self::JavaScript(fold) => fold.finish().await,
        }
    }
}
