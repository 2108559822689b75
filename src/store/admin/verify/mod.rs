//! `annals verify`: checks the integrity of the store by comparing data that is stored redundantly.
//!
//! A verification writes nothing except the position up to which the log was verified.

pub mod check;
mod streams;
pub mod verifier;
