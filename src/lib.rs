//! Annals: an event store with an HTTP/JSON API, on PostgreSQL.
//!
//! A request enters through [`http`], which converts headers and JSON into the types of [`domain`] and checks the API key in
//! the [`keyring`]. [`append`] submits appends to the writer of the [`store`], which puts many requests into one commit.
//! The [`store`] reads PostgreSQL, and the [`archive`] for old partitions. [`subscriptions`] follow the log as it grows,
//! [`reducers`] fold aggregates, [`jobs`] maintain the partitions. `docs/explanation/architecture.md` follows an append and
//! an event through these modules.
//!
//! Dependencies point one way, from `cli` down to `domain`, without circles; `tests/it/architecture.rs` checks that. Only
//! [`store`] names sqlx, only [`archive`] names Parquet, only [`http`] names axum. There is no global state: two services in
//! one process are independent.

pub mod app;
pub mod append;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod jobs;
pub mod keyring;
pub mod metrics;
mod mutants;
pub mod own_postgres;
pub mod reducers;
pub mod shutdown;
pub mod startup;
pub mod store;
pub mod subscriptions;
pub mod wire;
