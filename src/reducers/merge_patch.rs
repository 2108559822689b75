//! The reducer `merge-patch` (RFC 7396): the state is what all events' data, merged in order, make.
//!
//! Everything but objects stays the text that it was, so that a number keeps all of its digits. What a merge makes does
//! not depend on the order of keys; that is why a fold may go on from a stored state.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Failed;
use super::fold::STATE_BYTES_MAX;
use crate::store::StoredEvent;

/// A JSON document, open where a merge can reach: in its objects.
#[derive(Debug, Clone)]
enum Document {
    Object(BTreeMap<String, Document>),
    /// Anything else, as it was written.
    Other(Box<RawValue>),
}

impl Document {
    fn empty() -> Self {
        Self::Object(BTreeMap::new())
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        Self::open(serde_json::from_str(text)?)
    }

    fn open(raw: &RawValue) -> Result<Self, serde_json::Error> {
        if !raw.get().starts_with('{') {
            return Ok(Self::Other(raw.to_owned()));
        }
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get())?;
        let opened = members.into_iter().map(|(name, value)| Ok((name, Self::open(value)?)));
        Ok(Self::Object(opened.collect::<Result<_, serde_json::Error>>()?))
    }

    /// `MergePatch` of RFC 7396, section 2.
    fn merge(&mut self, patch: Self) {
        let Self::Object(patch) = patch else {
            *self = patch;
            return;
        };
        if !matches!(self, Self::Object(_)) {
            *self = Self::empty();
        }
        let Self::Object(members) = self else { unreachable!("it was just made one") };
        for (name, value) in patch {
            if value.is_null() {
                members.remove(&name);
            } else {
                members.entry(name).or_insert_with(Self::empty).merge(value);
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

/// A state on its way from version to version.
pub struct MergePatchFold {
    state: Document,
    /// The state prints in this many bytes at most.
    bytes_at_most: usize,
}

impl MergePatchFold {
    /// From a state that a snapshot holds, or before the first event.
    pub fn begin(state: Option<&str>) -> Result<Self, serde_json::Error> {
        let text = state.unwrap_or("{}");
        Ok(Self { state: Document::parse(text)?, bytes_at_most: text.len() })
    }

    pub fn apply(&mut self, event: &StoredEvent<'_>) -> Result<(), Failed> {
        let failed = |reason: String| Failed { version: event.version, global_position: event.global_position, reason };
        let patch = Document::parse(event.event_data).map_err(|error| failed(error.to_string()))?;
        self.state.merge(patch);
        self.bytes_at_most += event.event_data.len() + 1;
        if self.bytes_at_most > STATE_BYTES_MAX {
            self.bytes_at_most = self.state().len();
            if self.bytes_at_most > STATE_BYTES_MAX {
                return Err(failed(format!("the state is larger than {STATE_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }

    /// The state as JSON.
    pub fn state(&self) -> String {
        let mut text = String::with_capacity(self.bytes_at_most);
        self.state.write(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(target: &str, patch: &str) -> String {
        let mut document = Document::parse(target).expect("JSON");
        document.merge(Document::parse(patch).expect("JSON"));
        let mut text = String::new();
        document.write(&mut text);
        text
    }

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn it_merges_as_the_rfc_says() {
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
        ] {
            assert_eq!(merged(target, patch), result, "{target} {patch}");
        }
    }

    #[test]
    fn digits_are_kept() {
        let exact = r#"{"a":12345678901234567890123456789012345678,"b":1.10,"c":[0.1234567890123456789012345]}"#;
        assert_eq!(merged("{}", exact), exact);
        assert_eq!(merged(exact, r#"{"b":{"d":9007199254740993}}"#).len(), exact.len() + 20 - 2);
    }
}
