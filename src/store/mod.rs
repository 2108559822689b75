//! PostgreSQL: the only module that names sqlx. Statements are in `sql/*.sql`, functions in `migrations/functions/`.
//!
//! | what | where |
//! |---|---|
//! | the two databases: reads of either, writes of the primary | [`reader`], [`readers`], [`required_position`], [`primary`] |
//! | settings and kinds of connections, the pool for reads | [`connection`] |
//! | append: the queue, the writer, one call a batch; import | [`append`] |
//! | streams: heads, events, loads and snapshots | [`streams`] |
//! | the log: its head, reads in order, the tailer's connection, epochs | [`log`] |
//! | partitions: created ahead, sealed, archived, restored | [`partitions`] |
//! | erasures: content that is erased from events, tables and files | [`erasures`] |
//! | consumer groups: settings, steps of partitions, parked streams | [`groups`] |
//! | migrations, keys, reducers, projections, statistics, verification | [`admin`] |
//!
//! Modules import each other by their full paths, and no two files import each other.

pub mod admin;
pub mod append;
pub mod connection;
pub mod erasures;
pub mod error;
pub mod fetch_size;
pub mod groups;
mod jsonb;
pub mod log;
pub mod moves;
pub mod partitions;
pub mod primary;
pub mod reader;
pub mod readers;
pub mod required_position;
mod row;
pub mod streams;
