//! The state after each event of a range of versions.
//!
//! A fold may only begin with a state that was printed at a multiple of the snapshot interval, because the engine
//! itself begins again there. So the states of a range are folded from the last multiple before it, and those before
//! the range are not returned. Each state is the one that a fold up to its version returns.

use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::event::StoredEvent;
use crate::domain::name::StreamId;
use crate::domain::reducer::Reducer;
use crate::domain::version::Version;
use crate::reducers::engine::Engine;
use crate::reducers::error::FoldError;
use crate::reducers::fold::{AsOf, fold};
use crate::reducers::javascript::message::Output;
use crate::reducers::javascript::workers::Workers;
use crate::reducers::limits::{STATES_BYTES_MAX, STATES_MAX};
use crate::store::fetch_size::FetchSize;
use crate::store::reader::Reader;
use crate::store::streams::events::StreamRead;
use crate::store::streams::range::VersionRange;

/// An event, and the state after it.
#[derive(Debug, Clone)]
pub struct StateAfter {
    pub version: Version,
    pub event_id: Uuid,
    pub event_type: String,
    pub occurred_at: DateTime<Utc>,
    /// The state as JSON.
    pub state: String,
}

/// A page of states.
#[derive(Debug, Clone)]
pub struct FoldedStates {
    pub states: Vec<StateAfter>,
    /// The next version of the range; `None` at its end.
    pub next: Option<Version>,
}

/// Returns the states from version `from` up to version `to`, or up to the head if that is lower: at most
/// [`STATES_MAX`], and up to [`STATES_BYTES_MAX`]. Fails if the stream does not have version `from`.
pub async fn fold_states(
    reader: &Reader,
    workers: &Arc<Workers>,
    reducer: &Reducer,
    stream: &StreamId,
    from: Version,
    to: Version,
) -> Result<FoldedStates, FoldError> {
    let head = reader.stream_head(stream).await?.ok_or_else(|| FoldError::StreamNotFound(stream.clone()))?;
    if from > head.version {
        return Err(FoldError::NoSuchVersion(stream.clone(), head.version));
    }
    let to = to.min(head.version);
    let base = reducer.snapshot_version(from - 1);
    let state = match base {
        0 => None,
        base => Some(fold(reader, workers, reducer, stream, AsOf::Version(base)).await?.state),
    };
    let engine = Engine::prepare(workers, &reducer.aggregate_type, &reducer.source, Output::StatesFrom(from)).await?;
    let mut folding = StatesFolding { engine, from, events: Vec::new(), failed: None };
    folding.engine.begin(state.as_deref())?;
    let mut left = VersionRange::forward(base + 1, to);
    let mut fetch_size = FetchSize::default();
    while !left.is_empty() && !folding.is_full() {
        // The limit counts the events before the range, too, which are read in addition.
        let before = usize::try_from(from - left.from).unwrap_or(0);
        let limit = before + STATES_MAX - folding.events.len();
        let read = StreamRead { stream, head: &head, range: left, limit };
        left = reader.read_stream(read, &mut fetch_size, |event| folding.push(event)).await?;
        folding.catch_up().await?;
    }
    let StatesFolding { engine, events, .. } = folding;
    let states = engine.finish_with_every_state().await?;
    let with_state = |(event, state): (EventBefore, String)| StateAfter {
        version: event.version,
        event_id: event.event_id,
        event_type: event.event_type,
        occurred_at: event.occurred_at,
        state,
    };
    let states: Vec<_> = events.into_iter().zip(states).map(with_state).collect();
    let next = states.last().map_or(from, |last| last.version + 1);
    Ok(FoldedStates { states, next: (next <= to).then_some(next) })
}

/// An event whose state is requested.
struct EventBefore {
    version: Version,
    event_id: Uuid,
    event_type: String,
    occurred_at: DateTime<Utc>,
}

/// A fold that receives the events of a stream.
struct StatesFolding {
    engine: Engine,
    /// The first version whose state is requested.
    from: Version,
    /// The events whose states are requested.
    events: Vec<EventBefore>,
    failed: Option<FoldError>,
}

impl StatesFolding {
    /// Returns whether no more states may be requested.
    fn is_full(&self) -> bool {
        self.events.len() >= STATES_MAX || self.engine.held_bytes() >= STATES_BYTES_MAX
    }

    fn push(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        let should_flush = match self.engine.push(event) {
            Ok(should_flush) => should_flush,
            Err(error) => {
                self.failed = Some(error);
                return ControlFlow::Break(());
            }
        };
        let is_requested = event.version >= self.from;
        if is_requested {
            self.events.push(EventBefore {
                version: event.version,
                event_id: event.event_id,
                event_type: event.event_type.to_owned(),
                occurred_at: event.occurred_at,
            });
        }
        // Events whose states are requested are sent at the end, while the states are received.
        let stops = if is_requested { self.is_full() } else { should_flush };
        if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Sends the events before the range, or returns the error with which the engine failed.
    async fn catch_up(&mut self) -> Result<(), FoldError> {
        match self.failed.take() {
            Some(failed) => Err(failed),
            None if self.events.is_empty() => self.engine.flush().await,
            None => Ok(()),
        }
    }
}
