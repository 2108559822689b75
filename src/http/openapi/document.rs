//! The frame of the OpenAPI document: everything but the routes.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, ServerBuilder,
};

/// The name of the security scheme.
const KEY: &str = "key";

/// Returns the document without routes.
pub fn frame() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build();
    let info = InfoBuilder::new()
        .title("Annals")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "An event store over HTTP and JSON. Clients append events to streams, one stream for each aggregate, with \
             optimistic concurrency by version. Errors are problem documents (RFC 9457) with a stable `code`, which \
             `/problems/<code>` explains. Clients must ignore members of responses that they do not know.",
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
            tag("operations", "Health, metrics, statistics and explanations of errors"),
        ]))
        .components(Some(ComponentsBuilder::new().security_scheme(KEY, SecurityScheme::Http(bearer)).build()))
        // The empty requirement is for services that require no keys.
        .security(Some([SecurityRequirement::default(), SecurityRequirement::new(KEY, [""; 0])]))
        .build()
}
