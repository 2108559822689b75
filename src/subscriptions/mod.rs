//! Live subscriptions. One tailer in each process reads the log as it grows, and all subscribers share what it has
//! read.
//!
//! ```text
//! table ── tailer ── ring (bounded) ── subscription ── subscription ── …
//!   │        └ woken by commits of this process; otherwise it polls  │
//!   └──────────── a subscription that is behind the ring ────────────┘
//! ```
//!
//! Invariants:
//! - The table is the source of all events. The ring is a cache of a contiguous part of the log. A subscription reads
//!   the table for events that are not in the ring, so no subscriber misses an event because it is slow or late.
//! - A subscription delivers positions in increasing order, each once.
//! - An event wakes only the subscriptions that may want it. The others move past it about once a second.
//! - A slow subscriber does not delay the others: it holds one batch, or two if it reads ahead. A task holds a connection
//!   only while it reads a batch, whether the client reads or not.
//! - Without event streams and waiting claims, the tailer reads no events, only the head of the log.

pub mod feed;
mod interests;
pub mod long_poll;
pub mod projection_wait;
pub mod ring;
pub mod subscription;
pub mod tailer;
