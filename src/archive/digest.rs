//! A digest of events that does not depend on the format in which they are stored.

use sha2::{Digest, Sha256};

use crate::domain::event::StoredEvent;
use crate::domain::hex::hex;

/// SHA-256 over events: each field with its length, in the order of the columns.
#[derive(Default)]
pub struct EventDigest(Sha256);

impl EventDigest {
    /// Adds the next event.
    pub fn add(&mut self, event: &StoredEvent<'_>) {
        let id = |id: Option<uuid::Uuid>| id.map(uuid::Uuid::into_bytes);
        self.field(Some(event.event_id.as_bytes()));
        self.field(Some(event.aggregate_type.as_bytes()));
        self.field(Some(event.aggregate_id.as_bytes()));
        self.field(Some(&event.version.to_be_bytes()));
        self.field(Some(&event.global_position.to_be_bytes()));
        self.field(Some(event.event_type.as_bytes()));
        self.field(Some(event.event_data.as_bytes()));
        self.field(event.metadata.map(str::as_bytes));
        self.field(Some(&event.occurred_at.timestamp_micros().to_be_bytes()));
        self.field(id(event.correlation_id).as_ref().map(<[u8; 16]>::as_slice));
        self.field(id(event.causation_id).as_ref().map(<[u8; 16]>::as_slice));
    }

    fn field(&mut self, bytes: Option<&[u8]>) {
        // An absent field has a length that no field can have.
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        self.0.update(length.to_be_bytes());
        self.0.update(bytes.unwrap_or_default());
    }

    /// Returns the digest in hexadecimal.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}
