//! `GET /stats/aggregate-types`: the totals of each aggregate type.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::{json, stored_json};
use crate::http::routes::stats::shared::readable_type_statistics;
use crate::store::admin::statistics::TypeStatistics;
use crate::wire::time::format_time;

/// All aggregate types, in the byte order of their names.
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateTypeStatsList)]
pub struct AggregateTypesOut {
    as_of_position: Position,
    aggregate_types: Vec<AggregateTypeOut>,
}

/// The number of events and aggregates of one type.
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateTypeStats)]
pub struct AggregateTypeOut {
    aggregate_type: String,
    events: i64,
    streams: i64,
    snapshots: i64,
    #[schema(format = DateTime)]
    last_occurred_at: String,
    /// `[{"event_type", "events"}]`, in the byte order of the event types.
    #[schema(value_type = Vec<serde_json::Value>)]
    event_types: Box<RawValue>,
}

impl AggregateTypeOut {
    fn new(statistics: TypeStatistics) -> ApiResult<Self> {
        Ok(Self {
            aggregate_type: statistics.aggregate_type,
            events: statistics.events,
            streams: statistics.streams,
            snapshots: statistics.snapshots,
            last_occurred_at: format_time(statistics.last_occurred_at),
            event_types: stored_json(statistics.event_types)?,
        })
    }
}

/// Get the totals of each aggregate type
#[utoipa::path(get, path = "/stats/aggregate-types", operation_id = "read_aggregate_type_stats", tag = "operations",
    responses(
        (status = 200, description = "Each type that has events", body = AggregateTypesOut),
        ReadProblems,
    ))]
pub async fn read_aggregate_type_stats(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    _: NoQuery,
) -> ApiResult<Response> {
    let counted = readable_type_statistics(&app, &caller).await?;
    let aggregate_types = counted.value.into_iter().map(AggregateTypeOut::new).collect::<ApiResult<_>>()?;
    Ok(json(AggregateTypesOut { as_of_position: counted.position, aggregate_types }))
}
