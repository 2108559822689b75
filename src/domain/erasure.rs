//! Erasure of the content of events: which members are erased, and documents without them.
//!
//! An erased event keeps its place: id, type, version, position, time and correlation. Wholly erased, `event_data` and
//! `metadata` are null. Otherwise the values of the erased members are null, and their names stay.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde_json::value::RawValue;

use crate::domain::event::StoredEvent;
use crate::domain::version::Version;

/// The type of the events that announce an erasure, one in each stream.
pub const ERASED_EVENT_TYPE: &str = "$erased";
/// The number of an erasure: 1, 2, 3 …, perhaps with gaps.
pub type ErasureNo = i64;

/// The largest number of events that one request erases.
pub const ERASED_EVENTS_MAX: usize = 10_000;
/// The largest numbers of streams, event ids and members in a request, and the longest reason.
pub const ERASED_STREAMS_MAX: usize = 100;
pub const ERASED_IDS_MAX: usize = 1_000;
pub const ERASED_MEMBERS_MAX: usize = 20;
pub const REASON_CHARS_MAX: usize = 1_000;

/// A document of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Document {
    EventData,
    Metadata,
}

/// A member of `event_data` or of `metadata`, as a JSON Pointer (RFC 6901) like `/event_data/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPointer {
    text: String,
    document: Document,
    /// The keys within the document, unescaped; at least one.
    keys: Vec<String>,
}

/// A text is not a pointer to a member of an event's documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a JSON Pointer (RFC 6901) to a member below /event_data or /metadata, like /event_data/name; to erase all \
     of both, omit members"
)]
pub struct ParseMemberError;

/// The data of a `$erased` event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub erasure: ErasureNo,
    /// The erased versions as ranges, both bounds included.
    pub versions: Vec<(Version, Version)>,
    /// The erased members; `None`: all content.
    pub members: Option<Vec<String>>,
}

/// What is erased of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErasedContent {
    /// `event_data` and `metadata`.
    All,
    Members(Vec<MemberPointer>),
}

impl FromStr for MemberPointer {
    type Err = ParseMemberError;

    fn from_str(text: &str) -> Result<Self, ParseMemberError> {
        let mut keys = text.strip_prefix('/').ok_or(ParseMemberError)?.split('/');
        let document = match keys.next() {
            Some("event_data") => Document::EventData,
            Some("metadata") => Document::Metadata,
            _ => return Err(ParseMemberError),
        };
        let keys: Vec<_> = keys.map(unescape).collect::<Option<_>>().ok_or(ParseMemberError)?;
        // PostgreSQL stores no U+0000, so no member has it.
        if keys.is_empty() || text.contains('\0') {
            return Err(ParseMemberError);
        }
        Ok(Self { text: text.to_owned(), document, keys })
    }
}

impl fmt::Display for MemberPointer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Replaces `~1` by a slash and `~0` by a tilde; `None` if another character follows a tilde.
fn unescape(key: &str) -> Option<String> {
    let mut parts = key.split('~');
    let mut unescaped = parts.next()?.to_owned();
    for part in parts {
        unescaped.push(match part.chars().next()? {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        unescaped.push_str(&part[1..]);
    }
    Some(unescaped)
}

impl MemberPointer {
    /// Returns the pointer as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the place of the member's value in a document; `None` if the document has no such member.
    fn find(&self, document: &str) -> Option<Range<usize>> {
        let mut value = serde_json::from_str::<&RawValue>(document).ok()?.get();
        for key in &self.keys {
            value = match value.as_bytes().first()? {
                b'{' => {
                    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value).ok()?;
                    members.remove(key.as_str())?.get()
                }
                b'[' => {
                    let elements: Vec<&RawValue> = serde_json::from_str(value).ok()?;
                    elements.get(index(key)?)?.get()
                }
                _ => return None,
            };
        }
        // A value is a part of the document's text.
        let start = value.as_ptr() as usize - document.as_ptr() as usize;
        Some(start..start + value.len())
    }

    /// Returns the document of an event that the pointer names.
    fn document_of<'e>(&self, event: &StoredEvent<'e>) -> Option<&'e str> {
        match self.document {
            Document::EventData => Some(event.event_data),
            Document::Metadata => event.metadata,
        }
    }

    /// Returns whether an event has the member, with another value than null.
    fn has_content(&self, event: &StoredEvent<'_>) -> bool {
        self.document_of(event)
            .and_then(|document| self.find(document).map(|place| &document[place]))
            .is_some_and(|value| value != "null")
    }
}

/// Parses the index of an element: digits without a leading zero.
fn index(key: &str) -> Option<usize> {
    let is_index = key.bytes().all(|byte| byte.is_ascii_digit()) && (key == "0" || !key.starts_with('0'));
    if is_index { key.parse().ok() } else { None }
}

impl ErasedContent {
    /// Returns whether an event has content that would be erased.
    pub fn is_in(&self, event: &StoredEvent<'_>) -> bool {
        match self {
            Self::All => !event.is_erased() || event.metadata.is_some(),
            Self::Members(members) => members.iter().any(|member| member.has_content(event)),
        }
    }

    /// Erases more of the same event.
    pub fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Members(members), Self::Members(more)) => members.extend(more),
        }
    }

    /// Returns `event_data` without what is erased of it.
    pub fn erase_event_data(&self, event_data: &str) -> String {
        match self {
            Self::All => "null".to_owned(),
            Self::Members(members) => erase(event_data, members, Document::EventData),
        }
    }

    /// Returns `metadata` without what is erased of it.
    pub fn erase_metadata(&self, metadata: Option<&str>) -> Option<String> {
        match self {
            Self::All => None,
            Self::Members(members) => metadata.map(|metadata| erase(metadata, members, Document::Metadata)),
        }
    }

    /// Returns the erased members as texts; `None` for all content.
    pub fn members(&self) -> Option<Vec<&str>> {
        match self {
            Self::All => None,
            Self::Members(members) => Some(members.iter().map(MemberPointer::as_str).collect()),
        }
    }

    /// Parses members; `None` stands for all content.
    pub fn parse(members: Option<&[String]>) -> Result<Self, ParseMemberError> {
        let Some(members) = members else { return Ok(Self::All) };
        Ok(Self::Members(members.iter().map(|member| member.parse()).collect::<Result<_, _>>()?))
    }
}

/// Replaces the values of members of a document by null. The rest of the text is unchanged, so the result is what
/// PostgreSQL prints for the erased document.
fn erase(document: &str, members: &[MemberPointer], which: Document) -> String {
    let found = members.iter().filter(|member| member.document == which).filter_map(|member| member.find(document));
    let mut places: Vec<_> = found.collect();
    // An outer value comes before the values in it.
    places.sort_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
    let mut erased = String::with_capacity(document.len());
    let mut end = 0;
    for place in places {
        if place.start < end {
            continue;
        }
        erased.push_str(&document[end..place.start]);
        erased.push_str("null");
        end = place.end;
    }
    erased.push_str(&document[end..]);
    erased
}

impl StoredEvent<'_> {
    /// Returns whether the whole content of the event is erased. No client can write an event whose data is null.
    pub fn is_erased(&self) -> bool {
        self.event_data == "null"
    }

    /// Returns whether a reducer is called with the event: it has content, and does not announce an erasure.
    pub fn is_folded(&self) -> bool {
        !self.is_erased() && self.event_type != ERASED_EVENT_TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(texts: &[&str]) -> ErasedContent {
        ErasedContent::Members(texts.iter().map(|text| text.parse().expect("a pointer")).collect())
    }

    #[test]
    fn a_pointer_names_a_member_below_one_of_the_documents() {
        for text in ["/event_data/name", "/metadata/ip", "/event_data/", "/event_data/a~1b~0c/0", "/metadata/a/-"] {
            assert_eq!(text.parse::<MemberPointer>().map(|pointer| pointer.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "/", "event_data/name", "/event_data", "/metadata", "/event_type/x", "/event_data/a~2", "/x~"]
        {
            assert_eq!(text.parse::<MemberPointer>(), Err(ParseMemberError), "{text}");
        }
    }

    #[test]
    fn the_values_of_erased_members_are_null_and_the_rest_is_unchanged() {
        let document = r#"{"a": {"b": [1, {"c": "x"}], "d/~": 2}, "": 1.50, "é\"": [null]}"#;
        for (pointers, expected) in [
            (vec!["/event_data/a/b/0"], r#"{"a": {"b": [null, {"c": "x"}], "d/~": 2}, "": 1.50, "é\"": [null]}"#),
            (vec!["/event_data/a/b/1/c"], r#"{"a": {"b": [1, {"c": null}], "d/~": 2}, "": 1.50, "é\"": [null]}"#),
            (
                vec!["/event_data/a/d~1~0", "/event_data/"],
                r#"{"a": {"b": [1, {"c": "x"}], "d/~": null}, "": null, "é\"": [null]}"#,
            ),
            (vec!["/event_data/a/b", "/event_data/a"], r#"{"a": null, "": 1.50, "é\"": [null]}"#),
            (vec!["/event_data/é\""], r#"{"a": {"b": [1, {"c": "x"}], "d/~": 2}, "": 1.50, "é\"": null}"#),
            (
                vec!["/event_data/a/b/-1", "/event_data/a/b/01", "/event_data/a/b/2", "/event_data//x", "/metadata/a"],
                document,
            ),
        ] {
            assert_eq!(members(&pointers).erase_event_data(document), expected, "{pointers:?}");
        }
        assert_eq!(members(&["/metadata/ip"]).erase_metadata(Some(r#"{"ip": 1}"#)).as_deref(), Some(r#"{"ip": null}"#));
        assert_eq!(members(&["/metadata/ip"]).erase_metadata(None), None);
        assert_eq!(ErasedContent::All.erase_event_data(document), "null");
        assert_eq!(ErasedContent::All.erase_metadata(Some("{}")), None);
    }
}
