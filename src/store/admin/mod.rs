//! Everything around the log: the schema, API keys, reducers, projections, epochs, statistics, verification, and the
//! secret of the store.

pub mod epochs;
pub mod keys;
pub mod migrate;
pub mod projections;
pub mod reducers;
pub mod secret;
pub mod statistics;
pub mod verify;
