//! A PostgreSQL of Annals' own, for first steps, for development and for tests.
//!
//! Annals uses it only if no database is configured. It is a complete PostgreSQL: fsync is on, and the data persists
//! between runs. It listens on a Unix socket in a folder that only its user can enter, so it trusts every connection.
//!
//! Several commands may use it at the same time (`serve` and `import`). Each holds a shared lock, and the last one
//! stops the server. If a process is killed, the server continues to run, and the next process finds and uses it.
//!
//! ```text
//! <data dir>/pg            the cluster, mode 0700, owned by the unprivileged user if Annals runs as root
//! <data dir>/postgres.log  the log of the server, mode 0600
//! <data dir>/start.lock    held while a process starts or stops the server, mode 0600
//! <data dir>/use.lock      held, shared, by every process that uses the server, mode 0600
//! ```
//!
//! As root, Annals refuses a data folder that a user other than root and the unprivileged user owns or can write to,
//! and programs that a user other than root owns or can write to. The folders above them are checked as well.

mod cluster;
mod data_dir;
pub mod error;
pub mod installation;
mod private_file;
mod safe_path;
pub mod server;
mod user;
