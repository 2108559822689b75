//! The command line, with one file for each command.

mod archive;
pub mod command;
mod counted;
pub mod database;
pub mod environment;
mod epoch;
mod export;
mod file_limit;
mod healthcheck;
mod import;
mod keys;
mod logging;
mod migrate;
mod openapi;
mod serve;
mod verify;
