//! The frame of the OpenAPI document: everything but the routes.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, RefOr, Schema,
    ServerBuilder,
};

use crate::http::openapi::examples::add_examples;
use crate::http::openapi::integers::inline_integers;
use crate::http::openapi::operations::operations;
use crate::http::openapi::parameter_schemas::add_parameter_schemas;
use crate::http::openapi::problem_schemas::add_problem_schemas;
use crate::http::openapi::response_headers::add_response_headers;

/// The name of the security scheme.
const KEY: &str = "key";

/// Completes a document with the routes: what utoipa cannot derive from the handlers.
pub fn complete(document: &mut OpenApi) {
    add_head(document);
    refuse_null_bodies(document);
    add_parameter_schemas(document);
    inline_integers(document);
    add_problem_schemas(document);
    add_response_headers(document);
    add_examples(document);
}

/// Adds HEAD to the read of a stream, whose ETag has the version. Every GET has a HEAD, and no other one is as useful.
fn add_head(document: &mut OpenApi) {
    let stream =
        document.paths.paths.get_mut("/streams/{aggregate_type}/{aggregate_id}").expect("the route of streams");
    let mut head = stream.get.clone().expect("streams are read");
    head.operation_id = Some("read_stream_head".to_owned());
    head.summary = Some("Read the version of a stream".to_owned());
    head.description = Some("The header `ETag` has the version. The response has no body.".to_owned());
    head.responses.responses.values_mut().for_each(|response| {
        if let RefOr::T(response) = response {
            response.content.clear();
        }
    });
    stream.head = Some(head);
}

/// Replaces the body "an object or null" of a request whose body may be absent: a body that is present is an object.
fn refuse_null_bodies(document: &mut OpenApi) {
    let operations = document.paths.paths.values_mut().flat_map(operations);
    let bodies = operations.filter_map(|operation| match &mut operation.request_body {
        Some(RefOr::T(body)) => Some(body),
        _ => None,
    });
    for content in bodies.flat_map(|body| body.content.values_mut()) {
        let RefOr::T(content) = content else { continue };
        if let Some(RefOr::T(Schema::OneOf(of))) = &content.schema {
            content.schema = of.items.first().cloned();
        }
    }
}

/// Returns the document without routes.
pub fn frame() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build();
    let info = InfoBuilder::new()
        .title("Annals")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "An event store over HTTP and JSON. Clients append events to streams, one stream for each aggregate, with \
             optimistic concurrency by version. Errors are problem documents (RFC 9457) with a stable `code`, which \
             `/problems/<code>` explains. Clients must ignore members of responses that they do not know.\n\n\
             Numbers in payloads are returned with all digits. JavaScript, and so the page `/docs`, shows numbers \
             beyond 2^53 rounded.",
        ))
        .contact(Some(ContactBuilder::new().name(Some("The Annals authors")).build()))
        .license(Some(license))
        .build();
    let tag = |name: &str, description: &str| TagBuilder::new().name(name).description(Some(description)).build();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key")).build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").description(Some("This server")).build()]))
        .tags(Some([
            tag("streams", "Append events to streams, and read them"),
            tag("log", "Read the log of all events, and subscribe to it"),
            tag("aggregates", "Load aggregates, and manage snapshots and reducers"),
            tag("projections", "Store and read the positions of projections"),
            tag("erasures", "Erase personal data, and read the receipts"),
            tag("groups", "Hand out events to workers that share a projection"),
            tag("operations", "Health, metrics, statistics and explanations of errors"),
        ]))
        .components(Some(ComponentsBuilder::new().security_scheme(KEY, SecurityScheme::Http(bearer)).build()))
        // The empty requirement is for services that require no keys.
        .security(Some([SecurityRequirement::default(), SecurityRequirement::new(KEY, [""; 0])]))
        .build()
}
