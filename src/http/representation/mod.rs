//! Representations: how events and other resources are written into responses.

pub mod appended;
pub mod format;
pub mod lines;
pub mod page;
pub mod response;
