//! Folding: the state of an aggregate, from a snapshot and the events after it.
//!
//! Invariant: the state at a version is the same from whichever snapshot a fold began, or from none. A reducer fails for
//! one event, which is told; nothing is stored then, and appends do not know of it.

mod canonical;
mod engine;
mod fold;
pub mod javascript;
mod merge_patch;
pub mod snapshotter;
mod trial;

pub use canonical::canonical;
pub use fold::{Failed, FoldError, Folded, Until, fold, replay};
pub use merge_patch::MergePatchFold;
pub use trial::Trial;

use crate::store::StoredEvent;

/// Writes an event as reducers in JavaScript see it; the wire format is not known here.
pub type Encode = fn(&mut Vec<u8>, &StoredEvent<'_>);
