//! Annals: an event store with an HTTP/JSON API, on PostgreSQL.
//!
//! [`http`] receives a request. It checks the API key with the [`keyring`], and converts headers and JSON into the
//! types of [`domain`]. [`append`] submits appends to the writer of the [`store`], which commits many requests
//! together. The [`store`] reads PostgreSQL, and the [`archive`] for archived partitions. [`subscriptions`] deliver new
//! events, [`groups`] hand them out to workers, [`reducers`] fold aggregates, and [`jobs`] maintain the partitions. `docs/explanation/architecture.md`
//! describes the path of an append and of an event through these modules.
//!
//! Dependencies point one way, from `cli` down to `domain`, without circles; `tests/it/architecture.rs` checks that.
//! Only [`store`] names sqlx, only [`archive`] names Parquet, and only [`http`] names axum. There is no global state:
//! two services in one process are independent.

pub mod app;
pub mod append;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod erasures;
pub mod groups;
pub mod http;
pub mod jobs;
pub mod keyring;
pub mod metrics;
mod mutants;
pub mod own_postgres;
pub mod reducers;
pub mod shares;
pub mod shutdown;
pub mod startup;
pub mod store;
pub mod subscriptions;
pub mod wire;
