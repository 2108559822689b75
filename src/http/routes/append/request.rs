//! What an append asks for: its body, and what its headers say besides the precondition.

use std::collections::HashSet;

use axum::http::HeaderMap;
use serde::Deserialize;
use uuid::Uuid;

use crate::app::App;
use crate::domain::append::{Append, AppendRequest, REQUEST_STREAMS_MAX};
use crate::domain::name::StreamId;
use crate::domain::version::ExpectedVersion;
use crate::http::event_in::{Defaults, Door, EventIn};
use crate::http::headers::single;
use crate::http::problem::{FieldError, Problem};

const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Namespace of the event ids that an Idempotency-Key makes (UUIDv5 of the stream, the key and the event's index).
const IDEMPOTENCY_NAMESPACE: Uuid = Uuid::from_u128(0x6a09_e667_f3bc_5c90_8bb6_7ae8_584c_aa73);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamAppendIn<'b> {
    #[serde(borrow)]
    pub(super) events: Vec<EventIn<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendsIn<'b> {
    #[serde(borrow)]
    appends: Vec<AppendIn<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendIn<'b> {
    aggregate_type: String,
    aggregate_id: String,
    expected_version: Option<ExpectedIn>,
    #[serde(borrow)]
    events: Vec<EventIn<'b>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a version (0 or more), \"none\" or \"exists\"")]
enum ExpectedIn {
    Exact(u64),
    Word(ExpectedWord),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectedWord {
    None,
    Exists,
}

impl From<Option<ExpectedIn>> for ExpectedVersion {
    fn from(expected: Option<ExpectedIn>) -> Self {
        match expected {
            None => Self::Any,
            Some(ExpectedIn::Exact(version)) => Self::Exact(version),
            Some(ExpectedIn::Word(ExpectedWord::None)) => Self::None,
            Some(ExpectedIn::Word(ExpectedWord::Exists)) => Self::Exists,
        }
    }
}

/// Checks the appends of one request: everything that is not understood first, then what cannot be kept.
pub(super) fn appends(app: &App, sent: AppendsIn<'_>, options: &Options) -> Result<AppendRequest, Box<Problem>> {
    let invalid = |pointer: String, detail: String| Problem::invalid(FieldError::pointer(pointer, detail));
    if sent.appends.is_empty() || sent.appends.len() > REQUEST_STREAMS_MAX {
        let detail = format!("must have 1 to {REQUEST_STREAMS_MAX} streams");
        return Err(invalid("/appends".to_owned(), detail));
    }
    let ids_are_new = options.ids_are_new(sent.appends.iter().flat_map(|append| &append.events));
    let mut door = Door::new(app.settings.max_body_bytes);
    let mut streams = HashSet::new();
    let mut appends = Vec::with_capacity(sent.appends.len());
    let mut payloads = Vec::with_capacity(sent.appends.len());
    for (index, append) in sent.appends.into_iter().enumerate() {
        let at = format!("/appends/{index}");
        let stream = StreamId::parse(append.aggregate_type, append.aggregate_id)
            .map_err(|fault| invalid(format!("{at}/{}", fault.field), fault.fault.to_string()))?;
        if !streams.insert(stream.clone()) {
            return Err(invalid(
                at,
                "the stream stands twice in the request: put its events into one append".to_owned(),
            ));
        }
        let events = door
            .let_in(&format!("{at}/events"), &append.events, options.defaults, |n| options.event_id(app, &stream, n))?;
        payloads.push(append.events);
        appends.push(Append { stream, expected: append.expected_version.into(), events });
    }
    for (index, events) in payloads.iter().enumerate() {
        door.inspect(&format!("/appends/{index}/events"), events)?;
    }
    Ok(AppendRequest { appends, ids_are_new })
}

/// What the headers of an append say besides the precondition.
pub(super) struct Options {
    idempotency_key: Option<String>,
    pub(super) defaults: Defaults,
    pub(super) wants_missed_events: bool,
}

impl Options {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        Ok(Self {
            idempotency_key: idempotency_key(headers)?,
            defaults: Defaults {
                correlation_id: uuid_header(headers, "X-Correlation-Id")?,
                causation_id: uuid_header(headers, "X-Causation-Id")?,
            },
            wants_missed_events: prefers_representation(headers),
        })
    }

    /// Whether [`event_id`](Self::event_id) makes the id of each of these events, out of nothing.
    pub(super) fn ids_are_new<'e>(&self, events: impl IntoIterator<Item = &'e EventIn<'e>>) -> bool {
        self.idempotency_key.is_none() && events.into_iter().all(|event| event.event_id.is_none())
    }

    /// The id of the n-th event of a stream in this request, where the client sent none.
    pub(super) fn event_id(&self, app: &App, stream: &StreamId, index: usize) -> Uuid {
        match &self.idempotency_key {
            // Names have no control characters, so the separator cannot stand in one.
            Some(key) => {
                let name = format!("{}\0{}\0{key}\0{index}", stream.aggregate_type(), stream.aggregate_id());
                Uuid::new_v5(&IDEMPOTENCY_NAMESPACE, name.as_bytes())
            }
            None => app.new_event_id(),
        }
    }
}

/// A structured-field string in quotes, or the bare characters.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Box<Problem>> {
    const NAME: &str = "Idempotency-Key";
    let invalid = |detail: &str| Problem::invalid(FieldError::header(NAME, detail));
    let Some(value) = single_text(headers, NAME)? else { return Ok(None) };
    let key = match value.strip_prefix('"') {
        None if value.contains('"') => return Err(invalid("has a quote inside: quote the whole key")),
        None => value.to_owned(),
        Some(quoted) => {
            let inside =
                quoted.strip_suffix('"').ok_or_else(|| invalid("begins with a quote and does not end with one"))?;
            unescape(inside).ok_or_else(|| invalid("is not a quoted string: escape \\ and \" by \\"))?
        }
    };
    if key.is_empty() || key.chars().count() > IDEMPOTENCY_KEY_CHARS_MAX {
        return Err(invalid(&format!("must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters")));
    }
    Ok(Some(key))
}

fn unescape(quoted: &str) -> Option<String> {
    let mut plain = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '"' => return None,
            '\\' => characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?,
            other => other,
        });
    }
    Some(plain)
}

fn uuid_header(headers: &HeaderMap, name: &'static str) -> Result<Option<Uuid>, Box<Problem>> {
    let Some(value) = single_text(headers, name)? else { return Ok(None) };
    Uuid::try_parse(value).map(Some).map_err(|_| Problem::invalid(FieldError::header(name, "must be a UUID")))
}

fn single_text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Box<Problem>> {
    let Some(value) = single(headers, name)? else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::invalid(FieldError::header(name, "must be visible ASCII")))?;
    Ok(Some(text.trim()))
}

/// `Prefer: return=representation` (RFC 7240); preferences that are not known are ignored, as it says.
fn prefers_representation(headers: &HeaderMap) -> bool {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim().replace('"', "").eq_ignore_ascii_case("return=representation"))
}
