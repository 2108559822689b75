//! All integration tests, in one binary: one file an operation, each test against a database of its own.

mod support;

mod append;
mod appends;
mod architecture;
mod archive;
mod cli;
mod clients;
mod conditional;
mod epochs;
mod examples;
mod failover;
mod idempotency;
mod javascript;
mod json;
mod keys;
mod log;
mod migrations;
mod months;
mod openapi;
mod operations;
mod ordering;
mod own_postgres;
mod problems;
mod projections;
mod query_plans;
mod read;
mod read_replica;
mod reducers;
mod replicas;
mod shutdown;
mod snapshots;
mod statistics;
mod subscriptions;
mod unhealthy_database;
mod writer;
