//! One file a resource; each holds its wire types, its handlers and their documentation.

pub mod aggregates;
pub mod append;
pub mod health;
pub mod log;
pub mod metrics;
pub mod pages;
pub mod projections;
pub mod read;
pub mod reducers;
pub mod snapshots;
pub mod state;
pub mod stats;
pub mod stream;
