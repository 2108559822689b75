//! The reducer `merge-patch` (RFC 7396): the state is the data of all events, merged in order.
//!
//! Every value except an object stays the text that was sent, so no digit of a number is lost. The result of a merge
//! does not depend on the order of keys, so a fold may continue from a stored state.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::domain::event::StoredEvent;
use crate::reducers::error::ReducerFailure;
use crate::reducers::limits::STATE_BYTES_MAX;

/// A JSON document, parsed where a merge can change it: in its objects.
#[derive(Debug, Clone)]
enum Document {
    Object(BTreeMap<String, Document>),
    /// Any other value, as text.
    Other(Box<RawValue>),
}

impl Document {
    fn empty() -> Self {
        Self::Object(BTreeMap::new())
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        Self::from_raw(serde_json::from_str(text)?)
    }

    fn from_raw(raw: &RawValue) -> Result<Self, serde_json::Error> {
        if !raw.get().starts_with('{') {
            return Ok(Self::Other(raw.to_owned()));
        }
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get())?;
        let opened = members.into_iter().map(|(name, value)| Ok((name, Self::from_raw(value)?)));
        Ok(Self::Object(opened.collect::<Result<_, serde_json::Error>>()?))
    }

    /// Merges a patch (`MergePatch` of RFC 7396, section 2). Returns the number of bytes by which the document has
    /// grown.
    fn merge(&mut self, patch: Self) -> isize {
        let Self::Object(patch) = patch else {
            let growth = patch.bytes() - self.bytes();
            *self = patch;
            return growth;
        };
        let mut growth = 0;
        if !matches!(self, Self::Object(_)) {
            growth = Self::empty().bytes() - self.bytes();
            *self = Self::empty();
        }
        let Self::Object(members) = self else { unreachable!("it was replaced by an object above") };
        growth -= commas(members.len());
        for (name, value) in patch {
            if value.is_null() {
                growth -= members.remove(&name).map_or(0, |removed| member_bytes(&name, &removed));
            } else if let Some(member) = members.get_mut(&name) {
                growth += member.merge(value);
            } else {
                let mut member = Self::empty();
                member.merge(value);
                growth += member_bytes(&name, &member);
                members.insert(name, member);
            }
        }
        growth + commas(members.len())
    }

    /// Returns the number of bytes that [`Document::write`] writes.
    fn bytes(&self) -> isize {
        match self {
            Self::Other(raw) => raw.get().len() as isize,
            Self::Object(members) => {
                2 + commas(members.len()) + members.iter().map(|(name, value)| member_bytes(name, value)).sum::<isize>()
            }
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Other(raw) if raw.get() == "null")
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Other(raw) => out.push_str(raw.get()),
            Self::Object(members) => {
                out.push('{');
                for (n, (name, value)) in members.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::to_string(name).expect("a string is JSON"));
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn commas(members: usize) -> isize {
    members.saturating_sub(1) as isize
}

fn member_bytes(name: &str, value: &Document) -> isize {
    serde_json::to_string(name).expect("a string is JSON").len() as isize + 1 + value.bytes()
}

/// A state that is being folded.
pub struct MergePatchFold {
    state: Document,
    /// The size of the state as JSON, in bytes. Each merge updates it, because writing the state after every event
    /// would cost more than the merge.
    bytes: isize,
}

impl MergePatchFold {
    /// Begins with the state of a snapshot, or before the first event.
    pub fn from_state(state: Option<&str>) -> Result<Self, serde_json::Error> {
        let state = Document::parse(state.unwrap_or("{}"))?;
        Ok(Self { bytes: state.bytes(), state })
    }

    /// Merges `event_data` of the next event into the state. Fails if the state becomes larger than the limit.
    pub fn apply(&mut self, event: &StoredEvent<'_>) -> Result<(), ReducerFailure> {
        let failed =
            |reason: String| ReducerFailure { version: event.version, global_position: event.global_position, reason };
        let patch = Document::parse(event.event_data).map_err(|error| failed(error.to_string()))?;
        self.bytes += self.state.merge(patch);
        if self.bytes > STATE_BYTES_MAX as isize {
            return Err(failed(format!("the state is larger than {STATE_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// Returns the state as JSON.
    pub fn state(&self) -> String {
        let mut text = String::new();
        self.state.write(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(target: &str, patch: &str) -> String {
        let mut document = Document::parse(target).expect("JSON");
        let before = document.bytes();
        let growth = document.merge(Document::parse(patch).expect("JSON"));
        let mut text = String::new();
        document.write(&mut text);
        assert_eq!((document.bytes(), before + growth), (text.len() as isize, text.len() as isize), "{target} {patch}");
        text
    }

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn a_merge_follows_rfc_7396() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (
                r#"{"é\n":1,"b":{"c":2,"d":3}}"#,
                r#"{"é\n":{"x":[1,2]},"b":{"c":null},"e":"f"}"#,
                r#"{"b":{"d":3},"e":"f","é\n":{"x":[1,2]}}"#,
            ),
        ] {
            assert_eq!(merged(target, patch), result, "{target} {patch}");
        }
    }

    #[test]
    fn numbers_keep_all_digits() {
        let exact = r#"{"a":12345678901234567890123456789012345678,"b":1.10,"c":[0.1234567890123456789012345]}"#;
        assert_eq!(merged("{}", exact), exact);
        assert_eq!(merged(exact, r#"{"b":{"d":9007199254740993}}"#).len(), exact.len() + 20 - 2);
    }
}
