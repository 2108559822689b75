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

    /// `MergePatch` of RFC 7396, section 2; how many bytes longer the document is now.
    fn merge(&mut self, patch: Self) -> isize {
        let Self::Object(patch) = patch else {
            let longer = patch.bytes() - self.bytes();
            *self = patch;
            return longer;
        };
        let mut longer = 0;
        if !matches!(self, Self::Object(_)) {
            longer = Self::empty().bytes() - self.bytes();
            *self = Self::empty();
        }
        let Self::Object(members) = self else { unreachable!("it was just made one") };
        longer -= commas(members.len());
        for (name, value) in patch {
            if value.is_null() {
                longer -= members.remove(&name).map_or(0, |removed| member_bytes(&name, &removed));
            } else if let Some(member) = members.get_mut(&name) {
                longer += member.merge(value);
            } else {
                let mut member = Self::empty();
                member.merge(value);
                longer += member_bytes(&name, &member);
                members.insert(name, member);
            }
        }
        longer + commas(members.len())
    }

    /// Bytes of what [`Document::write`] writes.
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

/// A state on its way from version to version.
pub struct MergePatchFold {
    state: Document,
    /// What the state takes up when it is written, kept up to date: to write it at every event would cost more than to
    /// merge.
    bytes: isize,
}

impl MergePatchFold {
    /// From a state that a snapshot holds, or before the first event.
    pub fn begin(state: Option<&str>) -> Result<Self, serde_json::Error> {
        let state = Document::parse(state.unwrap_or("{}"))?;
        Ok(Self { bytes: state.bytes(), state })
    }

    pub fn apply(&mut self, event: &StoredEvent<'_>) -> Result<(), Failed> {
        let failed = |reason: String| Failed { version: event.version, global_position: event.global_position, reason };
        let patch = Document::parse(event.event_data).map_err(|error| failed(error.to_string()))?;
        self.bytes += self.state.merge(patch);
        if self.bytes > STATE_BYTES_MAX as isize {
            return Err(failed(format!("the state is larger than {STATE_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// The state as JSON.
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
        let longer = document.merge(Document::parse(patch).expect("JSON"));
        let mut text = String::new();
        document.write(&mut text);
        assert_eq!((document.bytes(), before + longer), (text.len() as isize, text.len() as isize), "{target} {patch}");
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
    fn digits_are_kept() {
        let exact = r#"{"a":12345678901234567890123456789012345678,"b":1.10,"c":[0.1234567890123456789012345]}"#;
        assert_eq!(merged("{}", exact), exact);
        assert_eq!(merged(exact, r#"{"b":{"d":9007199254740993}}"#).len(), exact.len() + 20 - 2);
    }
}
