//! What the statistics of a file say about a position.

use crate::domain::event::Position;

/// A position that is looked for in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundPosition {
    /// It is this one; `None`: the file has no such event.
    At(Option<Position>),
    /// It is in this row group.
    InGroup(usize),
}
