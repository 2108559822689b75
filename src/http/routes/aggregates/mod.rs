//! `/aggregates`

pub mod load;
pub mod state;
