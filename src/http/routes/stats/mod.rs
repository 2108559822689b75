//! `/stats`: statistics for operators. They are counted along the log, so no request scans it.

pub mod aggregate_types;
pub mod aggregates;
pub mod largest_aggregates;
pub mod overview;
pub mod shared;
pub mod snapshot_coverage;
pub mod tables;
