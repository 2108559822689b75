//! One fold: a reducer, a snapshot to begin with, and events in order.

use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::engine::Engine;
use super::javascript::Workers;
use super::javascript::message::Invalid;
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::reducer::Reducer;
use crate::domain::version::Version;
use crate::store::error::StoreError;
use crate::store::read::Pace;
use crate::store::snapshots::{LoadRow, SnapshotUse};
use crate::store::{Store, StoredEvent};

/// A state larger than this, in bytes, is a failure of its reducer.
pub const STATE_BYTES_MAX: usize = 1024 * 1024;

/// Which state is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Now,
    Version(Version),
    /// The last event that had occurred then.
    Time(DateTime<Utc>),
}

/// A state, and how it came about.
#[derive(Debug, Clone)]
pub struct Folded {
    pub version: Version,
    /// When the event of this version occurred.
    pub occurred_at: DateTime<Utc>,
    /// JSON.
    pub state: String,
    /// The snapshot that the fold began with.
    pub snapshot_version: Option<Version>,
    pub events: usize,
    /// A snapshot is stored that did not fit.
    pub misfit: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error("the stream {0} does not exist")]
    StreamNotFound(StreamId),
    /// The stream is at this version, and did not have the one that is asked for, or none at that time.
    #[error("the stream {0}, at version {1}, had no such version")]
    NoSuchVersion(StreamId, Version),
    #[error("{0}")]
    Failed(#[from] Failed),
    /// The source cannot be used.
    #[error("{}", .0.message)]
    Invalid(Invalid),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A state or an answer that must be JSON, and is not.
pub(super) fn not_json(error: serde_json::Error) -> FoldError {
    FoldError::Store(StoreError::unreadable(error))
}

/// The reducer failed for an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version}: {reason}")]
pub struct Failed {
    pub version: Version,
    pub global_position: Position,
    pub reason: String,
}

/// Folds a stream up to a version, from the snapshot of this reducer if one fits.
pub async fn fold(
    store: &Store,
    workers: &Arc<Workers>,
    reducer: &Reducer,
    stream: &StreamId,
    until: Until,
) -> Result<Folded, FoldError> {
    let revision = reducer.revision.to_string();
    fold_from(store, workers, reducer, stream, until, SnapshotUse::Revision(&revision)).await
}

/// The same from the first event, whatever snapshot there is.
pub async fn replay(
    store: &Store,
    workers: &Arc<Workers>,
    reducer: &Reducer,
    stream: &StreamId,
    until: Until,
) -> Result<Folded, FoldError> {
    fold_from(store, workers, reducer, stream, until, SnapshotUse::None).await
}

async fn fold_from(
    store: &Store,
    workers: &Arc<Workers>,
    reducer: &Reducer,
    stream: &StreamId,
    until: Until,
    begin: SnapshotUse<'_>,
) -> Result<Folded, FoldError> {
    // First, so that no worker is asked for what is not there.
    let not_found = || FoldError::StreamNotFound(stream.clone());
    let stands = store.stream_head(stream).await?.ok_or_else(not_found)?;
    let to = match until {
        Until::Now => Some(Version::MAX),
        Until::Version(version) => Some(version).filter(|version| *version <= stands.version),
        Until::Time(time) => store.version_at(stream, &stands, time).await?,
    };
    let to = to.ok_or_else(|| FoldError::NoSuchVersion(stream.clone(), stands.version))?;
    let engine = Engine::begin(workers, reducer).await?;
    let mut folding = Folding { engine, events: 0, occurred_at: None, failed: None };
    let loaded = store.load_aggregate(stream, begin, to, |row| match row {
        LoadRow::Head(head) => folding.start(head.snapshot.as_ref().map(|snapshot| snapshot.state.as_str())),
        LoadRow::Event(event) => folding.take(event),
    });
    let (head, mut left) = loaded.await?.ok_or_else(not_found)?;
    let version = to.min(head.stream.version);
    let mut pace = Pace::default();
    folding.catch_up().await?;
    while !left.is_empty() {
        left =
            store.read_stream(stream, &head.stream, left, usize::MAX, &mut pace, |event| folding.take(event)).await?;
        folding.catch_up().await?;
    }
    let occurred_at = match folding.occurred_at {
        Some(occurred_at) => occurred_at,
        None => store.event_time(stream, &head.stream, version).await?,
    };
    Ok(Folded {
        version,
        occurred_at,
        state: folding.engine.finish().await?,
        snapshot_version: head.snapshot.map(|snapshot| snapshot.version),
        events: folding.events,
        misfit: head.misfit,
    })
}

/// A fold that takes what a load hands over.
struct Folding {
    engine: Engine,
    events: usize,
    occurred_at: Option<DateTime<Utc>>,
    failed: Option<FoldError>,
}

impl Folding {
    fn start(&mut self, state: Option<&str>) -> ControlFlow<()> {
        let started = self.engine.start(state);
        self.go_on(started.map(|()| false))
    }

    fn take(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        let taken = self.engine.take(event);
        self.events += 1;
        self.occurred_at = Some(event.occurred_at);
        self.go_on(taken)
    }

    fn go_on(&mut self, taken: Result<bool, FoldError>) -> ControlFlow<()> {
        match taken {
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => ControlFlow::Break(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Has the engine work through what was taken.
    async fn catch_up(&mut self) -> Result<(), FoldError> {
        match self.failed.take() {
            Some(failed) => Err(failed),
            None => self.engine.flush().await,
        }
    }
}
