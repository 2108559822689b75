//! `/events`: the log.

pub mod get;
pub mod list;
pub mod read_request;
