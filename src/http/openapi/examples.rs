//! Examples of request bodies and of paths. They can be sent twice: no example has an id or an expected version.

use serde_json::{Value, json};
use utoipa::openapi::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Schema;

use crate::http::media_type::JSON;
use crate::http::openapi::operations::operations;

/// Returns the example of an operation's request body.
fn body_of(operation: &str) -> Option<Value> {
    let events = json!([{"event_type": "OrderPlaced", "event_data": {"total": 42}}]);
    Some(match operation {
        "append_to_stream" => json!({"events": events}),
        "append_to_streams" => json!({"appends": [
            {"aggregate_type": "Order", "aggregate_id": "ord-1", "events": events},
            {"aggregate_type": "Customer", "aggregate_id": "cus-1",
                "events": [{"event_type": "OrderCounted", "event_data": {"order": "ord-1"}}]},
        ]}),
        "put_snapshot" => json!({"version": 1, "state": {"total": 42}}),
        "set_projection" => json!({"last_processed_position": 1}),
        "put_group" => json!({"filter": {"aggregate_type": ["Order"]}}),
        "create_claim" => json!({"worker": "mailer-1"}),
        "acknowledge_claim" => json!({"last_processed_position": 1}),
        "move_parked_stream" => json!({"last_processed_position": 1}),
        "retry_parked_streams" => json!({}),
        "erase_events" => json!({"reason": "Art. 17, ticket 4711",
            "streams": [{"aggregate_type": "Order", "aggregate_id": "ord-1"}], "members": ["/event_data/name"]}),
        "put_reducer" => json!({"language": "merge-patch"}),
        "test_reducer" => json!({"language": "merge-patch", "events": events}),
        _ => return None,
    })
}

/// Returns the example of a segment of a path.
fn segment_of(name: &str) -> Option<&'static str> {
    match name {
        "aggregate_type" => Some("Order"),
        "aggregate_id" => Some("ord-1"),
        "projection_name" => Some("order-totals"),
        "group_name" => Some("mailer"),
        "erasure" => Some("1"),
        "claim_id" => Some("1.7.1042"),
        "code" => Some("version_conflict"),
        _ => None,
    }
}

/// Adds the examples.
pub fn add_examples(document: &mut OpenApi) {
    let components = document.components.as_mut().expect("the document has schemas");
    if let Some(RefOr::T(Schema::Object(event))) = components.schemas.get_mut("NewEvent")
        && let Some(RefOr::T(Schema::Object(event_data))) = event.properties.get_mut("event_data")
    {
        event_data.example = Some(json!({"total": 42}));
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let example = operation.operation_id.as_deref().and_then(body_of);
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && let Some(RefOr::T(content)) = body.content.get_mut(JSON)
            {
                content.example = example;
            }
            for parameter in operation.parameters.iter_mut().flatten() {
                let RefOr::T(parameter) = parameter else { continue };
                if parameter.parameter_in == ParameterIn::Path {
                    let example = segment_of(&parameter.name).map(Value::from);
                    *parameter = ParameterBuilder::from(parameter.clone()).example(example).build();
                }
            }
        }
    }
}
