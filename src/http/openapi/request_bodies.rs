//! The schemas of request bodies. The types that parse them borrow from the body, so utoipa cannot derive their
//! schemas.

use utoipa::ToSchema;

/// An event in a request.
#[derive(ToSchema)]
#[schema(as = NewEvent)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of EventIn, for the OpenAPI document")]
pub struct NewEventSchema {
    /// Any UUID. If it is absent, the service makes one. A request with the same ids can be repeated.
    #[schema(format = Uuid)]
    event_id: Option<String>,
    event_type: String,
    /// Any JSON value but null.
    event_data: serde_json::Value,
    /// Data beside the event, for example the client's own time.
    #[schema(value_type = Option<Object>)]
    metadata: Option<String>,
    #[schema(format = Uuid)]
    correlation_id: Option<String>,
    #[schema(format = Uuid)]
    causation_id: Option<String>,
}

/// Events for one stream.
#[derive(ToSchema)]
#[schema(as = StreamAppend)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of StreamAppendIn, for the OpenAPI document")]
pub struct StreamAppendSchema {
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<NewEventSchema>,
}

/// Events for several streams.
#[derive(ToSchema)]
#[schema(as = MultiAppend)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of AppendsIn, for the OpenAPI document")]
pub struct AppendsSchema {
    #[schema(min_items = 1, max_items = 100)]
    appends: Vec<AppendSchema>,
}

/// Events for one of several streams.
#[derive(ToSchema)]
#[schema(as = MultiAppendItem)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of AppendIn, for the OpenAPI document")]
pub struct AppendSchema {
    aggregate_type: String,
    aggregate_id: String,
    #[schema(value_type = Option<serde_json::Value>)]
    expected_version: Option<u64>,
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<NewEventSchema>,
}

/// A snapshot in a request.
#[derive(ToSchema)]
#[schema(as = NewSnapshot)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of SnapshotIn, for the OpenAPI document")]
pub struct NewSnapshotSchema {
    version: u64,
    /// Any JSON value.
    state: serde_json::Value,
    /// The client's name for the code that made the state. Loads can request it.
    #[schema(min_length = 1, max_length = 255)]
    revision: Option<String>,
}

/// A trial of a reducer.
#[derive(ToSchema)]
#[schema(as = ReducerTest)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of TrialIn, for the OpenAPI document")]
pub struct ReducerTestSchema {
    language: String,
    source: Option<String>,
    /// Uses the first 1,000 events of this aggregate. Either this or `events`.
    aggregate_id: Option<String>,
    #[schema(min_items = 1, max_items = 1000)]
    events: Option<Vec<NewEventSchema>>,
    /// The interval as it would be registered. If it is absent, that of the type's reducer.
    #[schema(minimum = 1, maximum = 10000)]
    snapshot_every: Option<u32>,
}
