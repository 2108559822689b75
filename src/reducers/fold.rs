//! One fold: a reducer, a snapshot to begin with, and events in order.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use super::merge_patch::Document;
use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::reducer::{Language, Reducer};
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
    #[error("the stream does not exist")]
    StreamNotFound,
    /// The stream is at this version.
    #[error("the stream had no such version")]
    NoSuchVersion(Version),
    #[error("{0}")]
    Failed(#[from] Failed),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reducer failed for an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version}: {reason}")]
pub struct Failed {
    pub version: Version,
    pub global_position: Position,
    pub reason: String,
}

/// A state on its way from version to version.
pub struct Fold {
    state: Document,
    /// The state prints in this many bytes at most.
    bytes_at_most: usize,
}

impl Fold {
    /// Before the first event.
    pub fn begin(language: Language) -> Self {
        match language {
            Language::MergePatch => Self { state: Document::empty(), bytes_at_most: 2 },
        }
    }

    /// From a state that a snapshot holds.
    fn resume(state: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { state: Document::parse(state)?, bytes_at_most: state.len() })
    }

    pub fn apply(&mut self, event: &StoredEvent<'_>) -> Result<(), Failed> {
        let failed = |reason: String| Failed { version: event.version, global_position: event.global_position, reason };
        let patch = Document::parse(event.event_data).map_err(|error| failed(error.to_string()))?;
        self.state.merge(patch);
        self.bytes_at_most += event.event_data.len() + 1;
        if self.bytes_at_most > STATE_BYTES_MAX {
            self.bytes_at_most = self.state().len();
            if self.bytes_at_most > STATE_BYTES_MAX {
                return Err(failed(format!("the state is larger than {STATE_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }

    /// The state as JSON.
    pub fn state(&self) -> String {
        let mut text = String::with_capacity(self.bytes_at_most);
        self.state.write(&mut text);
        text
    }
}

/// Folds a stream up to a version, from the snapshot of this reducer if one fits.
pub async fn fold(store: &Store, reducer: &Reducer, stream: &StreamId, until: Until) -> Result<Folded, FoldError> {
    let to = match until {
        Until::Now => Version::MAX,
        Until::Version(version) => version,
        Until::Time(time) => {
            let head = store.stream_head(stream).await?.ok_or(FoldError::StreamNotFound)?;
            store.version_at(stream, &head, time).await?.ok_or(FoldError::NoSuchVersion(head.version))?
        }
    };
    let language = reducer.source.language;
    let mut folding = Folding { fold: Fold::begin(language), events: 0, occurred_at: None, failed: None };
    let revision = reducer.revision.to_string();
    let loaded = store.load_aggregate(stream, SnapshotUse::Revision(&revision), to, |row| match row {
        LoadRow::Head(head) => folding.resume(head.snapshot.as_ref().map(|snapshot| snapshot.state.as_str())),
        LoadRow::Event(event) => folding.apply(event),
    });
    let (head, mut left) = loaded.await?.ok_or(FoldError::StreamNotFound)?;
    if matches!(until, Until::Version(version) if version > head.stream.version) {
        return Err(FoldError::NoSuchVersion(head.stream.version));
    }
    let version = to.min(head.stream.version);
    let mut pace = Pace::default();
    while folding.failed.is_none() && !left.is_empty() {
        left =
            store.read_stream(stream, &head.stream, left, usize::MAX, &mut pace, |event| folding.apply(event)).await?;
    }
    if let Some(failed) = folding.failed {
        return Err(failed.into());
    }
    let occurred_at = match folding.occurred_at {
        Some(occurred_at) => occurred_at,
        None => store.event_time(stream, &head.stream, version).await?,
    };
    Ok(Folded {
        version,
        occurred_at,
        state: folding.fold.state(),
        snapshot_version: head.snapshot.map(|snapshot| snapshot.version),
        events: folding.events,
        misfit: head.misfit,
    })
}

/// A fold that takes what a load hands over.
struct Folding {
    fold: Fold,
    events: usize,
    occurred_at: Option<DateTime<Utc>>,
    failed: Option<Failed>,
}

impl Folding {
    fn resume(&mut self, state: Option<&str>) -> ControlFlow<()> {
        if let Some(state) = state {
            // Its checksum was right: PostgreSQL printed it just now.
            self.fold = Fold::resume(state).expect("what PostgreSQL prints is JSON");
        }
        ControlFlow::Continue(())
    }

    fn apply(&mut self, event: &StoredEvent<'_>) -> ControlFlow<()> {
        match self.fold.apply(event) {
            Ok(()) => {
                self.events += 1;
                self.occurred_at = Some(event.occurred_at);
                ControlFlow::Continue(())
            }
            Err(failed) => {
                self.failed = Some(failed);
                ControlFlow::Break(())
            }
        }
    }
}
