//! Partitions outside the database: Parquet files in a folder, S3, Google Cloud Storage or Azure.
//!
//! An archived partition is a folder with three objects, which are written once and never changed:
//!
//! ```text
//! 2025-01-<a random number>/by_position.parquet    all events of the partition, in the order of the log
//!                           by_aggregate.parquet   the same events, stream by stream
//!                           manifest.json          the files and their SHA-256; written last
//! ```
//!
//! There are two orders because Annals and other programs read both the log and single streams from the archive: the
//! statistics of the row groups let any reader of Parquet skip row groups by time or by aggregate. [`group`] defines
//! the columns.
//!
//! Invariant: an event that is read from the archive equals, byte by byte, what PostgreSQL printed when it was
//! archived. The digest of a partition's events, which does not depend on Parquet, proves that before the table is
//! dropped. The database has the SHA-256 of the manifest, the manifest has the SHA-256 of every range of a file that is
//! read at once, and each read compares them. So an event that is read is one that was archived, even if the files were
//! changed in the meantime. `bounds.rs` and `pages.rs` check what a file claims before memory is taken for it.

mod bounds;
pub mod digest;
pub mod error;
mod file_reader;
mod file_writer;
pub mod found_position;
pub mod group;
mod lru;
pub mod manifest;
mod pages;
pub mod partition;
pub mod place;
