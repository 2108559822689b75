//! The schema of problems in the OpenAPI document.

use serde::Serialize;

use crate::http::problem::field_error::FieldError;

/// The members that every problem has, and those that some codes add.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemSchema {
    /// `/problems/<code>`: the page that explains the code.
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// The id of the request. The service's log has the same id.
    instance: String,
    /// Stable, and one of a closed list.
    code: String,
    /// The faults of the request (`invalid_request`).
    errors: Option<Vec<FieldError>>,
    /// JSON pointer into the body (`invalid_event_data`).
    pointer: Option<String>,
    /// The version that the request expects (`version_conflict`).
    #[schema(value_type = Option<serde_json::Value>)]
    expected_version: Option<String>,
    /// The version of the stream (`version_conflict`).
    current_version: Option<u64>,
    /// The position of the projection (`position_conflict`, `position_regressed`).
    current_position: Option<u64>,
    /// The position of the partition (`claim_lost`).
    last_processed_position: Option<u64>,
    /// The worker that has the partition now (`claim_lost`).
    claimed_by: Option<String>,
    /// The last position that can be acknowledged (`position_beyond_claim`).
    last_position: Option<u64>,
    /// The last position up to which the log is unchanged (`epoch_changed`).
    rewind_to: Option<u64>,
    /// The epoch of the log (`epoch_changed`).
    epoch: Option<u64>,
    /// The position of the last event of the log (`position_beyond_head`, `replica_behind`).
    head: Option<u64>,
    /// The ids of the request that were written before (`event_id_reused`, `event_partly_known`).
    known_event_ids: Option<Vec<String>>,
}
