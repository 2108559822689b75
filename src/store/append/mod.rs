//! The append: many requests in one commit.
//!
//! ```text
//! queue ── writer ─┬─ batch ── append_events ─┬─ session (cache for the next call)
//!                  └─ single ── append_event ─┘
//! ```

mod batch;
pub mod error;
pub mod health;
pub mod import;
pub mod queue;
mod session;
mod single;
pub mod writer;
