//! Background jobs. Each repeats a pass until shutdown, and receives only the parts of the service that it uses.

pub mod api_keys;
pub mod caches;
pub mod clocks;
pub mod erasures;
pub mod groups;
pub mod maintenance;
pub mod projection_history;
mod repeat;
pub mod replica;
pub mod samples;
pub mod statistics;
