//! Streams: their heads, their events, and loads of aggregates with snapshots.

mod archived;
pub mod events;
pub mod head;
pub mod load;
pub mod of_types;
pub mod range;
pub mod snapshots;
