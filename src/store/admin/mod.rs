//! Everything around the log: the schema, API keys, reducers, projections, epochs, statistics and verification.

pub mod epochs;
pub mod keys;
pub mod migrate;
pub mod projections;
pub mod reducers;
pub mod statistics;
pub mod verify;
