//! `annals import`: imports events from a file, or from standard input.
//!
//! It makes two passes: the first checks every line and writes nothing, and the second writes. A repeated import adds
//! nothing, because a line without an event id gets an id that is derived from its stream and its ordinal in the
//! stream.

mod batch;
pub mod command;
mod file;
mod line;
mod source;
