//! Events as clients send them: checked, given an id, and made ready for the log.
//!
//! Where a fault is, is written down only once there is one: most events have none.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::problem::{Code, FieldError, Problem};
use crate::domain::append::REQUEST_EVENTS_MAX;
use crate::domain::event::NewEvent;
use crate::domain::json;
use crate::domain::name::check_name;

type Fallible<T> = Result<T, Box<Problem>>;

/// An event in a request body. Payloads stay the text that was sent; null counts as absent.
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

/// A string in a body: borrowed, unless something in it is escaped.
#[derive(Deserialize)]
pub struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// What a request gives to events that do not say it themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Defaults {
    pub correlation_id: Option<Uuid>,
    pub causation_id: Option<Uuid>,
}

/// Checks the events of one request, over all of its streams.
pub struct Door {
    /// Bytes that the payloads of the request may still take up when PostgreSQL prints them.
    printed_left: usize,
    events_left: usize,
    seen: std::collections::HashSet<Uuid>,
}

impl Door {
    /// For a request whose body may have `body_bytes_max` bytes.
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            printed_left: body_bytes_max.saturating_mul(2),
            events_left: REQUEST_EVENTS_MAX,
            seen: std::collections::HashSet::new(),
        }
    }

    /// Lets a list of events in. `at` is the pointer to the list, `new_id` makes the id of the n-th event without one.
    ///
    /// What is not understood (400) is found in the whole list before what cannot be kept (422) is looked for.
    pub fn let_in(
        &mut self,
        at: &str,
        events: &[EventIn<'_>],
        defaults: Defaults,
        mut new_id: impl FnMut(usize) -> Uuid,
    ) -> Fallible<Vec<NewEvent>> {
        if events.is_empty() {
            return Err(invalid(at, "must have at least one event"));
        }
        if events.len() > self.events_left {
            return Err(invalid(at, &format!("a request has at most {REQUEST_EVENTS_MAX} events")));
        }
        self.events_left -= events.len();
        let let_in = |(index, event)| self.let_in_one(format_args!("{at}/{index}"), event, defaults, || new_id(index));
        events.iter().enumerate().map(let_in).collect()
    }

    /// Lets one event in, without a look into its payloads. `at` is the pointer to it.
    pub fn let_in_one(
        &mut self,
        at: impl Display,
        event: &EventIn<'_>,
        defaults: Defaults,
        new_id: impl FnOnce() -> Uuid,
    ) -> Fallible<NewEvent> {
        let wrong = |member: &str, detail: &str| invalid(&format!("{at}/{member}"), detail);
        let uuid = |member: &str, text: &Option<Text<'_>>| {
            text.as_deref().map(|text| Uuid::try_parse(text).map_err(|_| wrong(member, "must be a UUID"))).transpose()
        };
        let event_type = event.event_type.as_deref().ok_or_else(|| wrong("event_type", "is required"))?;
        check_name(event_type).map_err(|fault| wrong("event_type", &fault.to_string()))?;
        let event_data = event.event_data.ok_or_else(|| wrong("event_data", "is required: any JSON value but null"))?;
        if event.metadata.is_some_and(|metadata| !metadata.get().starts_with('{')) {
            return Err(wrong("metadata", "must be an object"));
        }
        let event_id = uuid("event_id", &event.event_id)?.unwrap_or_else(new_id);
        if !self.seen.insert(event_id) {
            return Err(wrong("event_id", "stands twice in the request"));
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

    /// Looks into the payloads, once the whole request is understood.
    pub fn inspect(&mut self, at: &str, events: &[EventIn<'_>]) -> Fallible<()> {
        let mut inspect = |(index, event)| self.inspect_one(format_args!("{at}/{index}"), event);
        events.iter().enumerate().try_for_each(&mut inspect)
    }

    /// Looks into the payloads of one event.
    pub fn inspect_one(&mut self, at: impl Display, event: &EventIn<'_>) -> Fallible<()> {
        for (name, payload) in [("event_data", event.event_data), ("metadata", event.metadata)] {
            let Some(payload) = payload else { continue };
            self.inspect_document(format_args!("{at}/{name}"), payload)?;
        }
        Ok(())
    }

    /// Looks into one document; `at` is the pointer to it.
    pub fn inspect_document(&mut self, at: impl Display, document: &RawValue) -> Fallible<()> {
        let inspected = json::inspect(document)
            .map_err(|fault| cannot_keep(&format!("{at}{}", fault.pointer), &fault.reason.to_string()))?;
        self.printed_left = self.printed_left.checked_sub(inspected.printed_bytes).ok_or_else(|| {
            let detail = "the request's documents print larger than twice the largest body: send less at once";
            cannot_keep(&at.to_string(), detail)
        })?;
        Ok(())
    }
}

fn invalid(pointer: &str, detail: &str) -> Box<Problem> {
    Problem::invalid(FieldError::pointer(pointer, detail))
}

fn cannot_keep(pointer: &str, reason: &str) -> Box<Problem> {
    Problem::new(Code::InvalidEventData, format!("{pointer}: {reason}")).with("pointer", pointer)
}
