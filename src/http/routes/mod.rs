//! The handlers: a folder or a file for each segment of the URL. Each file has the types of its requests and responses,
//! its handlers and their documentation.

pub mod aggregates;
pub mod appends;
pub mod assets;
pub mod console;
pub mod erasures;
pub mod events;
pub mod groups;
pub mod keys;
pub mod metrics;
pub mod pages;
pub mod probes;
pub mod problems;
pub mod projection_history;
pub mod projections;
pub mod reducers;
pub mod snapshots;
pub mod stats;
pub mod streams;
