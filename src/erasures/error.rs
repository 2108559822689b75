//! Why nothing is erased.

use uuid::Uuid;

use crate::domain::name::StreamId;
use crate::store::append::error::AppendError;
use crate::store::error::StoreError;

/// Why an erasure fails. After every error but [`ErasureError::NotAnnounced`], nothing is erased.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The caller may not administer the aggregate type of an event in `event_ids`. The error does not name the type:
    /// the caller may not know it.
    #[error("the type of an event may not be administered")]
    Forbidden,
    #[error("the stream {0} does not exist")]
    StreamNotFound(StreamId),
    #[error("no event has the id {0}")]
    EventNotFound(Uuid),
    /// An event id, by its index, is that of a `$erased` event.
    #[error("the event announces an erasure")]
    Announcement(usize),
    /// The request names more events with content than one request may erase. The field is their number.
    #[error("the request names {0} events")]
    TooLarge(usize),
    /// The content is erased, and the `$erased` events are not appended yet.
    #[error("the content is erased, and the $erased events could not be appended: {0}")]
    NotAnnounced(AppendError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
