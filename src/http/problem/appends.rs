//! The problems of appends: conflicts of versions and of event ids.

use axum::http::{StatusCode, header};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::domain::append::{Append, AppendRequest};
use crate::domain::version::{ExpectedVersion, Version};
use crate::http::cache::etag;
use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;

/// An expected version as requests write it: a number, `"none"` or `"exists"`; null for no precondition.
pub(super) struct ExpectedVersionJson(pub(super) ExpectedVersion);

impl Serialize for ExpectedVersionJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ExpectedVersion::Any => serializer.serialize_none(),
            ExpectedVersion::None => serializer.serialize_str("none"),
            ExpectedVersion::Exists => serializer.serialize_str("exists"),
            ExpectedVersion::Exact(version) => serializer.serialize_u64(version),
        }
    }
}

#[derive(Serialize)]
struct Conflict<'r> {
    aggregate_type: &'r str,
    aggregate_id: &'r str,
    expected_version: ExpectedVersionJson,
    current_version: Version,
}

impl ApiError {
    /// The precondition of an append to one stream failed.
    pub fn version_conflict(append: &Append, current: Version) -> Self {
        let detail = match append.expected {
            ExpectedVersion::Exact(expected) if current == 0 => {
                format!("the stream does not exist, and the request expects version {expected}")
            }
            ExpectedVersion::Exact(expected) => {
                format!("the stream is at version {current}, and the request expects {expected}")
            }
            ExpectedVersion::None => {
                format!("the stream exists, at version {current}, and the request expects that it does not exist")
            }
            ExpectedVersion::Exists | ExpectedVersion::Any => {
                "the stream does not exist, and the request expects that it exists".to_owned()
            }
        };
        Self::new(Code::VersionConflict, detail)
            .with("expected_version", &ExpectedVersionJson(append.expected))
            .with("current_version", &current)
            .with_header(header::ETAG, etag(current))
    }

    /// Preconditions of an append to several streams failed. `current` has the version of each stream.
    pub fn version_conflicts(request: &AppendRequest, current: &[Version]) -> Self {
        let conflicts: Vec<_> = request
            .appends
            .iter()
            .zip(current)
            .filter(|(append, current)| !append.expected.holds(**current))
            .map(|(append, current)| Conflict {
                aggregate_type: append.stream.aggregate_type(),
                aggregate_id: append.stream.aggregate_id(),
                expected_version: ExpectedVersionJson(append.expected),
                current_version: *current,
            })
            .collect();
        let detail = match conflicts.len() {
            1 => "1 of the streams is at another version; nothing was written".to_owned(),
            count => format!("{count} of the streams are at another version; nothing was written"),
        };
        Self::new(Code::VersionConflict, detail).with_status(StatusCode::CONFLICT).with("conflicts", &conflicts)
    }

    /// An event id of the request belongs to a different event. `known` has the ids that exist; `None` if the caller may
    /// not read all types. The event can be of any type, so a caller must not learn from the list, or from its absence,
    /// that it is of a type that the caller may not read.
    pub fn event_id_reused(request: &AppendRequest, known: Option<&[Uuid]>) -> Self {
        let detail = "an event id of the request was used before, with other content or in another stream; nothing was \
                      written";
        Self::new(Code::EventIdReused, detail).with_known_events(request, known)
    }

    /// Some events of the request exist in its streams, but the request is not a replay. `known` has their ids; `None` if
    /// the caller may not read the types of the request.
    pub fn event_partly_known(request: &AppendRequest, known: Option<&[Uuid]>) -> Self {
        let detail = "the log has some of these events, or all of them in another order; nothing was written";
        Self::new(Code::EventPartlyKnown, detail).with_known_events(request, known)
    }

    fn with_known_events(self, request: &AppendRequest, known: Option<&[Uuid]>) -> Self {
        let error = match known {
            Some(known) => self.with("known_event_ids", &known.iter().map(Uuid::to_string).collect::<Vec<_>>()),
            None => self,
        };
        match request.appends.as_slice() {
            [append] if append.expected != ExpectedVersion::Any => {
                error.with("expected_version", &ExpectedVersionJson(append.expected))
            }
            _ => error,
        }
    }
}
