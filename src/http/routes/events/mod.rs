//! `/events`: the log.

pub mod backward;
pub mod get;
pub mod list;
pub mod read_request;
