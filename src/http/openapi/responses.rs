//! The problems that several routes can return.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use crate::http::media_type::PROBLEM_JSON;

/// A status and its description.
pub type Described = (&'static str, &'static str);

/// The request has no valid key.
pub const UNAUTHENTICATED: Described = ("401", "Missing or invalid API key, if the service requires keys");
/// The key has no permission.
pub const FORBIDDEN: Described = ("403", "The key has no grant for this request");
/// The key has reached its rate limit.
pub const QUOTA_EXCEEDED: Described = ("429", "The key has reached a quota: retry after `Retry-After`");

const INVALID: Described = ("400", "Invalid request: `errors` has the faults");
const NOT_ACCEPTABLE: Described = ("406", "`Accept` names no available media type");
const TOO_LARGE: Described = ("413", "The body is too large");
const NOT_JSON: Described = ("415", "The body is not declared as JSON");
const UNAVAILABLE: Described = ("503", "Unavailable at this time: retry after `Retry-After`");

/// Builds the responses of some problems.
pub fn problems(described: &[Described]) -> BTreeMap<String, RefOr<Response>> {
    let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response =
        |description| ResponseBuilder::new().description(description).content(PROBLEM_JSON, content()).build();
    described.iter().map(|(status, description)| ((*status).to_owned(), response(*description).into())).collect()
}

macro_rules! problem_responses {
    ($($(#[doc = $doc:literal])* $name:ident $described:expr;)*) => {
        $(
            $(#[doc = $doc])*
            pub struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    problems(&$described)
                }
            }
        )*
    };
}

problem_responses! {
    /// Every read that negotiates its representation.
    ReadProblems [INVALID, UNAUTHENTICATED, FORBIDDEN, NOT_ACCEPTABLE, QUOTA_EXCEEDED, UNAVAILABLE];
    /// Every request with a body.
    WriteProblems [
        INVALID, UNAUTHENTICATED, FORBIDDEN, NOT_ACCEPTABLE, TOO_LARGE, NOT_JSON, QUOTA_EXCEEDED, UNAVAILABLE,
    ];
    /// Every deletion.
    DeleteProblems [INVALID, UNAVAILABLE];
    /// Every route that requires no key.
    UnknownParameter [("400", "Unknown parameter")];
    /// Every route of a stream that may not exist.
    StreamNotFound [("404", "The stream does not exist")];
    /// Every route of a stored snapshot.
    SnapshotNotFound [("404", "The aggregate has no snapshot")];
    /// Every route of a registered reducer.
    ReducerNotFound [("404", "The type has no reducer")];
    /// Every route of a projection that may not exist.
    ProjectionNotFound [("404", "The projection does not exist")];
    /// Every route of a consumer group that may not exist.
    GroupNotFound [("404", "The group does not exist")];
    /// Every route of a claim that may not be open.
    ClaimNotFound [("404", "The group does not exist, or has no such open claim")];
    /// Every route of a stream that may not be parked.
    ParkedStreamNotFound [("404", "The group does not exist, or the stream is not parked")];
    /// Every route of an erasure that may not exist.
    ErasureNotFound [("404", "The erasure does not exist")];
    /// Every append.
    UnsupportedJson [("422", "Unsupported JSON content")];
}
