//! Erasures: content that is erased from events, and removed from tables and files.
//!
//! An erasure is one transaction. It erases the rows of the database, and notes the events of archived partitions, whose
//! files are written again later. Until then readers mask them ([`masks`]). The bytes of erased rows stay in the pages
//! of a table until the table is replaced by a copy ([`removal`]).

pub mod erase;
pub mod known;
pub(super) mod masks;
pub mod receipts;
pub mod removal;
