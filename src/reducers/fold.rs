//! A fold: a reducer, a snapshot to begin with, and events in order.

use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::domain::event::StoredEvent;
use crate::domain::name::StreamId;
use crate::domain::reducer::Reducer;
use crate::domain::version::Version;
use crate::reducers::engine::Engine;
use crate::reducers::error::FoldError;
use crate::reducers::javascript::message::Output;
use crate::reducers::javascript::workers::Workers;
use crate::store::fetch_size::FetchSize;
use crate::store::reader::Reader;
use crate::store::streams::events::StreamRead;
use crate::store::streams::load::{LoadRow, SnapshotUse};

/// Which state of an aggregate is requested.
#[derive(Debug, Clone, Copy)]
pub enum AsOf {
    /// The current state.
    Now,
    /// The state at a version.
    Version(Version),
    /// The state after the last event that had occurred at this time.
    Time(DateTime<Utc>),
}

/// A state, and how it was computed.
#[derive(Debug, Clone)]
pub struct Folded {
    pub version: Version,
    /// The time of the event with this version.
    pub occurred_at: DateTime<Utc>,
    /// The state as JSON.
    pub state: String,
    /// The version of the snapshot that the fold began with.
    pub snapshot_version: Option<Version>,
    /// The number of events that were folded.
    pub events: usize,
    /// A snapshot is stored that was not usable.
    pub unusable_snapshot: bool,
}

/// Folds a stream, beginning with the snapshot of this reducer if a usable one is stored.
pub async fn fold(
    reader: &Reader,
    workers: &Arc<Workers>,
    reducer: &Reducer,
    stream: &StreamId,
    as_of: AsOf,
) -> Result<Folded, FoldError> {
    let revision = reducer.revision.to_string();
    fold_from(reader, workers, reducer, stream, as_of, SnapshotUse::Revision(&revision)).await
}

/// Folds a stream from its first event, without a snapshot.
pub async fn replay(
    reader: &Reader,
    workers: &Arc<Workers>,
    reducer: &Reducer,
    stream: &StreamId,
    as_of: AsOf,
) -> Result<Folded, FoldError> {
    fold_from(reader, workers, reducer, stream, as_of, SnapshotUse::None).await
}

async fn fold_from(
    reader: &Reader,
    workers: &Arc<Workers>,
    reducer: &Reducer,
    stream: &StreamId,
    as_of: AsOf,
    snapshot_use: SnapshotUse<'_>,
) -> Result<Folded, FoldError> {
    // The head is read first, so that no worker is acquired for a stream that does not exist.
    let not_found = || FoldError::StreamNotFound(stream.clone());
    let head = reader.stream_head(stream).await?.ok_or_else(not_found)?;
    let to = match as_of {
        AsOf::Now => Some(Version::MAX),
        AsOf::Version(version) => Some(version).filter(|version| *version <= head.version),
        AsOf::Time(time) => reader.version_at(stream, &head, time).await?,
    };
    let to = to.ok_or_else(|| FoldError::NoSuchVersion(stream.clone(), head.version))?;
    let engine = Engine::prepare(workers, &reducer.aggregate_type, &reducer.source, Output::LastState).await?;
    let mut folding = Folding { engine, events: 0, occurred_at: None, failed: None };
    let loaded = reader.load_aggregate(stream, snapshot_use, to, |row| match row {
        LoadRow::Head(head) => folding.begin(head.snapshot.as_ref().map(|snapshot| snapshot.state.as_str())),
        LoadRow::Event(event) => folding.push(event),
    });
    let (head, mut left) = loaded.await?.ok_or_else(not_found)?;
    let version = to.min(head.stream.version);
    let mut fetch_size = FetchSize::default();
    folding.catch_up().await?;
    while !left.is_empty() {
        let read = StreamRead { stream, head: &head.stream, range: left, limit: usize::MAX };
        left = reader.read_stream(read, &mut fetch_size, |event| folding.push(event)).await?;
        folding.catch_up().await?;
    }
    let occurred_at = match folding.occurred_at {
        Some(occurred_at) => occurred_at,
        None => reader.event_time(stream, &head.stream, version).await?,
    };
    Ok(Folded {
        version,
        occurred_at,
        state: folding.engine.finish().await?,
        snapshot_version: head.snapshot.map(|snapshot| snapshot.version),
        events: folding.events,
        unusable_snapshot: head.unusable_snapshot,
    })
}

/// A fold that receives the rows of a load.
struct Folding {
    engine: Engine,
    events: usize,
    occurred_at: Option<DateTime<Utc>>,
    failed: Option<FoldError>,
}

impl Folding {
    fn begin(&mut self, state: Option<&str>) -> ControlFlow<()> {
        let begun = self.engine.begin(state);
        self.stop_if_full(begun.map(|()| false))
    }

    fn push(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        let pushed = self.engine.push(event);
        self.events += 1;
        self.occurred_at = Some(event.occurred_at);
        self.stop_if_full(pushed)
    }

    /// Stops the read when the engine must be flushed, or has failed.
    fn stop_if_full(&mut self, pushed: Result<bool, FoldError>) -> ControlFlow<()> {
        match pushed {
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => ControlFlow::Break(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Flushes the engine, or returns the error with which it failed.
    async fn catch_up(&mut self) -> Result<(), FoldError> {
        match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.engine.flush().await,
        }
    }
}
