//! The vocabulary, in reading order: names and streams, versions, JSON documents, events, appends, cursors, filters,
//! reducers.
//!
//! Pure: nothing here knows HTTP, SQL, a clock or a random number. What exists as one of these types is valid; the only
//! way to it is a constructor that checks.

pub mod access;
pub mod append;
pub mod cursor;
pub mod event;
pub mod filter;
pub mod hex;
pub mod json;
pub mod name;
pub mod reducer;
pub mod version;
