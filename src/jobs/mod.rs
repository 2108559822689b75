//! Tasks that run beside the requests.

pub mod maintenance;
pub mod refresh;
pub mod statistics;
