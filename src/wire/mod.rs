//! The wire format: the JSON of events in and out, times, paths, and the validation of events that clients send.
//!
//! HTTP, the command line, subscriptions and reducers use it. It names neither HTTP nor the database.

pub mod correlation;
pub mod event;
pub mod json_error;
pub mod object;
pub mod path;
pub mod time;
pub mod validation;
