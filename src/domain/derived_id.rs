//! Event ids that Annals derives from other names: from an `Idempotency-Key`, or from an event's place in a file.
//!
//! An id is a UUIDv5 (RFC 9562, section 5.5) in a namespace that is a secret of the store. A client that could compute
//! the id of another client's event could append an event with this id first, and so prevent the other append for ever.

use uuid::Uuid;

use crate::domain::erasure::ErasureNo;
use crate::domain::event::EventId;
use crate::domain::name::StreamId;

/// Derives event ids. The same names always have the same id in one store.
#[derive(Clone, Copy)]
pub struct DerivedIds {
    namespace: Uuid,
}

impl DerivedIds {
    /// Derives ids in the secret namespace of a store.
    pub fn new(namespace: Uuid) -> Self {
        Self { namespace }
    }

    /// Returns the id of an event that was sent with an `Idempotency-Key`. `index` is its index among the events of its
    /// stream in the request.
    pub fn from_idempotency_key(&self, stream: &StreamId, key: &str, index: usize) -> EventId {
        self.id(stream, &format!("{key}\0{index}"))
    }

    /// Returns the id of an imported event. `ordinal` is its number among the lines of its stream in the file.
    pub fn from_ordinal(&self, stream: &StreamId, ordinal: u64) -> EventId {
        self.id(stream, &ordinal.to_string())
    }

    /// Returns the id of the event that announces an erasure in a stream. No key has a control character, so it differs
    /// from the ids of keys.
    pub fn from_erasure(&self, stream: &StreamId, erasure: ErasureNo) -> EventId {
        self.id(stream, &format!("\u{1}erasure {erasure}"))
    }

    /// Names have no control characters, so NUL separates them unambiguously.
    fn id(&self, stream: &StreamId, rest: &str) -> EventId {
        let name = format!("{}\0{}\0{rest}", stream.aggregate_type(), stream.aggregate_id());
        EventId::Given(Uuid::new_v5(&self.namespace, name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_depends_on_the_namespace_the_stream_the_key_and_the_index() {
        let stream = |id: &str| StreamId::parse_writable("Order".to_owned(), id.to_owned()).expect("a stream");
        let ids = |namespace| {
            let derived = DerivedIds::new(Uuid::from_u128(namespace));
            [
                derived.from_idempotency_key(&stream("1"), "a", 0),
                derived.from_idempotency_key(&stream("1"), "a", 1),
                derived.from_idempotency_key(&stream("1"), "b", 0),
                derived.from_idempotency_key(&stream("2"), "a", 0),
                derived.from_ordinal(&stream("1"), 1),
            ]
            .map(|id| id.uuid())
        };
        assert_eq!(ids(1), ids(1));
        let all: std::collections::HashSet<Uuid> = ids(1).into_iter().chain(ids(2)).collect();
        assert_eq!(all.len(), 10);
    }
}
