//! The vocabulary of the domain. In reading order: names and streams, versions, JSON documents, events, appends,
//! cursors, partitions, filters, erasures, reducers, access rights.
//!
//! The modules are pure: they use no I/O, no wire format, no SQL, no clock and no random numbers. A [`name::StreamId`]
//! or an [`access::Pattern`] has private fields, so that only its parser, which validates it, can create one.

pub mod access;
pub mod append;
pub mod claim_id;
pub mod cursor;
pub mod derived_id;
pub mod erasure;
pub mod event;
pub mod filter;
pub mod group;
pub mod hex;
pub mod json;
pub mod name;
pub mod name_range;
pub mod partition;
pub mod quota;
pub mod reducer;
pub mod version;
