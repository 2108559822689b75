//! `/erasures`: the erasure of personal data, and its receipts.

pub mod create;
pub mod list;
pub mod read;
mod receipt;
