//! Reads of the log backward: the newest events first.
//!
//! They have the rules of reads in order (`store/log/read.rs`), and mirror them: segment by segment, from the open
//! partitions to the oldest sealed one, each in windows of positions. The cursor is the position before which the next
//! page begins.

mod archived;
mod read;
pub mod scan;
mod segment;
