//! Validates events that clients send, over HTTP or by an import.
//!
//! Faults are reported with a JSON Pointer (RFC 6901). A pointer is formatted only for a fault, because most events are
//! valid.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::append::REQUEST_EVENTS_MAX;
use crate::domain::erasure::ERASED_EVENT_TYPE;
use crate::domain::event::{EventId, NewEvent};
use crate::domain::json;
use crate::domain::name::{check_name, check_not_reserved};

/// An event in a request body. Payloads remain the text that was sent. A member that is null counts as absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventIn<'b> {
    #[serde(borrow)]
    pub event_id: Option<Text<'b>>,
    #[serde(borrow)]
    pub event_type: Option<Text<'b>>,
    #[serde(borrow)]
    pub event_data: Option<&'b RawValue>,
    #[serde(borrow)]
    pub metadata: Option<&'b RawValue>,
    #[serde(borrow)]
    pub correlation_id: Option<Text<'b>>,
    #[serde(borrow)]
    pub causation_id: Option<Text<'b>>,
}

/// A string in a body: borrowed, unless it contains an escape.
#[derive(Deserialize)]
pub struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The ids for events that were sent without them.
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultIds {
    pub correlation_id: Option<Uuid>,
    pub causation_id: Option<Uuid>,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    /// A member is missing or has a wrong form.
    #[error("{pointer}: {detail}")]
    Invalid { pointer: String, detail: String },
    /// A document is JSON that Annals cannot store.
    #[error("{pointer}: {reason}")]
    UnsupportedJson { pointer: String, reason: String },
}

impl ValidationError {
    fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { pointer: pointer.into(), detail: detail.into() }
    }
}

/// Validates the events of one request, over all of its streams.
pub struct EventValidator {
    /// The number of bytes that the remaining payloads of the request may have when PostgreSQL prints them.
    printed_bytes_left: usize,
    events_left: usize,
    event_ids: HashSet<Uuid>,
    /// The event type `$erased` is allowed: an export contains such events.
    is_import: bool,
}

impl EventValidator {
    /// Creates the validator of a request whose body may have `body_bytes_max` bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            printed_bytes_left: body_bytes_max.saturating_mul(2),
            events_left: REQUEST_EVENTS_MAX,
            event_ids: HashSet::new(),
            is_import: false,
        }
    }

    /// Creates the validator of a line of an import, whose documents may have `bytes_max` bytes.
    pub fn for_import(bytes_max: usize) -> Self {
        Self { is_import: true, ..Self::new(bytes_max) }
    }

    /// Validates a list of events without their payloads. `pointer` points to the list. `new_id` returns the id of the
    /// n-th event if that event has none.
    ///
    /// Faults in the structure (400) of the whole list are found before faults in the payloads (422).
    pub fn validate(
        &mut self,
        pointer: &str,
        events: &[EventIn<'_>],
        defaults: DefaultIds,
        mut new_id: impl FnMut(usize) -> EventId,
    ) -> Result<Vec<NewEvent>, ValidationError> {
        if events.is_empty() {
            return Err(ValidationError::invalid(pointer, "must have at least one event"));
        }
        if events.len() > self.events_left {
            return Err(ValidationError::invalid(
                pointer,
                format!("a request has at most {REQUEST_EVENTS_MAX} events"),
            ));
        }
        self.events_left -= events.len();
        let validate =
            |(index, event)| self.validate_event(format_args!("{pointer}/{index}"), event, defaults, || new_id(index));
        events.iter().enumerate().map(validate).collect()
    }

    /// Validates one event without its payloads.
    pub fn validate_event(
        &mut self,
        pointer: impl Display,
        event: &EventIn<'_>,
        defaults: DefaultIds,
        new_id: impl FnOnce() -> EventId,
    ) -> Result<NewEvent, ValidationError> {
        let invalid = |member: &str, detail: &str| ValidationError::invalid(format!("{pointer}/{member}"), detail);
        let uuid = |member: &str, text: &Option<Text<'_>>| {
            text.as_deref().map(|text| Uuid::try_parse(text).map_err(|_| invalid(member, "must be a UUID"))).transpose()
        };
        let event_type = event.event_type.as_deref().ok_or_else(|| invalid("event_type", "is required"))?;
        check_name(event_type)
            .and_then(|()| {
                let is_allowed = self.is_import && event_type == ERASED_EVENT_TYPE;
                if is_allowed { Ok(()) } else { check_not_reserved(event_type) }
            })
            .map_err(|fault| invalid("event_type", &fault.to_string()))?;
        let event_data =
            event.event_data.ok_or_else(|| invalid("event_data", "is required: any JSON value but null"))?;
        if event.metadata.is_some_and(|metadata| !metadata.get().starts_with('{')) {
            return Err(invalid("metadata", "must be an object"));
        }
        let event_id = uuid("event_id", &event.event_id)?.map_or_else(new_id, EventId::Given);
        if !self.event_ids.insert(event_id.uuid()) {
            return Err(invalid("event_id", "occurs twice in the request"));
        }
        Ok(NewEvent {
            event_id,
            event_type: event_type.to_owned(),
            event_data: event_data.get().into(),
            metadata: event.metadata.map(|metadata| metadata.get().into()),
            correlation_id: uuid("correlation_id", &event.correlation_id)?.or(defaults.correlation_id),
            causation_id: uuid("causation_id", &event.causation_id)?.or(defaults.causation_id),
        })
    }

    /// Validates the payloads of a list of events, after the whole request was validated without them.
    pub fn validate_payloads(&mut self, pointer: &str, events: &[EventIn<'_>]) -> Result<(), ValidationError> {
        let mut validate = |(index, event)| self.validate_payloads_of(format_args!("{pointer}/{index}"), event);
        events.iter().enumerate().try_for_each(&mut validate)
    }

    /// Validates the payloads of one event.
    pub fn validate_payloads_of(&mut self, pointer: impl Display, event: &EventIn<'_>) -> Result<(), ValidationError> {
        for (member, payload) in [("event_data", event.event_data), ("metadata", event.metadata)] {
            let Some(payload) = payload else { continue };
            self.validate_document(format_args!("{pointer}/{member}"), payload)?;
        }
        Ok(())
    }

    /// Validates one document.
    pub fn validate_document(&mut self, pointer: impl Display, document: &RawValue) -> Result<(), ValidationError> {
        let inspected = json::inspect(document).map_err(|fault| ValidationError::UnsupportedJson {
            pointer: format!("{pointer}{}", fault.pointer),
            reason: fault.reason.to_string(),
        })?;
        self.printed_bytes_left = self.printed_bytes_left.checked_sub(inspected.printed_bytes).ok_or_else(|| {
            let reason =
                "the documents exceed twice the body limit as PostgreSQL prints them: send less in one request";
            ValidationError::UnsupportedJson { pointer: pointer.to_string(), reason: reason.to_owned() }
        })?;
        Ok(())
    }
}
