//! Failed calls: problem documents of the service, and responses that did not arrive.

use std::time::Duration;

use serde::Deserialize;

use crate::cli::client::failure::{Failure, Kind};

/// A problem document (RFC 9457) of the service.
#[derive(Debug, Deserialize)]
pub struct Problem {
    pub code: String,
    pub status: u16,
    #[serde(default)]
    detail: String,
    /// The position to continue from, with `epoch_changed`.
    pub rewind_to: Option<u64>,
    /// The time of the header `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// No response arrived, or only a part of it.
    Unreachable(String),
    Problem(Box<Problem>),
    /// The response is not one of Annals.
    Foreign(String),
}

impl CallError {
    /// Whether the same call may succeed a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Problem(problem) => matches!(problem.status, 429 | 503 | 504),
            Self::Foreign(_) => false,
        }
    }

    /// Returns the message for the person.
    pub fn message(&self) -> String {
        match self {
            Self::Unreachable(message) | Self::Foreign(message) => message.clone(),
            Self::Problem(problem) => problem.message(),
        }
    }

    /// Returns the time that the service asks a client to wait before the next call.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after,
            _ => None,
        }
    }

    /// Returns the position to continue from if the cursor of the call is no longer valid.
    pub fn rewind_to(&self) -> Option<u64> {
        match self {
            Self::Problem(problem) if problem.code == "epoch_changed" => problem.rewind_to,
            _ => None,
        }
    }
}

impl Problem {
    fn kind(&self) -> Kind {
        match (self.status, self.code.as_str()) {
            (404, "route_not_found") | (422, "reducer_failed") => Kind::Other,
            (404, _) | (409, "no_reducer") | (422, "position_beyond_head" | "version_beyond_head") => Kind::NotFound,
            (400 | 413 | 414 | 421 | 422 | 431, _) => Kind::Usage,
            (401 | 403, _) => Kind::Refused,
            (409 | 412, _) => Kind::Conflict,
            (429 | 503 | 504, _) => Kind::Unavailable,
            _ => Kind::Other,
        }
    }

    fn message(&self) -> String {
        let hint = match self.code.as_str() {
            "unauthenticated" => ". Set ANNALS_KEY to an API key of the service",
            "route_not_found" => ". The service may have another version, or ANNALS_URL another path",
            _ => "",
        };
        format!("{} ({}){hint}", self.detail.trim_end_matches('.'), self.code)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Unreachable(_) => Kind::Unavailable,
            CallError::Problem(problem) => problem.kind(),
            CallError::Foreign(_) => Kind::Other,
        };
        Self::Failed(kind, error.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: &str) -> Failure {
        let problem = Problem {
            code: code.to_owned(),
            status,
            detail: "The detail.".to_owned(),
            rewind_to: None,
            retry_after: None,
        };
        CallError::Problem(Box::new(problem)).into()
    }

    #[test]
    fn each_kind_of_problem_has_its_exit_status() {
        for (status, code, kind) in [
            (400, "invalid_request", Kind::Usage),
            (401, "unauthenticated", Kind::Refused),
            (403, "forbidden", Kind::Refused),
            (404, "stream_not_found", Kind::NotFound),
            (404, "route_not_found", Kind::Other),
            (409, "no_reducer", Kind::NotFound),
            (409, "event_id_reused", Kind::Conflict),
            (412, "version_conflict", Kind::Conflict),
            (422, "invalid_event_data", Kind::Usage),
            (422, "position_beyond_head", Kind::NotFound),
            (429, "quota_exceeded", Kind::Unavailable),
            (500, "internal", Kind::Other),
            (503, "outcome_unknown", Kind::Unavailable),
        ] {
            let Failure::Failed(found, message) = failure(status, code) else { panic!("{code} is a failure") };
            assert_eq!(found, kind, "{code}");
            assert!(message.starts_with(&format!("The detail ({code})")), "{message}");
        }
    }
}
