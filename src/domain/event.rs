//! Events: as a client sends them, and where they stand once they are recorded.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::version::Version;

/// Position in the global log: 1, 2, 3 … without a hole within an epoch.
pub type Position = i64;

/// An event that passed the door, not yet written.
///
/// `event_data` and `metadata` are JSON texts that [`super::json::inspect`] let pass, kept as they were sent: no number
/// goes through a float.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub event_id: Uuid,
    pub event_type: String,
    pub event_data: Box<str>,
    pub metadata: Option<Box<str>>,
    pub correlation_id: Option<Uuid>,
    pub causation_id: Option<Uuid>,
}

impl NewEvent {
    /// Bytes that the event takes up in a batch, roughly.
    pub fn size(&self) -> usize {
        const FIXED: usize = 100;
        FIXED + self.event_type.len() + self.event_data.len() + self.metadata.as_deref().map_or(0, str::len)
    }
}

/// Where and when an event was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    pub event_id: Uuid,
    pub version: Version,
    pub global_position: Position,
    pub occurred_at: DateTime<Utc>,
}

/// An event as it is stored: payloads are JSON texts as PostgreSQL printed them, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEvent<'r> {
    pub event_id: Uuid,
    pub aggregate_type: &'r str,
    pub aggregate_id: &'r str,
    pub version: Version,
    pub global_position: Position,
    pub event_type: &'r str,
    pub event_data: &'r str,
    pub metadata: Option<&'r str>,
    pub occurred_at: DateTime<Utc>,
    pub correlation_id: Option<Uuid>,
    pub causation_id: Option<Uuid>,
}

impl StoredEvent<'_> {
    /// Bytes of the two documents.
    pub fn payload_bytes(&self) -> usize {
        self.event_data.len() + self.metadata.map_or(0, str::len)
    }
}
