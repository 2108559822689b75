//! `/aggregates`: the current state of aggregates.

pub mod load;
pub mod state;
