//! Why an operation on a group fails.

use crate::domain::event::Position;
use crate::store::error::StoreError;
use crate::subscriptions::feed::TooManySubscribers;

/// The largest number of parked streams of a group.
pub const PARKED_MAX: i32 = 10_000;

/// Why an operation on a group fails.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    TooManySubscribers(#[from] TooManySubscribers),
    /// The group does not exist.
    #[error("the group does not exist")]
    GroupNotFound,
    /// The claim is unknown or has ended.
    #[error("the claim is unknown or has ended")]
    ClaimNotFound,
    /// The claim has ended, and this acknowledgement was not accepted. The fields are the position of the partition, and
    /// the worker that has claimed it.
    #[error("the claim has ended")]
    ClaimLost { last_processed_position: Option<Position>, claimed_by: Option<String> },
    /// The position is before the acknowledged one, which is the field.
    #[error("the position is before {0}, which is acknowledged")]
    PositionRegressed(Position),
    /// The position is beyond the last one of the claim or of the group, which is the field.
    #[error("the position is beyond {0}")]
    PositionBeyondClaim(Position),
    /// An element of the list of failed events, by its index, names no event of the claim.
    #[error("the claim has no event at this position")]
    NotInClaim(usize),
    /// The group has [`PARKED_MAX`] parked streams.
    #[error("the group has {PARKED_MAX} parked streams")]
    TooManyParked,
    /// The stream is not parked.
    #[error("the stream is not parked")]
    ParkedStreamNotFound,
    /// The parked stream has another position than expected, which is the field.
    #[error("the parked stream is at position {0}")]
    PositionConflict(Position),
}
