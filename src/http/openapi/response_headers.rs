//! The headers of responses.

use utoipa::openapi::header::Header;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{OpenApi, RefOr};

use crate::http::openapi::operations::operations;

/// A header: its name, its description, and whether a response of an operation with a status has it.
type ResponseHeader = (&'static str, &'static str, fn(&str, &str) -> bool);

const HEADERS: [ResponseHeader; 8] = [
    ("X-Request-Id", "The id of the request, also in the log of the service", |_, _| true),
    (
        "ETag",
        "The version of the stream, the position of the projection, or the revision of the group, in quotes",
        |operation, status| {
            let has_version = matches!(
                operation,
                "append_to_stream"
                    | "read_stream"
                    | "read_stream_head"
                    | "load_aggregate"
                    | "read_state"
                    | "read_snapshot"
                    | "read_projection"
                    | "set_projection"
                    | "read_group"
                    | "put_group"
                    | "read_parked_stream"
                    | "move_parked_stream"
            );
            has_version && matches!(status, "200" | "201" | "304" | "412")
        },
    ),
    ("Location", "The path of the first new event, or of the claim", |operation, status| {
        matches!(operation, "append_to_stream" | "create_claim") && matches!(status, "200" | "201")
    }),
    ("Link", "The next page, with `rel=\"next\"`", |operation, status| {
        matches!(operation, "read_stream" | "read_log" | "list_streams" | "load_aggregate") && status == "200"
    }),
    ("Idempotent-Replayed", "`true`: an earlier request has done this", |operation, status| {
        let is_repeatable =
            matches!(operation, "append_to_stream" | "append_to_streams" | "create_claim" | "acknowledge_claim");
        is_repeatable && status == "200"
    }),
    ("Preference-Applied", "`return=representation`: the problem has the missed events", |operation, status| {
        operation == "append_to_stream" && status == "412"
    }),
    ("Retry-After", "The number of seconds after which the request can be repeated", |operation, status| {
        matches!(status, "429" | "503") || operation == "put_group" && status == "409"
    }),
    ("WWW-Authenticate", "The scheme of the keys: `Bearer`", |_, status| status == "401"),
];

/// Adds the headers to all responses.
pub fn add_response_headers(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        operations(item).for_each(add_headers);
    }
}

fn add_headers(operation: &mut Operation) {
    let id = operation.operation_id.clone().unwrap_or_default();
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        for (name, description, has_header) in HEADERS {
            if has_header(&id, status) {
                let mut header = Header::new(ObjectBuilder::new().schema_type(Type::String));
                header.description = Some(description.to_owned());
                response.headers.insert(name.to_owned(), RefOr::T(header));
            }
        }
    }
}
