//! The closed list of error codes. Each has a page in `docs/reference/errors/`, which the program contains and serves
//! at `/problems/<code>`.

use axum::http::StatusCode;

macro_rules! codes {
    ($($variant:ident $code:literal $status:ident;)*) => {
        /// A stable error code. It is part of the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($variant),* }

        impl Code {
            /// All codes.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// Returns the code as problems show it.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code),* }
            }

            /// Returns the status of problems with this code. Only `version_conflict` has a second one.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status),* }
            }

            /// Returns the page that explains the code, in Markdown. Its first line is the title.
            pub fn page(self) -> &'static str {
                match self {
                    $(Code::$variant => include_str!(concat!("../../../docs/reference/errors/", $code, ".md"))),*
                }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" BAD_REQUEST;
    Unauthenticated "unauthenticated" UNAUTHORIZED;
    Forbidden "forbidden" FORBIDDEN;
    QuotaExceeded "quota_exceeded" TOO_MANY_REQUESTS;
    RouteNotFound "route_not_found" NOT_FOUND;
    StreamNotFound "stream_not_found" NOT_FOUND;
    EventNotFound "event_not_found" NOT_FOUND;
    SnapshotNotFound "snapshot_not_found" NOT_FOUND;
    ReducerNotFound "reducer_not_found" NOT_FOUND;
    ProjectionNotFound "projection_not_found" NOT_FOUND;
    GroupNotFound "group_not_found" NOT_FOUND;
    ClaimNotFound "claim_not_found" NOT_FOUND;
    ParkedStreamNotFound "parked_stream_not_found" NOT_FOUND;
    ErasureNotFound "erasure_not_found" NOT_FOUND;
    ProblemNotFound "problem_not_found" NOT_FOUND;
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED;
    NotAcceptable "not_acceptable" NOT_ACCEPTABLE;
    UriTooLong "uri_too_long" URI_TOO_LONG;
    HeadersTooLarge "headers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE;
    EventIdReused "event_id_reused" CONFLICT;
    EventPartlyKnown "event_partly_known" CONFLICT;
    EpochChanged "epoch_changed" CONFLICT;
    SnapshotStale "snapshot_stale" CONFLICT;
    ReducerExists "reducer_exists" CONFLICT;
    NoReducer "no_reducer" CONFLICT;
    PositionRegressed "position_regressed" CONFLICT;
    GroupDiffers "group_differs" CONFLICT;
    ClaimsOpen "claims_open" CONFLICT;
    ClaimLost "claim_lost" CONFLICT;
    TooManyParked "too_many_parked" CONFLICT;
    MovedByGroup "moved_by_group" CONFLICT;
    PositionConflict "position_conflict" PRECONDITION_FAILED;
    VersionConflict "version_conflict" PRECONDITION_FAILED;
    PayloadTooLarge "payload_too_large" PAYLOAD_TOO_LARGE;
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE;
    HostRefused "host_refused" MISDIRECTED_REQUEST;
    InvalidEventData "invalid_event_data" UNPROCESSABLE_ENTITY;
    InvalidReducer "invalid_reducer" UNPROCESSABLE_ENTITY;
    ReducerFailed "reducer_failed" UNPROCESSABLE_ENTITY;
    VersionBeyondHead "version_beyond_head" UNPROCESSABLE_ENTITY;
    PositionBeyondHead "position_beyond_head" UNPROCESSABLE_ENTITY;
    PositionBeyondClaim "position_beyond_claim" UNPROCESSABLE_ENTITY;
    ErasureTooLarge "erasure_too_large" UNPROCESSABLE_ENTITY;
    Internal "internal" INTERNAL_SERVER_ERROR;
    ClockSkew "clock_skew" SERVICE_UNAVAILABLE;
    Overloaded "overloaded" SERVICE_UNAVAILABLE;
    DatabaseUnavailable "database_unavailable" SERVICE_UNAVAILABLE;
    LogMoving "log_moving" SERVICE_UNAVAILABLE;
    OutcomeUnknown "outcome_unknown" SERVICE_UNAVAILABLE;
    TooManySubscribers "too_many_subscribers" SERVICE_UNAVAILABLE;
    ReplicaBehind "replica_behind" SERVICE_UNAVAILABLE;
    ProjectionBehind "projection_behind" GATEWAY_TIMEOUT;
    ShuttingDown "shutting_down" SERVICE_UNAVAILABLE;
}

impl Code {
    /// Parses a code; `None` if it is unknown.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == code)
    }

    /// Returns the title of problems with this code.
    pub fn title(self) -> &'static str {
        let first_line = self.page().lines().next().unwrap_or_default();
        first_line.strip_prefix("# ").unwrap_or(first_line)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_page_has_a_title_a_status_two_sections_and_an_example() {
        for code in Code::ALL {
            let name = code.as_str();
            let page = code.page();
            assert!(page.starts_with("# ") && !code.title().is_empty(), "{name} has no title");
            let status = page.lines().nth(2).and_then(|line| line.strip_prefix("Status: "));
            let statuses: Vec<&str> = status.map(|text| text.split(", ").collect()).unwrap_or_default();
            assert!(statuses.contains(&code.status().as_str()), "{name} has the statuses {statuses:?}");
            let headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
            assert_eq!(headings, ["## What happened", "## What to do", "## Example"], "{name}");

            let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("\n```").next());
            let example: Value = serde_json::from_str(example.expect("an example")).expect("an example in JSON");
            assert_eq!(example["type"], format!("/problems/{name}"));
            assert_eq!(example["title"], code.title(), "{name}");
            assert_eq!(example["status"], code.status().as_u16(), "{name}");
            assert_eq!(example["code"], name);
        }
    }

    #[test]
    fn every_page_belongs_to_a_code() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/errors");
        let pages: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder of pages")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .map(|name| name.trim_end_matches(".md").to_owned())
            .collect();
        let codes: BTreeSet<String> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
        assert_eq!(pages, codes);
    }
}
