//! Reducers: the state of an aggregate, from a snapshot and the events after it.
//!
//! ```text
//! fold ── engine ─┬─ merge_patch          in this process
//!  │              └─ javascript ── worker in processes of their own
//!  ├── states: the state after each of several events
//!  └── snapshotter: the same in the background, when a snapshot is due
//! ```
//!
//! Invariant: the state at a version does not depend on the snapshot with which a fold begins, or on whether there is
//! one. If a reducer fails, the error names the event. Nothing is stored then, and appends are not affected.

pub mod canonical;
mod engine;
pub mod error;
pub mod fold;
pub mod javascript;
pub mod limits;
pub mod merge_patch;
pub mod snapshotter;
pub mod states;
pub mod trial;
