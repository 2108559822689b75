//! The command line, with one file for each command. `client` has what the commands that call a service share.

mod append;
mod archive;
mod client;
pub mod command;
mod completions;
mod counted;
pub mod database;
mod demo;
pub mod environment;
mod epoch;
mod export;
mod file_limit;
mod healthcheck;
mod import;
mod keys;
mod logging;
mod man;
mod migrate;
mod openapi;
mod projections;
mod serve;
mod show;
mod state;
mod streams;
mod tail;
mod trace;
mod verify;
