//! A trial of a reducer, which returns the state after each event and stores nothing.

use std::sync::Arc;

use crate::domain::event::StoredEvent;
use crate::domain::reducer::ReducerSource;
use crate::reducers::engine::Engine;
use crate::reducers::error::FoldError;
use crate::reducers::javascript::message::Output;
use crate::reducers::javascript::workers::Workers;
use crate::reducers::limits::{STATES_BYTES_MAX, STATES_MAX};

/// A trial of a reducer.
pub struct Trial {
    engine: Engine,
    events: usize,
}

impl Trial {
    /// Prepares the reducer. Fails if its source cannot be used.
    pub async fn start(
        workers: &Arc<Workers>,
        aggregate_type: &str,
        source: &ReducerSource,
    ) -> Result<Self, FoldError> {
        let mut engine = Engine::prepare(workers, aggregate_type, source, Output::StatesFrom(1)).await?;
        engine.begin(None)?;
        Ok(Self { engine, events: 0 })
    }

    /// Returns the number of events that may still be added. Further events are not tried.
    pub fn room(&self) -> usize {
        if self.engine.held_bytes() >= STATES_BYTES_MAX { 0 } else { STATES_MAX - self.events }
    }

    /// Adds the next event.
    pub fn push(&mut self, event: &StoredEvent<'_>) -> Result<(), FoldError> {
        self.events += 1;
        // All events are sent together at the end, because their number and bytes are limited.
        self.engine.push(event).map(|_should_flush| ())
    }

    /// Returns the state after each event, as JSON.
    pub async fn finish(self) -> Result<Vec<String>, FoldError> {
        self.engine.finish_with_every_state().await
    }
}
