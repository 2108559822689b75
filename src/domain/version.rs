//! Versions of a stream: 1, 2, 3 … without a hole; 0 stands for a stream that does not exist.

/// A stream's version or an event's within it.
pub type Version = i32;

/// The largest number that a client may ask for as a version; no stream gets there.
pub const VERSION_MAX: u64 = super::json::EXACT_INTEGER_MAX.unsigned_abs();

/// What the writer of an append knows of the stream, and wants to hold when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// No precondition.
    Any,
    /// The stream has no event yet.
    None,
    /// The stream has at least one event.
    Exists,
    /// The stream is at exactly this version; 0 is the same as [`ExpectedVersion::None`], said in other words.
    Exact(u64),
}

impl ExpectedVersion {
    /// The same as `append_events` reads it: a version, -1 for any, -2 for "it exists".
    pub fn encoded(self) -> i32 {
        match self {
            Self::Any => -1,
            Self::Exists => -2,
            Self::None => 0,
            // No stream gets there: a number beyond the column's range fails as any other wrong one does.
            Self::Exact(version) => i32::try_from(version).unwrap_or(i32::MAX),
        }
    }

    /// Whether a stream that is at `current` fulfils it.
    pub fn holds(self, current: Version) -> bool {
        match self {
            Self::Any => true,
            Self::None => current == 0,
            Self::Exists => current > 0,
            Self::Exact(version) => u64::try_from(current) == Ok(version),
        }
    }

    /// The version after which the events that the writer missed begin.
    pub fn missed_after(self) -> u64 {
        match self {
            Self::Exact(version) => version,
            Self::Any | Self::None | Self::Exists => 0,
        }
    }
}
