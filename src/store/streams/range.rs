//! Ranges of versions, and the progress of a read through one.

use crate::domain::event::StoredEvent;
use crate::domain::version::Version;
use crate::store::row::Deliver;

/// The order in which versions are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// Versions to read, both bounds included, from the lower one forward or from the upper one backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    pub from: Version,
    pub to: Version,
    pub direction: Direction,
}

impl VersionRange {
    /// Returns a range that is read forward.
    pub fn forward(from: Version, to: Version) -> Self {
        Self { from, to, direction: Direction::Forward }
    }

    /// Returns whether no version is left to read.
    pub fn is_empty(self) -> bool {
        self.from > self.to
    }

    /// Returns the next version to read.
    pub(super) fn next(self) -> Version {
        match self.direction {
            Direction::Forward => self.from,
            Direction::Backward => self.to,
        }
    }

    /// Returns the rest of the range after `version` was read.
    pub fn after(self, version: Version) -> Self {
        match self.direction {
            Direction::Forward => Self { from: version + 1, ..self },
            Direction::Backward => Self { to: version - 1, ..self },
        }
    }
}

/// The progress of a read of a stream.
pub(super) struct StreamReadState {
    /// The versions that are left to read.
    pub(super) range: VersionRange,
    /// The number of events that the reader still wants.
    pub(super) wanted: usize,
    /// The reader has stopped the read.
    pub(super) is_stopped: bool,
}

impl StreamReadState {
    /// Begins a read of at most `limit` events.
    pub(super) fn new(range: VersionRange, limit: usize) -> Self {
        Self { range, wanted: limit, is_stopped: false }
    }

    /// Returns whether nothing is left to read, or the reader wants no more.
    pub(super) fn is_done(&self) -> bool {
        self.is_stopped || self.wanted == 0 || self.range.is_empty()
    }

    /// Delivers the next event. Returns whether the read is done.
    pub(super) fn deliver(&mut self, event: &StoredEvent<'_>, deliver: Deliver<'_>) -> bool {
        self.range = self.range.after(event.version);
        self.wanted -= 1;
        self.is_stopped = deliver(event).is_break();
        self.is_done()
    }
}
