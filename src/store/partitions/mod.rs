//! Partitions of `events`, one a month: the catalogue, creating and sealing, archiving and restoring.

pub mod archiver;
pub(super) mod catalogue;
pub(super) mod columns;
pub mod maintenance;
pub mod partition;
mod restore;
