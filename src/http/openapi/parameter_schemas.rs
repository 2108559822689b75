//! The values that a parameter may have, by its name: a name has the same meaning on every route.

use serde_json::{Value, json};
use utoipa::openapi::path::ParameterIn;
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::{OpenApi, RefOr};

use crate::domain::erasure::{ERASED_MEMBERS_MAX, REASON_CHARS_MAX};
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::http::openapi::responses::{FORBIDDEN, QUOTA_EXCEEDED, UNAUTHENTICATED, problems};

/// A name: 1 to 255 characters, no control characters, no white space at its ends. Like all patterns here, it has no
/// look-ahead: RE2 and Rust cannot compile one.
const NAME: &str = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$";
/// The name of an event type: a name that does not begin with `$`, which is reserved for types of Annals itself.
const EVENT_TYPE: &str = r"^[^$\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$";
/// A name as a segment of a path: without `/`, and neither `.` nor `..`. It begins with another character than `.`; or
/// with one `.` and another character; or with two and at least one more character.
const SEGMENT: &str = concat!(
    r"^([^\s\x00-\x1f\x7f-\x9f/.]([^\x00-\x1f\x7f-\x9f/]*[^\s\x00-\x1f\x7f-\x9f/])?",
    r"|\.[^\s\x00-\x1f\x7f-\x9f/.]|\.[^\x00-\x1f\x7f-\x9f/.][^\x00-\x1f\x7f-\x9f/]*[^\s\x00-\x1f\x7f-\x9f/]",
    r"|\.\.[^\x00-\x1f\x7f-\x9f/]*[^\s\x00-\x1f\x7f-\x9f/])$"
);
const CURSOR: &str = r"^(head|([1-9][0-9]{0,8}:)?(0|[1-9][0-9]{0,14}))$";
const POSITION_CURSOR: &str = r"^([1-9][0-9]{0,8}:)?(0|[1-9][0-9]{0,14})$";
/// A version or a position in quotes. A proxy that compresses responses may have added the name of the coding.
const TAG: &str = r#"(W/)?"(0|[1-9][0-9]{0,15})((-|--|;)(gzip|x-gzip|br|zstd|deflate|compress))?""#;
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#;
/// An `Idempotency-Key`, with or without quotes.
const KEY: &str = r#"^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-~]([ !#-~]{0,253}[!#-~])?)$"#;
/// `epoch.partition.number`
const CLAIM_ID: &str = r"^[1-9][0-9]{0,8}\.(0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])\.[1-9][0-9]{0,14}$";
/// `i/n`: a partition and the number of partitions, a power of two.
const PARTITION: &str = concat!(
    r"^(0/1|[01]/2|[0-3]/4|[0-7]/8|([0-9]|1[0-5])/16|([0-9]|[12][0-9]|3[01])/32|([0-9]|[1-5][0-9]|6[0-3])/64",
    r"|([0-9]|[1-9][0-9]|1[01][0-9]|12[0-7])/128|([0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])/256)$"
);
/// A JSON Pointer to a member below `event_data` or `metadata`. No member has a NUL.
const MEMBER: &str = r"^/(event_data|metadata)(/([^/~\x00]|~[01])*)+$";
/// Why an event has failed: not only white space, no NUL.
const REASON: &str = r"^[^\x00]*[^\s\x00][^\x00]*$";
/// The largest number of values of one filter.
const VALUES_MAX: usize = 100;

/// Adds the values that each parameter and member may have, and the problems of authorization to each route that has
/// them.
pub fn add_parameter_schemas(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations = [(true, &mut item.get), (true, &mut item.head)].into_iter();
        let operations =
            operations.chain([&mut item.put, &mut item.post, &mut item.delete].map(|write| (false, write)));
        for (is_read, operation) in operations {
            let Some(operation) = operation else { continue };
            for parameter in operation.parameters.iter_mut().flatten() {
                let RefOr::T(parameter) = parameter else { continue };
                let place = Place { path, is_read, is_list: is_array(parameter.schema.as_ref()) };
                parameter.schema = match schema_of(&parameter.name, &parameter.parameter_in, &place) {
                    Some(known) => Some(schema(known)),
                    None => parameter.schema.take().map(bounded),
                };
            }
            if operation.responses.responses.contains_key("503") && !path.ends_with("/readyz") {
                for (status, response) in problems(&[UNAUTHENTICATED, FORBIDDEN, QUOTA_EXCEEDED]) {
                    operation.responses.responses.entry(status).or_insert(response);
                }
            }
        }
    }
    let schemas = &mut document.components.as_mut().expect("the document has schemas").schemas;
    for (object, member, value) in member_schemas() {
        let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(object) else {
            unreachable!("{object} is an object")
        };
        *object.properties.get_mut(member).expect("the object has this member") = schema(value);
    }
}

/// Returns the schemas of members of request bodies: the object, the member, and what its value may be.
fn member_schemas() -> [(&'static str, &'static str, Value); 26] {
    [
        (
            "NewEvent",
            "event_type",
            json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": EVENT_TYPE, "example": "OrderPlaced"}),
        ),
        ("MultiAppendItem", "aggregate_type", name(SEGMENT)),
        ("MultiAppendItem", "aggregate_id", name(SEGMENT)),
        (
            "MultiAppendItem",
            "expected_version",
            json!({"description": "A version (0: no event yet), `none` or `exists`. No precondition if it is absent.",
            "oneOf": [{"type": "integer", "format": "int64", "minimum": 0},
                {"type": "string", "enum": ["none", "exists"]}]}),
        ),
        (
            "NewSnapshot",
            "version",
            json!({"type": "integer", "format": "int64", "minimum": 1, "maximum": i32::MAX,
            "description": "The version of the stream whose state this is."}),
        ),
        (
            "NewSnapshot",
            "revision",
            nullable_name(NAME, "The client's name for the code that made the state. Loads can request it."),
        ),
        ("NewReducer", "language", language()),
        ("GroupFilter", "aggregate_type", names(name(SEGMENT))),
        (
            "GroupFilter",
            "aggregate_id",
            json!({"type": "array", "maxItems": VALUES_MAX, "items": name(SEGMENT),
            "description": "Requires exactly one `aggregate_type`."}),
        ),
        ("GroupFilter", "event_type", names(name(NAME))),
        (
            "GroupFilter",
            "correlation_id",
            json!({"type": "array", "maxItems": VALUES_MAX, "items": {"type": "string", "minLength": 1},
            "description": "UUIDs, or the texts that were sent in `X-Correlation-Id`."}),
        ),
        (
            "NewGroup",
            "last_processed_position",
            json!({"description": "The position after which the group begins. Default 0. Only for a new group, or with `reset`.",
            "oneOf": [{"type": "integer", "format": "int64", "minimum": 0, "maximum": EXACT_INTEGER_MAX},
                {"type": "string", "enum": ["head"]}, {"type": "null"}]}),
        ),
        (
            "NewGroup",
            "partitions",
            json!({"type": ["integer", "null"], "format": "int64", "enum": [null, 1, 2, 4, 8, 16, 32, 64, 128, 256],
            "description": "Default 16. The number can be doubled, and never decreases."}),
        ),
        ("NewClaim", "worker", nullable_name(NAME, "The name of the worker, which the group shows beside the claim.")),
        (
            "Failure",
            "reason",
            json!({"type": "string", "minLength": 1, "maxLength": 1000, "pattern": REASON,
            "description": "1 to 1000 characters, not only white space."}),
        ),
        ("NewRetry", "aggregate_type", nullable_name(SEGMENT, "Only streams of this type.")),
        ("NewRetry", "event_type", nullable_name(NAME, "The type of the event that failed.")),
        (
            "NewRetry",
            "reason",
            json!({"type": ["string", "null"], "minLength": 1, "pattern": r"^[^\x00]*$", "description": "The exact reason."}),
        ),
        (
            "ReducerTest",
            "aggregate_id",
            nullable_name(SEGMENT, "Uses the first 1,000 events of this aggregate. Either this or `events`."),
        ),
        ("ReducerTest", "language", language()),
        (
            "NewErasure",
            "reason",
            json!({"type": "string", "minLength": 1, "maxLength": REASON_CHARS_MAX, "pattern": r"^[^\x00]*$",
            "description": "For operators, like the number of a ticket. It is stored in the table of erasures only."}),
        ),
        (
            "NewErasure",
            "members",
            json!({"type": ["array", "null"], "minItems": 1, "maxItems": ERASED_MEMBERS_MAX,
            "items": {"type": "string", "pattern": MEMBER}, "example": ["/event_data/name", "/metadata/ip"],
            "description": "JSON Pointers (RFC 6901) to members below `/event_data` or `/metadata`. Absent: all of both."}),
        ),
        ("StreamToErase", "aggregate_type", name(SEGMENT)),
        ("StreamToErase", "aggregate_id", name(SEGMENT)),
        ("StreamToErase", "from_version", nullable_version("The first version to erase, default 1.")),
        ("StreamToErase", "to_version", nullable_version("The last version to erase, default the head of the stream.")),
    ]
}

fn nullable_version(description: &str) -> Value {
    json!({"type": ["integer", "null"], "format": "int64", "minimum": 1, "maximum": EXACT_INTEGER_MAX,
        "description": description})
}

/// The place of a parameter.
struct Place<'p> {
    path: &'p str,
    is_read: bool,
    is_list: bool,
}

/// Returns what the values of a parameter may be; `None`: numbers within the bounds that its route states.
fn schema_of(parameter: &str, parameter_in: &ParameterIn, place: &Place<'_>) -> Option<Value> {
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let time = || json!({"type": "string", "format": "date-time"});
    let value = match (parameter, parameter_in) {
        ("projection_name" | "group_name", ParameterIn::Path) => name(SEGMENT),
        ("claim_id", _) => text(CLAIM_ID),
        ("aggregate_type" | "aggregate_id", _) => name(SEGMENT),
        ("event_type" | "revision", _) => name(NAME),
        ("correlation_id", _) => json!({"type": "string", "minLength": 1}),
        ("X-Correlation-Id" | "X-Causation-Id", _) => json!({"type": "string"}),
        ("version", ParameterIn::Path) => json!({"type": "integer", "minimum": 1, "maximum": EXACT_INTEGER_MAX}),
        ("after", _) if place.path == "/events" => text(CURSOR),
        ("min_position", _) => text(POSITION_CURSOR),
        ("after", _) if place.path == "/groups/{group_name}/parked" => {
            json!({"type": "string", "maxLength": 511, "pattern": stream().replace("?$", "$")})
        }
        ("after", _) if place.path == "/streams" => json!({"type": "string", "maxLength": 511, "pattern": stream()}),
        ("erasure", ParameterIn::Path) => json!({"type": "integer", "minimum": 1, "maximum": EXACT_INTEGER_MAX}),
        ("after", _) if place.path == "/erasures" => {
            json!({"type": "integer", "minimum": 0, "maximum": EXACT_INTEGER_MAX})
        }
        ("after", _) => name(SEGMENT),
        ("prefix", _) => name(r"^[^\x00-\x1f\x7f-\x9f/]+$"),
        ("partition", _) => text(PARTITION),
        ("before", _) => text(POSITION_CURSOR),
        ("occurred_from" | "occurred_to" | "at" | "from" | "to", _) => time(),
        ("direction", _) => json!({"type": "string", "enum": ["forward", "backward"]}),
        ("snapshot", _) => json!({"type": "string", "enum": ["ignore"]}),
        ("If-Match", _) => text(&format!(r"^(\*|{TAG})$")),
        ("If-None-Match", _) if place.is_read => text(TAGS),
        ("If-None-Match", _) => json!({"type": "string", "enum": ["*"]}),
        ("Idempotency-Key", _) => text(KEY),
        // A probe ignores every other value.
        ("verbose", _) => json!({"type": "string", "examples": ["", "1", "true"]}),
        ("lastEventId", _) if place.path == "/events" => text(POSITION_CURSOR),
        ("lastEventId", _) => text(r"^(0|[1-9][0-9]{0,8})$"),
        ("Last-Event-ID" | "Prefer", _) => json!({"type": "string"}),
        _ => return None,
    };
    Some(if place.is_list { json!({"type": "array", "items": value, "maxItems": VALUES_MAX}) } else { value })
}

/// Returns the pattern of an aggregate type and an aggregate id with a slash between them. The id may be empty.
fn stream() -> String {
    let segment = SEGMENT.trim_start_matches('^').trim_end_matches('$');
    format!("^{segment}/{segment}?$")
}

fn name(pattern: &str) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": pattern})
}

fn names(name: Value) -> Value {
    json!({"type": "array", "maxItems": VALUES_MAX, "items": name})
}

fn nullable_name(pattern: &str, description: &str) -> Value {
    json!({"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": pattern,
        "description": description})
}

fn language() -> Value {
    json!({"type": "string", "enum": ["javascript", "merge-patch"]})
}

/// Bounds an integer: versions and positions are numbers that every JSON parser reads exactly.
fn bounded(schema: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = schema else { return schema };
    if object.schema_type == SchemaType::Type(Type::Integer) && object.maximum.is_none() {
        object.maximum = Some(EXACT_INTEGER_MAX.into());
    }
    RefOr::T(Schema::Object(object))
}

fn is_array(schema: Option<&RefOr<Schema>>) -> bool {
    matches!(schema, Some(RefOr::T(Schema::Array(_))))
}

fn schema(value: Value) -> RefOr<Schema> {
    serde_json::from_value(value).expect("a schema")
}
