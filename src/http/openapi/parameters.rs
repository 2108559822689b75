//! Parameters that several routes have. [`crate::http::openapi::parameter_schemas`] adds what their values may be.

use utoipa::IntoParams;

/// `{aggregate_type}/{aggregate_id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct StreamParams {
    /// 1 to 255 characters, without `/`
    aggregate_type: String,
    /// 1 to 255 characters, without `/`
    aggregate_id: String,
}

/// `{aggregate_type}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct TypeParams {
    /// 1 to 255 characters, without `/`
    aggregate_type: String,
}

/// `{projection_name}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct ProjectionParams {
    /// 1 to 255 characters, without `/`
    projection_name: String,
}

/// `{group_name}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct GroupParams {
    /// 1 to 255 characters, without `/`
    group_name: String,
}

/// `{group_name}/claims/{claim_id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct ClaimParams {
    /// 1 to 255 characters, without `/`
    group_name: String,
    /// `epoch.partition.number`
    claim_id: String,
}

/// `{group_name}/parked/{aggregate_type}/{aggregate_id}`
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct ParkedStreamParams {
    /// 1 to 255 characters, without `/`
    group_name: String,
    /// 1 to 255 characters, without `/`
    aggregate_type: String,
    /// 1 to 255 characters, without `/`
    aggregate_id: String,
}

/// `min_position`
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct MinPositionParams {
    /// Reads only from a database that has this position, as `position` or `epoch:position`. Waits for it up to one second
    min_position: Option<String>,
}

/// `lastEventId` of an event stream
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct LastEventIdParams {
    /// The same as the header `Last-Event-ID`, which has precedence. Only for event streams
    #[param(rename = "lastEventId")]
    last_event_id: Option<String>,
}

/// `If-None-Match` of a read
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct IfNoneMatchParams {
    /// The version that the client has: 304 if the stream is still at this version
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// The headers of an append without its precondition
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "for the OpenAPI document")]
pub struct AppendParams {
    /// Determines the ids of events without an `event_id`, 1 to 255 characters
    #[param(rename = "Idempotency-Key")]
    idempotency_key: Option<String>,
    /// The default for events without a `correlation_id`: a UUID, or another text, which becomes its UUIDv5
    #[param(rename = "X-Correlation-Id")]
    correlation_id: Option<String>,
    /// The default for events without a `causation_id`: a UUID, or another text, which becomes its UUIDv5
    #[param(rename = "X-Causation-Id")]
    causation_id: Option<String>,
}
