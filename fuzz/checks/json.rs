//! The validator of JSON against another parser: serde_json parses every document that the validator accepts. The
//! document has no U+0000 and no duplicate key, and is not deeper than the limit.

use annals::domain::json::{DEPTH_MAX, inspect};
use serde_json::Value;
use serde_json::value::RawValue;

/// Returns the depth of a document, and checks that it has no U+0000.
fn depth(value: &Value) -> usize {
    assert!(value.as_str().is_none_or(|text| !text.contains('\0')), "U+0000 was accepted");
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => {
            assert!(members.keys().all(|key| !key.contains('\0')), "U+0000 was accepted in a key");
            1 + members.values().map(depth).max().unwrap_or(0)
        }
        _ => 0,
    }
}

/// Returns the number of members of all objects, as serde_json has parsed them: without duplicate keys.
fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        _ => 0,
    }
}

/// Returns the number of colons outside of strings, which is the number of members in the text.
fn colons(text: &str) -> usize {
    let (mut count, mut inside, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b':' if !inside => count += 1,
            _ => {}
        }
    }
    count
}

/// Checks an input.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(document) = serde_json::from_str::<Box<RawValue>>(text) else { return };
    if inspect(&document).is_err() {
        return;
    }
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        // serde_json has no number beyond 1.8 * 10^308; PostgreSQL has.
        Err(error) if error.to_string().contains("number out of range") => return,
        Err(error) => panic!("{text} was accepted: {error}"),
    };
    assert!(depth(&value) <= DEPTH_MAX, "deeper than {DEPTH_MAX}");
    assert_eq!(members(&value), colons(document.get()), "a duplicate key was accepted");
}
