//! What the OpenAPI document says besides the routes: who we are, and the shapes of request bodies.

mod parameters;

pub use parameters::refine;

use std::collections::BTreeMap;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Response, ResponseBuilder, ServerBuilder,
};
use utoipa::{IntoResponses, ToSchema};

use crate::http::middleware::PROBLEM_JSON;

/// The document's frame.
pub fn info() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build();
    let info = InfoBuilder::new()
        .title("Annals")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "An event store over HTTP and JSON. Events are appended to streams, one for each aggregate, under optimistic \
             concurrency by version. Errors are problems (RFC 9457) with a stable `code`; `/problems/<code>` explains each. \
             Clients must ignore members of answers that they do not know.",
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
            tag("streams", "Append events to streams, and read them back"),
            tag("log", "Everything that ever happened, in one order, and as it happens"),
            tag("aggregates", "Load aggregates from their snapshots and the events after them"),
            tag("projections", "How far the readers of the log have come"),
            tag("operations", "For the operators: health, metrics, explanations"),
        ]))
        .components(Some(ComponentsBuilder::new().security_scheme(KEY, SecurityScheme::Http(bearer)).build()))
        // Where keys are not needed, none is asked for.
        .security(Some([SecurityRequirement::default(), SecurityRequirement::new(KEY, [""; 0])]))
        .build()
}

/// Name of the one security scheme.
const KEY: &str = "key";

/// The problems that every read can answer with.
pub struct ReadProblems;

/// The problems that every request with a body can answer with.
pub struct WriteProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[INVALID, UNAUTHENTICATED, FORBIDDEN, NOT_ACCEPTABLE, TOO_MANY, NOT_NOW])
    }
}

impl IntoResponses for WriteProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[INVALID, UNAUTHENTICATED, FORBIDDEN, NOT_ACCEPTABLE, TOO_LARGE, NOT_JSON, TOO_MANY, NOT_NOW])
    }
}

type Described = (&'static str, &'static str);

const INVALID: Described = ("400", "Not understood: `errors` says where");
const UNAUTHENTICATED: Described = ("401", "No key that is good; only where keys are needed");
const FORBIDDEN: Described = ("403", "The key has no grant for this");
const TOO_MANY: Described = ("429", "The key's quota is used up: retry after `Retry-After`");
const NOT_ACCEPTABLE: Described = ("406", "`Accept` names nothing that is available");
const TOO_LARGE: Described = ("413", "The body is too large");
const NOT_JSON: Described = ("415", "Not declared as JSON");
const NOT_NOW: Described = ("503", "Not now: retry after `Retry-After`");

fn problems(described: &[Described]) -> BTreeMap<String, RefOr<Response>> {
    let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response =
        |description| ResponseBuilder::new().description(description).content(PROBLEM_JSON, content()).build();
    described.iter().map(|(status, description)| ((*status).to_owned(), response(*description).into())).collect()
}

/// An event in a request.
#[derive(ToSchema)]
#[schema(as = NewEvent)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of EventIn, for the document")]
pub struct NewEventSchema {
    /// Any UUID; one is made (version 7) where absent. The same id makes a request repeatable.
    #[schema(format = Uuid)]
    event_id: Option<String>,
    event_type: String,
    event_data: serde_json::Value,
    /// What the client wants to keep beside it, its own time for example.
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
#[expect(dead_code, reason = "the shape of StreamAppendIn, for the document")]
pub struct StreamAppendSchema {
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<NewEventSchema>,
}

/// Events for several streams.
#[derive(ToSchema)]
#[schema(as = Appends)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of AppendsIn, for the document")]
pub struct AppendsSchema {
    #[schema(min_items = 1, max_items = 100)]
    appends: Vec<AppendSchema>,
}

/// Events for one of several streams.
#[derive(ToSchema)]
#[schema(as = Append)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the shape of AppendIn, for the document")]
pub struct AppendSchema {
    aggregate_type: String,
    aggregate_id: String,
    #[schema(value_type = Option<serde_json::Value>)]
    expected_version: Option<u64>,
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<NewEventSchema>,
}
