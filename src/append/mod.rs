//! The append use case: submits a request, counts the outcome, and notifies the snapshotter. It uses neither HTTP nor
//! SQL.

pub mod service;
