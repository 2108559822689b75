//! What the service and its worker say to each other, a line of JSON each.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::version::Version;

/// Begins a fold.
#[derive(Debug, Serialize, Deserialize)]
pub struct Begin {
    pub source: String,
    /// The interval of the snapshots.
    pub snapshot_every: Version,
    /// The state to begin with; `init` makes it if there is none.
    pub state: Option<Box<RawValue>>,
    /// Whether the state after each event is wanted.
    pub each: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToParent {
    State(Box<RawValue>),
    Done(Done),
    Failed(Fault),
    Invalid(Invalid),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    pub state: Box<RawValue>,
}

/// An event that the reducer failed for; version 0: it failed before the first one, or for the state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fault {
    pub version: Version,
    pub global_position: i64,
    pub reason: String,
}

/// A source that cannot be used, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    pub message: String,
    pub line: u32,
    pub column: u32,
}
