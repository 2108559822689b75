//! `/groups`: consumer groups, their claims and their parked streams.

pub mod acknowledge;
pub mod claim;
pub mod claims;
pub mod delete;
pub mod list;
pub mod move_parked;
pub mod parked;
pub mod put;
pub mod read;
pub mod retry;
mod shared;
