//! The command line, with one file for each command.

mod archive;
pub mod command;
mod counted;
pub mod database;
mod epoch;
mod export;
mod healthcheck;
mod import;
mod keys;
mod logging;
mod migrate;
mod openapi;
mod serve;
mod verify;
