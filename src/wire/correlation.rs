//! Correlation and causation ids that a gateway sends.
//!
//! Events have UUIDs. A gateway may send any text instead, and must not be the reason why an append is refused. So a
//! text that is not a UUID becomes the UUIDv5 (RFC 9562, section 5.5) of its bytes. Reads map their values by the same
//! rule.

use uuid::Uuid;

/// The namespace of ids that are derived from a text. It is documented: clients may compute these ids.
const NAMESPACE: Uuid = Uuid::from_u128(0xa54f_f53a_5f1d_56f1_b05b_9b05_688c_2b3e);

/// Returns the id for a text: the UUID that it is, in any form that UUID parsers accept, or its UUIDv5.
pub fn id_from_text(text: &[u8]) -> Uuid {
    let uuid = std::str::from_utf8(text).ok().and_then(|text| Uuid::try_parse(text).ok());
    uuid.unwrap_or_else(|| Uuid::new_v5(&NAMESPACE, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_itself_in_every_form_and_another_text_has_a_fixed_id() {
        let id = Uuid::from_u128(0x0198_7c5e_0000_7000_8000_0000_0000_0001);
        for text in [id.to_string(), id.simple().to_string(), id.urn().to_string(), id.braced().to_string()] {
            assert_eq!(id_from_text(text.to_uppercase().as_bytes()), id, "{text}");
        }
        assert_eq!(id_from_text(b"req-77").to_string(), "9ac9a1a6-b1a5-573d-ae63-62d18ea77e2a");
        assert_ne!(id_from_text(b"req-77"), id_from_text(b"req-78"));
        assert_eq!(id_from_text(b"\xff").get_version_num(), 5);
    }
}
