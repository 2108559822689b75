//! Why a fold failed.

use serde::{Deserialize, Serialize};

use crate::domain::event::Position;
use crate::domain::name::StreamId;
use crate::domain::version::Version;
use crate::store::error::StoreError;

/// Why no state was computed.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error("the stream {0} does not exist")]
    StreamNotFound(StreamId),
    /// The stream never had the requested version, or had no event at the requested time. The second field is its
    /// current version.
    #[error("the stream {0} is at version {1}: it has no such version, or it had no event at that time")]
    NoSuchVersion(StreamId, Version),
    #[error("{0}")]
    Failed(#[from] ReducerFailure),
    /// The source of the reducer cannot be used.
    #[error("{}", .0.message)]
    Invalid(InvalidReducer),
    /// No worker process could fold in time. The reducer is not the cause.
    #[error("no worker process could fold the aggregate in time")]
    WorkersBusy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A reducer failed for an event, for this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version {version}: {reason}")]
pub struct ReducerFailure {
    pub version: Version,
    pub global_position: Position,
    pub reason: String,
}

/// A source that cannot be used, and the place of the fault: the line and the column, from 1 on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidReducer {
    pub message: String,
    pub line: u32,
    pub column: u32,
}

/// Returns the error for a state or a message that is not JSON.
pub(super) fn not_json(error: serde_json::Error) -> FoldError {
    FoldError::Store(StoreError::unreadable(error))
}
