//! `/aggregates`: the states of aggregates.

pub mod load;
mod reducer;
pub mod state;
pub mod states;
