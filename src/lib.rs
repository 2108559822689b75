//! Annals: an event store over HTTP and JSON, on PostgreSQL.
//!
//! Bird's-eye view: a request comes in through [`http`], which turns headers and JSON into the types of [`domain`] and
//! asks the [`keyring`] what its key may do; the [`store`] carries it out in PostgreSQL, appends through one writer that
//! puts many requests into one commit; months that are old are read from the [`archive`]; [`subscriptions`] follow the
//! log as it grows; [`reducers`] fold aggregates; [`jobs`] keep the months. `docs/ARCHITECTURE.md` follows an append
//! through all of it.
//!
//! Dependencies point one way: `cli` → `http`, `jobs` → `subscriptions`, `reducers`, `keyring` → `store` → `archive` →
//! `domain`. Only `store` names sqlx, only `http` names axum and the wire format, `domain` names neither; a test holds
//! these rules against the source. There is no global state: two services in one process do not meet.

// Without an archive much of what handles one is out of reach.
#![cfg_attr(not(feature = "archive"), allow(unused))]

pub mod app;
#[cfg(feature = "archive")]
pub mod archive;
#[cfg(not(feature = "archive"))]
#[path = "archive/absent.rs"]
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod devdb;
pub mod domain;
pub mod http;
pub mod jobs;
pub mod keyring;
mod mutants;
pub mod reducers;
pub mod shutdown;
pub mod store;
pub mod subscriptions;
pub mod telemetry;
