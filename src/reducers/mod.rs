//! Folding: the state of an aggregate, from a snapshot and the events after it.
//!
//! Invariant: the state at a version is the same from whichever snapshot a fold began, or from none. A reducer fails for
//! one event, which is told; nothing is stored then, and appends do not know of it.

mod fold;
mod merge_patch;
pub mod snapshotter;

pub use fold::{Failed, Fold, FoldError, Folded, Until, fold};
