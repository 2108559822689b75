//! The request of a read of the log.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};

use crate::domain::cursor::{Cursor, ParseCursorError};
use crate::domain::filter::EventFilter;
use crate::domain::name::{NameFault, check_name, check_path_name};
use crate::domain::partition::{ParsePartitionError, PartitionOf};
use crate::http::base_path::link;
use crate::http::extract::last_event_id::take_last_event_id;
use crate::http::extract::min_position::take_min_position;
use crate::http::extract::query::{Query, round_up_to_micros};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::representation::format::{Representation, WAIT_SECONDS_MAX};
use crate::wire::correlation::id_from_text;
use crate::wire::time::format_time;

/// The largest number of values of one filter.
const VALUES_MAX: usize = 100;

/// A read of the log. It is extracted as a whole, because the representation decides which parameters are valid.
pub struct LogReadRequest {
    pub representation: Representation,
    pub start: Start,
    pub limit: Option<usize>,
    /// The seconds for which an empty page is held.
    pub wait: Option<u64>,
    pub filter: EventFilter,
    pub min_position: Option<Cursor>,
}

/// The direction of a read, and where it begins.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    Forward(After),
    /// Backward, from before this cursor; `None`: from the head.
    Backward(Option<Cursor>),
}

/// Where a read in order begins.
#[derive(Debug, Clone, Copy)]
pub enum After {
    /// At the head: only new events are read.
    Head,
    Cursor(Cursor),
}

impl<S: Send + Sync> FromRequestParts<S> for LogReadRequest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let representation = Representation::from_headers(&parts.headers)?;
        let mut query = Query::parse(&parts.uri)?;
        let is_backward = take_is_backward(&mut query, representation)?;
        let before = take_before(&mut query, is_backward)?;
        if is_backward {
            let why = "must not be sent together with direction=backward, which begins at before";
            query.refuse(&["after", "wait"], why)?;
        }
        let mut after = take_after(&mut query)?;
        if representation == Representation::EventStream
            && let Some(last_event) = last_event(&parts.headers, &mut query)?
        {
            after = After::Cursor(last_event);
        }
        let limit = representation.take_limit(&mut query)?;
        if matches!(representation, Representation::EventStream | Representation::Lines) {
            let why = "is only supported for pages: an event stream waits by itself, and NDJSON ends at the head";
            query.refuse(&["wait"], why)?;
        }
        let wait = query.take_number("wait", 0, WAIT_SECONDS_MAX)?;
        let filter = take_filter(&mut query)?;
        let min_position = take_min_position(&mut query)?;
        query.finish()?;
        let start = if is_backward { Start::Backward(before) } else { Start::Forward(after) };
        Ok(Self { representation, start, limit, wait, filter, min_position })
    }
}

impl LogReadRequest {
    /// Returns the link to the events after a cursor, or before it if the read goes backward, with the same parameters.
    pub fn link_to(&self, cursor: Cursor) -> String {
        let filter = &self.filter;
        let mut parameters = match self.start {
            Start::Forward(_) => vec![("after", cursor.to_string())],
            Start::Backward(_) => vec![("direction", "backward".to_owned()), ("before", cursor.to_string())],
        };
        parameters.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        parameters.extend(self.wait.map(|wait| ("wait", wait.to_string())));
        parameters.extend(filter.aggregate_types.iter().map(|name| ("aggregate_type", name.clone())));
        parameters.extend(filter.aggregate_ids.iter().map(|name| ("aggregate_id", name.clone())));
        parameters.extend(filter.event_types.iter().map(|name| ("event_type", name.clone())));
        parameters.extend(filter.correlation_ids.iter().map(|id| ("correlation_id", id.to_string())));
        parameters.extend(filter.occurred_from.map(|time| ("occurred_from", format_time(time))));
        parameters.extend(filter.occurred_to.map(|time| ("occurred_to", format_time(time))));
        parameters.extend(filter.partition.map(|partition| ("partition", partition.to_string())));
        link("/events", &parameters)
    }
}

/// Takes the direction. Returns whether it is backward.
fn take_is_backward(query: &mut Query, representation: Representation) -> ApiResult<bool> {
    match query.take("direction")?.as_deref() {
        None | Some("forward") => Ok(false),
        Some("backward") if representation == Representation::Page => Ok(true),
        Some("backward") => Err(invalid("direction", "must be forward: only pages of JSON go backward")),
        Some(_) => Err(invalid("direction", "must be forward or backward")),
    }
}

fn take_before(query: &mut Query, is_backward: bool) -> ApiResult<Option<Cursor>> {
    let Some(cursor) = query.take("before")? else { return Ok(None) };
    if !is_backward {
        return Err(invalid("before", "requires direction=backward"));
    }
    cursor.parse().map(Some).map_err(|fault: ParseCursorError| invalid("before", fault.to_string()))
}

fn take_after(query: &mut Query) -> ApiResult<After> {
    match query.take("after")?.as_deref() {
        None => Ok(After::Cursor(Cursor { epoch: None, position: 0 })),
        Some("head") => Ok(After::Head),
        Some(cursor) => {
            cursor.parse().map(After::Cursor).map_err(|fault| invalid("after", format!("{fault}, or head")))
        }
    }
}

/// Returns the cursor after which an event stream resumes.
fn last_event(headers: &HeaderMap, query: &mut Query) -> ApiResult<Option<Cursor>> {
    let Some(last_event_id) = take_last_event_id(headers, query)? else { return Ok(None) };
    let cursor = last_event_id.text.parse();
    cursor.map(Some).map_err(|_| last_event_id.invalid("must be an epoch and a position, like 1:1042"))
}

fn take_filter(query: &mut Query) -> ApiResult<EventFilter> {
    let filter = EventFilter {
        aggregate_types: take_names(query, "aggregate_type", check_path_name)?,
        aggregate_ids: take_names(query, "aggregate_id", check_path_name)?,
        event_types: take_names(query, "event_type", check_name)?,
        correlation_ids: take_values(query, "correlation_id", |id| Ok(id_from_text(id.as_bytes())))?,
        occurred_from: take_time(query, "occurred_from")?,
        occurred_to: take_time(query, "occurred_to")?,
        partition: query.take("partition")?.map(|text| parse_partition(&text)).transpose()?,
        readable: None,
    };
    if !filter.aggregate_ids.is_empty() && filter.aggregate_types.len() != 1 {
        return Err(invalid("aggregate_id", "requires exactly one aggregate_type"));
    }
    if let (Some(from), Some(to)) = (filter.occurred_from, filter.occurred_to)
        && from > to
    {
        return Err(invalid("occurred_from", "must not be later than occurred_to"));
    }
    Ok(filter)
}

fn parse_partition(text: &str) -> ApiResult<PartitionOf> {
    text.parse().map_err(|fault: ParsePartitionError| invalid("partition", fault.to_string()))
}

fn take_names(
    query: &mut Query,
    name: &'static str,
    check: fn(&str) -> Result<(), NameFault>,
) -> ApiResult<Vec<String>> {
    take_values(query, name, |value| check(value).map(|()| value.to_owned()).map_err(|fault| fault.to_string()))
}

/// Takes the values of a parameter that may be repeated. Equal values are taken once.
fn take_values<T: PartialEq>(
    query: &mut Query,
    name: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> ApiResult<Vec<T>> {
    let mut values = Vec::new();
    for text in query.take_all(name)? {
        let value = parse(&text).map_err(|detail| invalid(name, detail))?;
        if !values.contains(&value) {
            values.push(value);
        }
    }
    if values.len() > VALUES_MAX {
        return Err(invalid(name, format!("is given more than {VALUES_MAX} times")));
    }
    Ok(values)
}

fn take_time(query: &mut Query, name: &'static str) -> ApiResult<Option<DateTime<Utc>>> {
    Ok(query.take_time(name)?.map(round_up_to_micros))
}

fn invalid(parameter: &'static str, detail: impl Into<String>) -> ApiError {
    ApiError::invalid(FieldError::parameter(parameter, detail))
}
