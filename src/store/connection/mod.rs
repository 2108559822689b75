//! Connections to PostgreSQL: the address, the kinds of connections, and the pool for reads.

pub mod address;
pub mod config;
pub(super) mod connector;
pub(super) mod explain;
pub(super) mod read_pool;
pub(super) mod session;
