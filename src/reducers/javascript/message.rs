//! The messages between the service and a worker, one line of JSON each.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::version::Version;
use crate::reducers::error::InvalidReducer;

/// Which states a worker returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The state after the last event.
    LastState,
    /// The state after each event, from this version on.
    StatesFrom(Version),
}

impl Output {
    /// Returns whether the state after the event with this version is returned, whatever follows.
    pub fn has_state_after(self, version: Version) -> bool {
        matches!(self, Self::StatesFrom(first) if version >= first)
    }
}

/// Begins a fold.
#[derive(Debug, Serialize, Deserialize)]
pub struct Begin {
    pub source: String,
    /// The number of events between two snapshots.
    pub snapshot_every: Version,
    /// The state with which the fold begins; `None`: the reducer's `init` returns it.
    pub state: Option<Box<RawValue>>,
    pub output: Output,
}

/// A reply of a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerReply {
    /// The process has started. This is its first line, before it reads anything.
    Started(Started),
    /// The state after the next event, for [`Output::StatesFrom`].
    State(Box<RawValue>),
    /// All events are folded.
    Done(Done),
    /// The reducer failed for an event.
    Failed(Fault),
    /// The source of the reducer cannot be used.
    Invalid(InvalidReducer),
}

/// How a worker process runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// Why the process has no filter of system calls; `None`: it has one.
    pub unfiltered: Option<String>,
}

/// The state after the last event.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    pub state: Box<RawValue>,
}

/// The event for which the reducer failed. Version 0: it failed before the first event, or for the state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fault {
    pub version: Version,
    pub global_position: i64,
    pub reason: String,
}
