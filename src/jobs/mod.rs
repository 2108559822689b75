//! Tasks that run beside the requests.

pub mod gauges;
pub mod maintenance;
