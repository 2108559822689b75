//! Events as the service returns them.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::cli::client::failure::{Failure, Kind};
use crate::wire::json_error::describe;

/// An event. Its payloads keep the digits of their numbers.
#[derive(Debug, Deserialize)]
pub struct Event<'t> {
    pub event_id: Uuid,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub version: u64,
    pub global_position: u64,
    pub event_type: String,
    #[serde(borrow)]
    pub event_data: &'t RawValue,
    #[serde(borrow)]
    pub metadata: Option<&'t RawValue>,
    pub occurred_at: String,
    pub correlation_id: Option<Uuid>,
    pub causation_id: Option<Uuid>,
}

impl<'t> Event<'t> {
    /// Parses an event.
    pub fn parse(text: &'t str) -> Result<Self, Failure> {
        parse(text.as_bytes())
    }

    /// Returns the place of the event, like `Order/ord-1@3`.
    pub fn place(&self) -> String {
        format!("{}/{}@{}", self.aggregate_type, self.aggregate_id, self.version)
    }
}

/// Parses a response.
pub fn parse<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|error| {
        let fault = describe(&error);
        Failure::new(Kind::Other, format!("this version of the command does not understand the response: {fault}"))
    })
}
