//! Consumer groups in the database: settings, steps of partitions, parked streams.

pub mod parked;
pub mod settings;
pub mod steps;
