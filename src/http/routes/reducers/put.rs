//! `PUT /reducers/{aggregate_type}`: register the reducer of a type, or replace it.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::path::WritableTypePath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::TypeParams;
use crate::http::openapi::responses::WriteProblems;
use crate::http::problem::error::ApiResult;
use crate::http::problem::schema::ProblemSchema;
use crate::http::routes::reducers::shared::{ReducerOut, validate_interval, validate_source};
use crate::reducers::trial::Trial;

/// The smallest body of a PUT.
const EXAMPLE: &str = r#"{"language": "merge-patch"}"#;

/// A reducer to store.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewReducer)]
pub struct ReducerIn<'b> {
    /// `javascript` or `merge-patch`
    language: Cow<'b, str>,
    /// JavaScript: an object with a handler for each event type, besides `init` and `$any`. Absent for merge-patch.
    source: Option<String>,
    /// Events between two snapshots, 1 to 10000. Default: `SNAPSHOT_EVERY`. 50 to 100 suit most types.
    #[schema(minimum = 1, maximum = 10000)]
    snapshot_every: Option<u32>,
}

/// Register or replace the reducer of a type
///
/// Snapshots of the former reducer are ignored from then on. A reducer that is equal to the current one keeps its
/// revision.
#[utoipa::path(put, path = "/reducers/{aggregate_type}", operation_id = "put_reducer", tag = "aggregates",
    params(TypeParams),
    request_body(content = ReducerIn, content_type = "application/json"),
    responses(
        (status = 200, description = "It has replaced another reducer, or is equal to the current one",
            body = ReducerOut),
        (status = 201, description = "It is the first reducer of the type", body = ReducerOut),
        (status = 422, description = "The source cannot be used", body = ProblemSchema,
            content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn put_reducer(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    request: JsonRequest<(WritableTypePath, NoQuery)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (WritableTypePath(aggregate_type), NoQuery), body } = request;
    let reducer: ReducerIn<'_> = body.parse(EXAMPLE)?;
    let snapshot_every = validate_interval(reducer.snapshot_every.unwrap_or(app.settings.snapshot_every))?;
    let source = validate_source(&reducer.language, reducer.source, snapshot_every)?;
    // A source that cannot be used is refused here, and not at the first fold.
    Trial::start(&app.workers, &aggregate_type, &source).await?.finish().await?;
    let (reducer, created) = app.primary.put_reducer(&aggregate_type, source).await?;
    app.snapshotter.refresh().await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(ReducerOut::from(reducer))).into_response())
}
