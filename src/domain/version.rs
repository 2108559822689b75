//! Versions of a stream: 1, 2, 3 …, without gaps. Version 0 means that the stream does not exist.

/// The version of a stream, or of an event in its stream.
pub type Version = i32;

/// The largest version that a client may send (2^53 - 1). It is larger than every [`Version`].
pub const VERSION_MAX: u64 = crate::domain::json::EXACT_INTEGER_MAX.unsigned_abs();

/// The version that a client expects a stream to have when its append is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// No precondition.
    Any,
    /// The stream has no event yet.
    None,
    /// The stream has at least one event.
    Exists,
    /// The stream has exactly this version; 0 has the meaning of [`ExpectedVersion::None`].
    Exact(u64),
}

impl ExpectedVersion {
    /// Returns whether a stream with version `current` meets the expectation. Version 0: the stream does not exist.
    pub fn holds(self, current: Version) -> bool {
        match self {
            Self::Any => true,
            Self::None => current == 0,
            Self::Exists => current > 0,
            Self::Exact(version) => u64::try_from(current) == Ok(version),
        }
    }

    /// Returns the version that the client has read; 0 if it named none. After a conflict, the client has missed the
    /// events after this version.
    pub fn missed_after(self) -> u64 {
        match self {
            Self::Exact(version) => version,
            Self::Any | Self::None | Self::Exists => 0,
        }
    }
}
