//! `GET /stats/largest-aggregates`: the aggregates with the most events.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::access::Scope;
use crate::domain::event::Position;
use crate::domain::version::Version;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::json;
use crate::http::routes::stats::shared::{count_new_events, readable_type_statistics};
use crate::store::admin::statistics::LARGEST_MAX;

const LIMIT_DEFAULT: i64 = 10;

/// The aggregates with the most events. Of two with the same number, the one that reached it first comes first.
#[derive(Serialize, ToSchema)]
#[schema(as = LargestAggregateList)]
pub struct LargestAggregatesOut {
    as_of_position: Position,
    aggregates: Vec<LargeAggregateOut>,
}

/// An aggregate and the number of its events.
#[derive(Serialize, ToSchema)]
#[schema(as = LargeAggregate)]
pub struct LargeAggregateOut {
    aggregate_type: String,
    aggregate_id: String,
    events: Version,
}

/// The query parameters.
pub struct LargestParameters {
    limit: i64,
    aggregate_type: Option<String>,
}

impl FromQuery for LargestParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let limit = query.take_number("limit", 1, LARGEST_MAX)?.unwrap_or(LIMIT_DEFAULT);
        let aggregate_type = query.take_path_name("aggregate_type")?;
        query.finish()?;
        Ok(Self { limit, aggregate_type })
    }
}

/// List the aggregates with the most events
///
/// A key that reads some types only gets the aggregates of these types.
#[utoipa::path(get, path = "/stats/largest-aggregates", operation_id = "read_largest_aggregates", tag = "operations",
    params(
        ("limit" = Option<u64>, Query, description = "1 to 1000, default 10", minimum = 1, maximum = 1000),
        ("aggregate_type" = Option<String>, Query, description = "Only aggregates of this type"),
    ),
    responses((status = 200, description = "The largest first", body = LargestAggregatesOut), ReadProblems))]
pub async fn read_largest_aggregates(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    Parameters(LargestParameters { limit, aggregate_type }): Parameters<LargestParameters>,
) -> ApiResult<Response> {
    if let Some(aggregate_type) = &aggregate_type {
        caller.check(Scope::Read, aggregate_type)?;
    }
    let counted = if aggregate_type.is_none() && !caller.may_read_all() {
        let readable = readable_type_statistics(&app, &caller).await?.value.into_iter();
        let types: Vec<_> = readable.map(|known| known.aggregate_type).collect();
        app.primary.largest_aggregates_of(&types, limit).await?
    } else {
        count_new_events(&app).await?;
        app.primary.largest_aggregates(aggregate_type.as_deref(), limit).await?
    };
    let aggregates = counted.value.into_iter().map(|large| LargeAggregateOut {
        aggregate_type: large.aggregate_type,
        aggregate_id: large.aggregate_id,
        events: large.events,
    });
    Ok(json(LargestAggregatesOut { as_of_position: counted.position, aggregates: aggregates.collect() }))
}
