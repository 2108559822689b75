//! Settings: each is a flag and an environment variable, declared once.
//!
//! The value name of a flag is the name of its variable, so that an error about a wrong value names the variable.
//! `.env.example` lists all variables; a test compares.

pub mod client;
pub mod database;
pub mod error;
pub mod log;
pub mod own_postgres;
pub(crate) mod parse;
pub mod program;
pub mod serve;
