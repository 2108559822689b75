//! The log: its head, reads in order, the tailer's connection, and epochs.

mod archived;
pub mod backward;
pub mod clocks;
pub(super) mod epochs;
pub mod follow;
pub mod head;
mod matches;
pub mod rates;
pub mod read;
mod readable;
mod rows;
pub mod scan;
mod segment;
