//! The differences between two JSON values.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::cli::client::event::parse;
use crate::cli::client::failure::Failure;

/// A place where two values differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'t> {
    /// The JSON pointer (RFC 6901); empty for the whole value.
    pub pointer: String,
    /// The JSON before; `None` if the place did not exist.
    pub before: Option<&'t str>,
    /// The JSON after; `None` if the place does not exist any more.
    pub after: Option<&'t str>,
}

enum Value<'t> {
    Object(BTreeMap<String, &'t RawValue>),
    Array(Vec<&'t RawValue>),
    Other,
}

impl<'t> Value<'t> {
    fn parse(json: &'t RawValue) -> Result<Self, Failure> {
        let text = json.get();
        match text.as_bytes().first() {
            Some(b'{') => parse(text.as_bytes()).map(Self::Object),
            Some(b'[') => parse(text.as_bytes()).map(Self::Array),
            _ => Ok(Self::Other),
        }
    }
}

/// Returns the smallest members and elements that differ, in order. Numbers differ if their digits do.
pub fn differences<'t>(before: &'t RawValue, after: &'t RawValue) -> Result<Vec<Difference<'t>>, Failure> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut found)?;
    Ok(found)
}

fn compare<'t>(
    pointer: String,
    before: Option<&'t RawValue>,
    after: Option<&'t RawValue>,
    found: &mut Vec<Difference<'t>>,
) -> Result<(), Failure> {
    if let (Some(before), Some(after)) = (before, after) {
        if before.get() == after.get() {
            return Ok(());
        }
        match (Value::parse(before)?, Value::parse(after)?) {
            (Value::Object(before), Value::Object(after)) => {
                for (name, value) in &before {
                    compare(member(&pointer, name), Some(*value), after.get(name).copied(), found)?;
                }
                for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                    compare(member(&pointer, name), None, Some(*value), found)?;
                }
                return Ok(());
            }
            (Value::Array(before), Value::Array(after)) => {
                for index in 0..before.len().max(after.len()) {
                    let element = format!("{pointer}/{index}");
                    compare(element, before.get(index).copied(), after.get(index).copied(), found)?;
                }
                return Ok(());
            }
            _ => {}
        }
    }
    found.push(Difference { pointer, before: before.map(RawValue::get), after: after.map(RawValue::get) });
    Ok(())
}

fn member(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_elements_that_differ_are_found() {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).expect("JSON");
        let before = raw(r#"{"same": [1], "status": "open", "old": null, "lines": [{"n": 1}, 2], "a/b~": 1}"#);
        let after = raw(r#"{"same": [1], "status": "paid", "lines": [{"n": 1.0}, 2, 3], "a/b~": 2, "by": {"x": 1}}"#);
        let found = differences(&before, &after).expect("JSON");
        let found: Vec<_> = found.iter().map(|found| (found.pointer.as_str(), found.before, found.after)).collect();
        assert_eq!(
            found,
            [
                ("/a~1b~0", Some("1"), Some("2")),
                ("/lines/0/n", Some("1"), Some("1.0")),
                ("/lines/2", None, Some("3")),
                ("/old", Some("null"), None),
                ("/status", Some("\"open\""), Some("\"paid\"")),
                ("/by", None, Some("{\"x\": 1}")),
            ]
        );
        let (one, two) = (raw("1"), raw("[]"));
        let whole = differences(&one, &two).expect("JSON");
        assert_eq!(whole, [Difference { pointer: String::new(), before: Some("1"), after: Some("[]") }]);
    }
}
