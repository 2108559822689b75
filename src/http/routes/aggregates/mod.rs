//! `/aggregates`: the states of aggregates.

pub mod load;
pub mod state;
pub mod states;
