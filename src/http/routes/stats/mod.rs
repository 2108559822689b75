//! `/stats`: statistics for operators. New events are counted incrementally, so no request scans the log.

pub mod aggregate_types;
pub mod aggregates;
pub mod largest_aggregates;
pub mod overview;
pub mod rates;
pub mod shared;
pub mod snapshot_coverage;
pub mod tables;
