//! The schemas of problems by code, and the responses that have them.
//!
//! A code whose problems have members of their own has a schema. A generated client can then read these members without
//! parsing the detail.

use serde_json::{Map, Value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{OneOfBuilder, Schema};
use utoipa::openapi::{OpenApi, Ref, RefOr};

use crate::http::media_type::PROBLEM_JSON;
use crate::http::openapi::operations::operations;
use crate::http::problem::code::Code;

/// The schema of problems without members of their own.
const PROBLEM: &str = "Problem";

/// A schema: its name, its description, its codes, and the members that it adds.
type ProblemSchema = (&'static str, &'static str, &'static [Code], Value);

fn schemas() -> Vec<ProblemSchema> {
    let version = || json!({"type": "integer", "format": "int64", "minimum": 0});
    let position = version;
    let expected = || {
        json!({"description": "The expected version as the request wrote it; null for none",
            "oneOf": [{"type": "integer", "format": "int64", "minimum": 0},
                {"type": "string", "enum": ["none", "exists"]}, {"type": "null"}]})
    };
    let known = || {
        json!({"known_event_ids": {"type": "array", "items": {"type": "string", "format": "uuid"},
            "description": "The ids of the request that were written before"}})
    };
    vec![
        (
            "InvalidRequest",
            "The request is not valid",
            &[Code::InvalidRequest],
            json!({"errors?": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"},
                "description": "The faults with their places"}}),
        ),
        (
            "VersionConflict",
            "The stream is at another version",
            &[Code::VersionConflict],
            json!({"expected_version": expected(), "current_version": version(),
                "missed_events?": {"type": "array", "items": {"$ref": "#/components/schemas/Event"},
                    "description": "With `Prefer: return=representation`: the events after the expected version"},
                "missed_events_truncated?": {"type": "boolean", "description": "There are more missed events"}}),
        ),
        (
            "VersionConflicts",
            "Streams of the request are at other versions",
            &[Code::VersionConflict],
            json!({"conflicts": {"type": "array", "items": {"$ref": "#/components/schemas/StreamConflict"}}}),
        ),
        ("EventIdReused", "An event id belongs to a different event", &[Code::EventIdReused], known()),
        (
            "EventPartlyKnown",
            "Some events were written before, but not as in this request",
            &[Code::EventPartlyKnown],
            known(),
        ),
        (
            "EpochChanged",
            "The cursor is no longer part of the log",
            &[Code::EpochChanged],
            json!({"rewind_to": position(), "epoch?": version()}),
        ),
        (
            "InvalidEventData",
            "A document contains JSON that cannot be stored",
            &[Code::InvalidEventData],
            json!({"pointer": {"type": "string", "description": "JSON pointer into the body"}}),
        ),
        (
            "InvalidReducer",
            "The source of a reducer cannot be used",
            &[Code::InvalidReducer],
            json!({"line": version(), "column": version()}),
        ),
        (
            "ReducerFailed",
            "The reducer failed for an event",
            &[Code::ReducerFailed],
            json!({"version": version(), "global_position": position()}),
        ),
        (
            "VersionBeyondHead",
            "The stream does not have the version",
            &[Code::VersionBeyondHead],
            json!({"current_version": version()}),
        ),
        (
            "PositionBeyondHead",
            "The log does not have the position",
            &[Code::PositionBeyondHead],
            json!({"head": position()}),
        ),
        (
            "PositionRegressed",
            "The position is before the current one",
            &[Code::PositionRegressed],
            json!({"current_position": position()}),
        ),
        (
            "PositionConflict",
            "The projection is at another position",
            &[Code::PositionConflict],
            json!({"current_position": {"type": ["integer", "null"], "format": "int64", "minimum": 0,
                "description": "null: the projection does not exist"}}),
        ),
        (
            "SnapshotStale",
            "A snapshot of a later version is stored",
            &[Code::SnapshotStale],
            json!({"snapshot_version": {"type": ["integer", "null"], "format": "int64", "minimum": 0}}),
        ),
        ("GroupDiffers", "The group is another one", &[Code::GroupDiffers], json!({"filter?": {"type": "object"}})),
        ("ClaimsOpen", "Claims of the group are open", &[Code::ClaimsOpen], json!({})),
        (
            "ClaimLost",
            "The claim has ended",
            &[Code::ClaimLost],
            json!({"last_processed_position": {"type": ["integer", "null"], "format": "int64", "minimum": 0,
                    "description": "The position of the partition"},
                "claimed_by": {"type": ["string", "null"], "description": "The worker that has the partition now"}}),
        ),
        ("TooManyParked", "Too many streams are parked", &[Code::TooManyParked], json!({})),
        ("MovedByGroup", "A consumer group moves the projection", &[Code::MovedByGroup], json!({})),
        (
            "PositionBeyondClaim",
            "The position is beyond the claim",
            &[Code::PositionBeyondClaim],
            json!({"last_position": position()}),
        ),
        (
            "ErasureTooLarge",
            "The request names too many events",
            &[Code::ErasureTooLarge],
            json!({"events": version(), "limit": version()}),
        ),
        ("ReducerExists", "The type has a reducer", &[Code::ReducerExists], json!({})),
        ("NoReducer", "The type has no reducer", &[Code::NoReducer], json!({})),
        ("PayloadTooLarge", "The body is too large", &[Code::PayloadTooLarge], json!({"max_bytes": version()})),
        (
            "ProjectionBehind",
            "The projection did not process the position in time",
            &[Code::ProjectionBehind],
            json!({"last_processed_position": position(), "lag": position()}),
        ),
        (
            "ReplicaBehind",
            "The database that serves the request does not have the position yet",
            &[Code::ReplicaBehind],
            json!({"head": position()}),
        ),
        (
            "Unavailable",
            "The request cannot be served at this time",
            &[
                Code::Overloaded,
                Code::DatabaseUnavailable,
                Code::OutcomeUnknown,
                Code::ClockSkew,
                Code::TooManySubscribers,
                Code::ShuttingDown,
            ],
            json!({}),
        ),
    ]
}

/// Returns the schemas that a response of an operation may have.
fn schemas_of(operation: &str, status: &str) -> &'static [&'static str] {
    match (operation, status) {
        (_, "400") => &["InvalidRequest"],
        ("append_to_stream", "409") => &["EventIdReused", "EventPartlyKnown"],
        ("append_to_stream", "412") => &["VersionConflict"],
        ("append_to_streams", "409") => &["EventIdReused", "EventPartlyKnown", "VersionConflicts"],
        ("append_to_stream" | "append_to_streams", "422") => &["InvalidEventData"],
        ("read_log" | "read_stream" | "load_aggregate", "409") => &["EpochChanged"],
        ("read_state" | "read_states", "409") => &["NoReducer", "EpochChanged"],
        ("read_log" | "set_projection" | "read_projection" | "put_group", "422") => &["PositionBeyondHead"],
        ("set_projection", "409") => &["PositionRegressed", "MovedByGroup"],
        ("delete_projection", "409") => &["MovedByGroup"],
        ("put_group", "409") => &["GroupDiffers", "ClaimsOpen"],
        ("put_group", "412") => &["VersionConflict"],
        ("acknowledge_claim", "409") => &["ClaimLost", "PositionRegressed", "TooManyParked", "EpochChanged"],
        ("acknowledge_claim" | "move_parked_stream", "422") => &["PositionBeyondClaim"],
        ("move_parked_stream", "409") => &["PositionRegressed"],
        ("set_projection" | "move_parked_stream", "412") => &["PositionConflict"],
        ("read_projection", "504") => &["ProjectionBehind"],
        ("erase_events", "422") => &["ErasureTooLarge"],
        ("put_snapshot", "409") => &["SnapshotStale", "ReducerExists"],
        ("put_snapshot", "422") => &["InvalidEventData", "VersionBeyondHead"],
        ("put_reducer", "422") => &["InvalidReducer"],
        ("test_reducer", "422") => &["InvalidReducer", "ReducerFailed", "InvalidEventData"],
        ("read_state" | "read_states", "422") => &["ReducerFailed"],
        ("read_log" | "read_stream" | "load_aggregate" | "read_state" | "read_states", "503") => {
            &["Unavailable", "ReplicaBehind"]
        }
        (_, "503") => &["Unavailable"],
        (_, "413") => &["PayloadTooLarge"],
        _ => &[PROBLEM],
    }
}

/// Adds the schemas, and refers to them from the responses.
pub fn add_problem_schemas(document: &mut OpenApi) {
    let components = document.components.as_mut().expect("the document has schemas");
    components.schemas.insert(PROBLEM.to_owned(), schema("An error without members of its own", Code::ALL, &json!({})));
    components.schemas.insert("StreamConflict".to_owned(), stream_conflict());
    for (name, description, codes, members) in schemas() {
        components.schemas.insert(name.to_owned(), schema(description, codes, &members));
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            refer(operation);
        }
    }
}

fn refer(operation: &mut Operation) {
    let id = operation.operation_id.clone().unwrap_or_default();
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let Some(RefOr::T(content)) = response.content.get_mut(PROBLEM_JSON) else { continue };
        content.schema = Some(match schemas_of(&id, status) {
            [only] => Ref::from_schema_name(*only).into(),
            several => {
                let one_of =
                    several.iter().fold(OneOfBuilder::new(), |one_of, name| one_of.item(Ref::from_schema_name(*name)));
                RefOr::T(Schema::OneOf(one_of.build()))
            }
        });
    }
}

/// Returns the schema of problems with these codes. A member whose name ends with `?` is optional.
fn schema(description: &str, codes: &[Code], members: &Value) -> RefOr<Schema> {
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let mut properties = json!({
        "type": {"type": "string", "description": "`/problems/<code>`: the page that explains the code"},
        "title": {"type": "string"},
        "status": {"type": "integer", "format": "int64", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What is wrong with this request"},
        "instance": {"type": "string", "description": "The id of the request. The log of the service has the same id"},
        "code": {"type": "string", "enum": names, "description": "Stable, and one of a closed list"},
    });
    let properties = properties.as_object_mut().expect("an object");
    let mut required: Vec<String> = properties.keys().cloned().collect();
    for (name, member) in members.as_object().unwrap_or(&Map::new()) {
        let optional = name.strip_suffix('?');
        properties.insert(optional.unwrap_or(name).to_owned(), member.clone());
        if optional.is_none() {
            required.push(name.clone());
        }
    }
    let schema = json!({"type": "object", "description": description, "required": required, "properties": properties});
    serde_json::from_value(schema).expect("a schema")
}

fn stream_conflict() -> RefOr<Schema> {
    let schema = json!({
        "type": "object",
        "description": "A stream that is at another version than the request expects",
        "required": ["aggregate_type", "aggregate_id", "expected_version", "current_version"],
        "properties": {
            "aggregate_type": {"type": "string"},
            "aggregate_id": {"type": "string"},
            "expected_version": {"oneOf": [{"type": "integer", "format": "int64", "minimum": 0},
                {"type": "string", "enum": ["none", "exists"]}]},
            "current_version": {"type": "integer", "format": "int64", "minimum": 0},
        },
    });
    serde_json::from_value(schema).expect("a schema")
}
