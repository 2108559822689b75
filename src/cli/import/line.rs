//! One line of an import: an event as a client sends it, an exported event, or the end of an export.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::domain::append::BODY_BYTES_MAX;
use crate::domain::derived_id::DerivedIds;
use crate::domain::erasure::{Announcement, ERASED_EVENT_TYPE, ErasedContent, ErasureNo};
use crate::domain::event::{BEGINNING_OF_TIME, NewEvent};
use crate::domain::name::StreamId;
use crate::domain::version::{ExpectedVersion, Version};
use crate::wire::json_error::describe;
use crate::wire::object::{Object, optional_object};
use crate::wire::time::format_time;
use crate::wire::validation::{DefaultIds, EventIn, EventValidator, Text};

/// The latest time of an event: RFC 3339 has four digits for the year.
const LAST_MOMENT: DateTime<Utc> =
    DateTime::from_timestamp(253_402_300_799, 0).expect("9999-12-31T23:59:59Z is a time");

/// A line.
pub enum Line {
    Event(Box<ImportEvent>),
    /// The end line of an export, with the number of events before it.
    End(u64),
}

/// An event to import.
pub struct ImportEvent {
    pub stream: StreamId,
    /// The expected version: the version of an exported event, minus one.
    pub expected: ExpectedVersion,
    pub event: NewEvent,
    pub occurred_at: Option<DateTime<Utc>>,
    /// What the event announces, if it is a `$erased` event.
    pub announcement: Option<Announcement>,
}

/// Reads a value; a null is a value, too.
fn raw_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The data of a `$erased` event.
#[derive(Deserialize)]
struct AnnouncementIn {
    erasure: ErasureNo,
    versions: Vec<(Version, Version)>,
    members: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'l> {
    aggregate_type: Option<String>,
    aggregate_id: Option<String>,
    version: Option<u64>,
    /// The position in the log from which the line was exported; the event gets a new one.
    #[serde(rename = "global_position")]
    _global_position: Option<u64>,
    #[serde(borrow)]
    event_id: Option<Text<'l>>,
    #[serde(borrow)]
    event_type: Option<Text<'l>>,
    /// Null if the content of an exported event is erased.
    #[serde(borrow, default, deserialize_with = "raw_or_null")]
    event_data: Option<&'l RawValue>,
    #[serde(borrow)]
    metadata: Option<&'l RawValue>,
    occurred_at: Option<String>,
    #[serde(borrow)]
    correlation_id: Option<Text<'l>>,
    #[serde(borrow)]
    causation_id: Option<Text<'l>>,
    #[serde(default, deserialize_with = "optional_object")]
    end: Option<End>,
    #[serde(borrow)]
    error: Option<&'l RawValue>,
}

#[derive(Deserialize)]
struct End {
    count: u64,
}

/// The number of events of each stream in the lines that were read, and the ids that are derived from it.
pub struct Ordinals {
    ids: DerivedIds,
    counts: HashMap<StreamId, u64>,
}

impl Ordinals {
    /// Begins before the first line.
    pub fn new(ids: DerivedIds) -> Self {
        Self { ids, counts: HashMap::new() }
    }

    /// Returns the ordinal of the next event of a stream: 1, 2, 3 …
    fn next(&mut self, stream: &StreamId) -> u64 {
        let ordinal = match self.counts.get_mut(stream) {
            Some(ordinal) => ordinal,
            None => self.counts.entry(stream.clone()).or_insert(0),
        };
        *ordinal += 1;
        *ordinal
    }
}

impl Line {
    /// Parses and validates a line. The error says what is wrong, for the end of a message.
    pub fn parse(text: &str, ordinals: &mut Ordinals) -> Result<Self, String> {
        let Object(fields): Object<Fields<'_>> = serde_json::from_str(text).map_err(|error| fault(text, &error))?;
        if let Some(error) = fields.error {
            return Err(format!("the export failed here, and is not complete: {error}"));
        }
        if let Some(end) = fields.end {
            return Ok(Self::End(end.count));
        }
        let required = |name: &str, value: Option<String>| value.ok_or_else(|| format!("{name} is required"));
        let stream = StreamId::parse_writable(
            required("aggregate_type", fields.aggregate_type)?,
            required("aggregate_id", fields.aggregate_id)?,
        )
        .map_err(|fault| format!("{} {}", fault.field, fault.fault))?;
        let expected = match fields.version {
            None => ExpectedVersion::Any,
            Some(0) => return Err("version must be 1 or more".to_owned()),
            Some(version) => ExpectedVersion::Exact(version - 1),
        };
        let occurred_at = fields.occurred_at.as_deref().map(time).transpose()?;
        // An exported event has its version. In another line, null is a mistake.
        let is_exported = fields.version.is_some();
        let event_data = fields.event_data.filter(|data| data.get() != "null" || is_exported);

        let event = EventIn {
            event_id: fields.event_id,
            event_type: fields.event_type,
            event_data,
            metadata: fields.metadata,
            correlation_id: fields.correlation_id,
            causation_id: fields.causation_id,
        };
        // Lines with an event id count, too, so that a derived id does not depend on which other lines have one.
        let ordinal = ordinals.next(&stream);
        let id = || ordinals.ids.from_ordinal(&stream, ordinal);
        let mut validator = EventValidator::for_import(BODY_BYTES_MAX as usize);
        let new = validator
            .validate_event("", &event, DefaultIds::default(), id)
            .and_then(|new| validator.validate_payloads_of("", &event).map(|()| new))
            .map_err(|error| error.to_string())?;
        let announcement = announcement(&new)?;
        Ok(Self::Event(Box::new(ImportEvent { stream, expected, event: new, occurred_at, announcement })))
    }
}

/// Returns what a `$erased` event announces; `None` for any other event.
fn announcement(event: &NewEvent) -> Result<Option<Announcement>, String> {
    if event.event_type != ERASED_EVENT_TYPE {
        return Ok(None);
    }
    let Object(AnnouncementIn { erasure, versions, members }) =
        serde_json::from_str(&event.event_data).map_err(|error| format!("event_data {}", describe(&error)))?;
    if erasure < 1 || versions.iter().any(|(first, last)| *first < 1 || first > last) {
        return Err("event_data must be that of an exported $erased event".to_owned());
    }
    ErasedContent::parse(members.as_deref()).map_err(|error| format!("event_data/members {error}"))?;
    Ok(Some(Announcement { erasure, versions, members }))
}

/// Describes why a line has another shape than expected, with the member that is wrong.
fn fault(text: &str, error: &serde_json::Error) -> String {
    let detail = describe(error);
    if !["must ", "is out of range"].iter().any(|start| detail.starts_with(start)) {
        return detail;
    }
    // Tracking the path costs time for every member, so only an invalid line is parsed again with it.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, Object<Fields<'_>>>(&mut deserializer) {
        Err(error) if error.path().iter().next().is_some() => format!("{} {detail}", error.path()),
        _ => detail,
    }
}

impl ImportEvent {
    /// Makes the event occur now. Its time goes into `metadata.occurred_at`.
    pub fn occur_now(&mut self) -> Result<(), String> {
        self.occurred_at.take().map_or(Ok(()), |occurred_at| self.note_time(occurred_at).map(|_| ()))
    }

    /// Raises the time of the event to `earliest` if it is before that, and stores the original time in
    /// `metadata.occurred_at`. Returns the time at which the event occurs.
    pub fn occur_at_or_after(&mut self, earliest: Option<DateTime<Utc>>) -> Result<Option<DateTime<Utc>>, String> {
        if let (Some(earliest), Some(occurred_at)) = (earliest, self.occurred_at)
            && occurred_at < earliest
        {
            if !self.note_time(occurred_at)? {
                return Err(
                    "its time must be raised, and metadata.occurred_at, where the original time is stored, has \
                            another value: rename that member"
                        .to_owned(),
                );
            }
            self.occurred_at = Some(earliest);
        }
        Ok(self.occurred_at)
    }

    /// Adds the original time to the metadata as `occurred_at`, unless that member exists. Returns whether it was added, or
    /// exists with this time.
    fn note_time(&mut self, occurred_at: DateTime<Utc>) -> Result<bool, String> {
        // The metadata of an erased event is null for ever.
        if &*self.event.event_data == "null" {
            return Ok(true);
        }
        let metadata = self.event.metadata.as_deref().unwrap_or("{}");
        let members: HashMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(metadata).map_err(|error| describe(&error))?;
        if let Some(existing) = members.get("occurred_at") {
            let existing = serde_json::from_str::<&str>(existing.get()).ok();
            let existing = existing.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
            return Ok(existing.is_some_and(|existing| existing == occurred_at));
        }
        let separator = if members.is_empty() { "" } else { "," };
        let time = format_time(occurred_at);
        let rest = metadata.strip_prefix('{').ok_or("metadata must be an object")?;
        self.event.metadata = Some(format!("{{\"occurred_at\":\"{time}\"{separator}{rest}").into());
        Ok(true)
    }
}

/// Parses an RFC 3339 time between the years 1 and 9999, truncated to the microseconds that PostgreSQL stores.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|_| format!("occurred_at must be a time like 2026-11-23T05:56:44.527251Z, and is {text:?}"))?
        .to_utc();
    if !(BEGINNING_OF_TIME..=LAST_MOMENT).contains(&time) {
        return Err(format!("occurred_at must be between the years 1 and 9999, and is {text:?}"));
    }
    DateTime::from_timestamp_micros(time.timestamp_micros()).ok_or_else(|| "occurred_at is out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn ordinals() -> Ordinals {
        Ordinals::new(DerivedIds::new(Uuid::from_u128(1)))
    }

    fn event(text: &str, ordinals: &mut Ordinals) -> ImportEvent {
        match Line::parse(text, ordinals) {
            Ok(Line::Event(event)) => *event,
            Ok(Line::End(_)) => panic!("an end line"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn equal_lines_of_a_stream_get_ids_that_differ_and_repeat() {
        let line = r#"{"aggregate_type":"T","aggregate_id":"1","event_type":"E","event_data":1}"#;
        let ids = || {
            let mut ordinals = ordinals();
            [event(line, &mut ordinals).event.event_id, event(line, &mut ordinals).event.event_id]
        };
        assert_eq!(ids(), ids());
        assert_ne!(ids()[0], ids()[1]);
    }

    #[test]
    fn the_time_of_an_event_that_occurs_now_is_stored_in_the_metadata() {
        let metadata = |metadata: &str| {
            let line = format!(
                r#"{{"aggregate_type":"T","aggregate_id":"1","event_type":"E","event_data":1,
                    "occurred_at":"2025-01-02T03:04:05+01:00"{metadata}}}"#
            );
            let mut event = event(&line, &mut ordinals());
            event.occur_now().expect("it can");
            event.event.metadata.expect("it has some").into_string()
        };
        assert_eq!(metadata(""), r#"{"occurred_at":"2025-01-02T02:04:05.000000Z"}"#);
        assert_eq!(metadata(r#","metadata":{"a":1}"#), r#"{"occurred_at":"2025-01-02T02:04:05.000000Z","a":1}"#);
        assert_eq!(metadata(r#","metadata":{"occurred_at":"x"}"#), r#"{"occurred_at":"x"}"#);
    }

    #[test]
    fn only_a_time_before_the_earliest_one_is_raised_and_stored_in_the_metadata() {
        let line = r#"{"aggregate_type":"T","aggregate_id":"1","event_type":"E","event_data":1,
                       "occurred_at":"2025-01-02T00:00:00Z"}"#;
        let at = |text: &str| Some(time(text).expect("a time"));
        let original = at("2025-01-02T00:00:00Z");
        let noted = Some(r#"{"occurred_at":"2025-01-02T00:00:00.000000Z"}"#);
        for (earliest, occurs_at, metadata) in [
            (None, original, None),
            (at("2025-01-01T23:59:59.999999Z"), original, None),
            (original, original, None),
            (at("2025-01-02T00:00:00.000001Z"), at("2025-01-02T00:00:00.000001Z"), noted),
        ] {
            let mut event = event(line, &mut ordinals());
            assert_eq!(event.occur_at_or_after(earliest), Ok(occurs_at));
            assert_eq!((event.occurred_at, event.event.metadata.as_deref()), (occurs_at, metadata), "{earliest:?}");
        }
    }

    #[test]
    fn an_invalid_line_gets_a_sentence_as_error() {
        for (line, expected) in [
            ("{", "it ends within an object (column 1)"),
            (r#"{"aggregate_id":1}"#, "aggregate_id must be a string, and is 1"),
            (r#"{"version":-1}"#, "version is out of range: -1"),
            (r#"{"aggregate_id":"1"}"#, "aggregate_type is required"),
            (r#"{"aggregate_type":"T","aggregate_id":"a/b"}"#, "aggregate_id must not be"),
            (r#"{"aggregate_type":"T","aggregate_id":"1","event_type":"E"}"#, "/event_data: is required"),
            (r#"{"aggregate_type":"T","aggregate_id":"1","event_type":"E","event_data":"\u0000"}"#, "U+0000"),
            (r#"{"aggregate_type":"T","aggregate_id":"1","nonsense":1}"#, "nonsense"),
            (
                r#"{"aggregate_type":"T","aggregate_id":"1","event_type":"E","event_data":1,"occurred_at":"now"}"#,
                "2026",
            ),
            (r#"{"error":{"code":"internal"}}"#, "export failed"),
        ] {
            let error = Line::parse(line, &mut ordinals()).err().expect("an error");
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
