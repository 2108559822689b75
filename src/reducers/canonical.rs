//! The order of keys in JSONB.
//!
//! JavaScript iterates over an object in the order in which its keys were added. The keys of a state that was read from
//! the database are in JSONB's order. A state that was not stored must have the same order: otherwise a reducer could
//! distinguish the two.

use serde_json::value::RawValue;

/// Writes a document, with the keys of every object in JSONB's order: shorter keys first, and keys of equal length byte
/// by byte.
pub fn canonical(document: &RawValue, out: &mut String) -> Result<(), serde_json::Error> {
    let text = document.get();
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: std::collections::HashMap<String, &RawValue> = serde_json::from_str(text)?;
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_unstable_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
            out.push('{');
            for (n, (name, value)) in members.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(&name)?);
                out.push(':');
                canonical(value, out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            out.push('[');
            for (n, item) in items.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                canonical(item, out)?;
            }
            out.push(']');
        }
        _ => out.push_str(text),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_jsonb() {
        let document: &RawValue =
            serde_json::from_str(r#"{"bb":1,"a":{"é":1,"z":2,"aaa":[{"b":1,"a":1}]},"A":null}"#).expect("JSON");
        let mut text = String::new();
        canonical(document, &mut text).expect("it is written");
        assert_eq!(text, r#"{"A":null,"a":{"z":2,"é":1,"aaa":[{"a":1,"b":1}]},"bb":1}"#);
    }
}
