//! Errors of the archive.

use object_store::path::Path;

/// Why the archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The URL cannot be used, with the reason.
    #[error("ARCHIVE_URL={0} is not valid: {1}")]
    Url(String, String),
    /// The object store does not respond, or does not have the object.
    #[error("the archive cannot be read or written: {}", in_one_line(.0))]
    Store(object_store::Error),
    /// The partition was restored, or written into another folder, while it was read.
    #[error("the partition has moved while it was read")]
    Moved,
    /// A file differs from what was written.
    #[error("the archive is damaged: {path}: {what}")]
    Damaged { path: String, what: String },
    /// A field of an event has a value that Annals does not write.
    #[error("the archive is damaged: an event cannot be decoded: {0}")]
    InvalidEvent(String),
}

/// Returns the text of an error without line breaks. It can end with the document that the object store sent.
fn in_one_line(error: &object_store::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<object_store::Error> for ArchiveError {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl ArchiveError {
    /// Returns whether every retry fails in the same way: a file is missing, or differs from what was written.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::InvalidEvent(_) | Self::Store(object_store::Error::NotFound { .. }) => true,
            Self::Url(..) | Self::Store(_) | Self::Moved => false,
        }
    }

    /// Returns whether files differ from what was written. A file that is missing does not count, because the archive
    /// may not be mounted.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::InvalidEvent(_))
    }

    /// Returns the error for a partition that is archived while no archive is configured.
    pub fn not_configured() -> Self {
        Self::Url(String::new(), "it is not set, and events are archived".to_owned())
    }

    /// Returns the error for a file that differs from what was written.
    pub(super) fn damaged(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.to_string(), what: what.to_string() }
    }
}
