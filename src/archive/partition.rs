//! An archived partition, as the catalogue of the database names it.

/// An archived partition: where its files are, and the digest with which the chain of digests begins.
///
/// The folder is not trusted. A manifest is used only if its SHA-256 is the one that the database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedPartition {
    /// The name of the partition, like `events_2025_01`, for messages.
    pub name: String,
    /// Its folder in the archive.
    pub folder: String,
    /// The SHA-256 of its manifest, as the database has it.
    pub manifest_sha256: String,
}
