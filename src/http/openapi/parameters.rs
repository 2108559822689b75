//! What a parameter may be, by its name: a name means the same on every route, and the document says so once, here.

use serde_json::{Value, json};
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::{OpenApi, RefOr};

use super::{FORBIDDEN, TOO_MANY, UNAUTHENTICATED, problems};
use crate::domain::json::EXACT_INTEGER_MAX;

/// A name: 1 to 255 characters, none of control, no white space at the ends.
const NAME: &str = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$";
/// The same as a segment of a path: without `/`, and neither `.` nor `..`.
const SEGMENT: &str =
    r"^(?!\.{1,2}$)[^\s\u0000-\u001f\u007f-\u009f/]([^\u0000-\u001f\u007f-\u009f/]*[^\s\u0000-\u001f\u007f-\u009f/])?$";
const CURSOR: &str = r"^(head|([1-9][0-9]{0,8}:)?(0|[1-9][0-9]{0,14}))$";
const TAG: &str = r#"(W/)?"(0|[1-9][0-9]{0,8})""#;
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#;
/// In quotes, or bare.
const KEY: &str = r#"^("[ !#-\[\]-~]{1,255}"|[!#-~]{1,255})$"#;
/// Of one filter, so many values are enough for every client, and no URL takes more.
const VALUES_MAX: usize = 100;

/// Says of every parameter and member what the service takes, and of every route what its guard answers.
pub fn refine(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (is_read, operation) in operations(item) {
            for parameter in operation.parameters.iter_mut().flatten() {
                let RefOr::T(parameter) = parameter else { continue };
                let place = Place { path, is_read, is_list: is_array(parameter.schema.as_ref()) };
                if let Some(refined) = refined(&parameter.name, &parameter.parameter_in, &place) {
                    parameter.schema = Some(schema(refined));
                } else {
                    parameter.schema = parameter.schema.take().map(bounded);
                }
            }
            if operation.responses.responses.contains_key("503") && !path.ends_with("/readyz") {
                for (status, response) in problems(&[UNAUTHENTICATED, FORBIDDEN, TOO_MANY]) {
                    operation.responses.responses.entry(status).or_insert(response);
                }
            }
        }
    }
    let names = [
        (
            "NewEvent",
            "event_type",
            json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": NAME, "example": "OrderPlaced"}),
        ),
        (
            "NewEvent",
            "event_data",
            json!({"type": ["object", "array", "string", "number", "boolean"],
            "description": "Any JSON value but null.", "example": {"total": 42}}),
        ),
        ("Append", "aggregate_type", name(SEGMENT)),
        ("Append", "aggregate_id", name(SEGMENT)),
        (
            "Append",
            "expected_version",
            json!({"description": "A version (0: no event yet), `none` or `exists`; any if absent.",
            "anyOf": [{"type": "integer", "format": "int32", "minimum": 0}, {"type": ["string", "null"], "enum": ["none", "exists", null]}],
            "example": 41}),
        ),
        (
            "NewSnapshot",
            "version",
            json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": i32::MAX,
            "description": "The version of the stream that the state is of."}),
        ),
        ("NewReducer", "language", language()),
        ("ReducerTest", "language", language()),
    ];
    let schemas = &mut document.components.as_mut().expect("there are schemas").schemas;
    for (of, member, refined) in names {
        let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(of) else { unreachable!("{of} is an object") };
        *object.properties.get_mut(member).expect("a member of that name") = schema(refined);
    }
}

struct Place<'p> {
    path: &'p str,
    is_read: bool,
    is_list: bool,
}

/// What the parameter of this name may be; `None`: what the route says, if it is a number within bounds.
fn refined(parameter: &str, within: &ParameterIn, place: &Place<'_>) -> Option<Value> {
    let text = |pattern: &str| json!({"type": "string", "pattern": pattern});
    let time = || json!({"type": "string", "format": "date-time"});
    let one = match (parameter, within) {
        ("projection_name", ParameterIn::Path) => name(SEGMENT),
        ("aggregate_type" | "aggregate_id", _) => name(SEGMENT),
        ("event_type" | "revision", _) => name(NAME),
        ("correlation_id" | "X-Correlation-Id" | "X-Causation-Id", _) => json!({"type": "string", "format": "uuid"}),
        ("version", ParameterIn::Path) => json!({"type": "integer", "minimum": 1, "maximum": EXACT_INTEGER_MAX}),
        ("after", _) if place.path == "/events" => text(CURSOR),
        ("after", _) => name(SEGMENT),
        ("occurred_from" | "occurred_to" | "at", _) => time(),
        ("direction", _) => json!({"type": "string", "enum": ["forward", "backward"]}),
        ("snapshot", _) => json!({"type": "string", "enum": ["ignore"]}),
        ("If-Match", _) => text(&format!(r"^(\*|{TAG})$")),
        ("If-None-Match", _) if place.is_read => text(TAGS),
        ("If-None-Match", _) => json!({"type": "string", "enum": ["*"]}),
        ("Idempotency-Key", _) => text(KEY),
        ("verbose", _) => json!({"type": "string", "enum": ["", "true"]}),
        ("Last-Event-ID" | "Prefer", _) => json!({"type": "string"}),
        _ => return None,
    };
    Some(if place.is_list { json!({"type": "array", "items": one, "maxItems": VALUES_MAX}) } else { one })
}

fn name(pattern: &str) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": pattern})
}

fn language() -> Value {
    json!({"type": "string", "enum": ["javascript", "merge-patch"]})
}

/// Versions and positions are numbers that every JSON parser keeps.
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

/// The operations of a path, and whether each only reads.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let PathItem { get, put, post, delete, .. } = item;
    [(true, get), (false, put), (false, post), (false, delete)]
        .into_iter()
        .filter_map(|(is_read, operation)| Some((is_read, operation.as_mut()?)))
}
