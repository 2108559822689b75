//! Extractors: each reads one part of a request, and fails with the problem of that part.
//!
//! The order of a handler's arguments is the order in which errors take precedence. The parts of a request with a body
//! are extracted by [`json_request::JsonRequest`], after the body was read.

pub mod accepts;
pub mod append_headers;
pub mod conditional;
pub mod headers;
pub mod json_request;
pub mod last_event_id;
pub mod min_position;
pub mod name_prefix;
pub mod path;
pub mod query;
