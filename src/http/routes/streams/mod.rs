//! `/streams`

pub mod append;
pub mod event;
pub mod list;
pub mod list_all;
pub mod read;
pub mod read_request;
