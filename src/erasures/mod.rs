//! The erasure use case: finds the events of a request, erases their content, and announces it in their streams.
//!
//! ```text
//! find the events ── one transaction hides the content ── append the $erased events ── record the announcement
//! ```
//!
//! Invariants:
//! - No `$erased` event is in the log before the content of its erasure is hidden.
//! - The last two steps are repeatable, so a process that finds an erasure that is not announced completes it. There is
//!   one `$erased` event in each stream of an erasure, because its id is derived from both.
//!
//! The bytes are removed later: see [`crate::store::erasures::removal`].

pub mod error;
pub mod request;
pub mod service;
