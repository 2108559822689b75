//! The move of a log to another database: `annals move`.
//!
//! The source accepts appends while its events are copied, in chunks of positions, each in one transaction of the target
//! that also compares both sides. A repeated run continues after the last chunk. Then the source is frozen, the last
//! chunk and the small tables follow, and the target begins an epoch. Triggers of the database refuse the writes, so the
//! move needs no agreement with running processes.
//!
//! Invariants:
//! - The target accepts no writes before it has everything and its epoch has begun, which is one transaction.
//! - The source accepts no events, and no other writes of clients, after it is frozen, unless the switch fails or the move
//!   is cancelled before the target has taken over. Counts and partitions still change, so the rest is read in one
//!   snapshot.

mod digest;
pub mod log_move;
mod pipe;
