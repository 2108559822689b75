//! `GET /streams/{aggregate_type}`: list the streams of a type.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::version::Version;
use crate::http::base_path::link;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::name_prefix::{ids_of_prefix, take_prefix};
use crate::http::extract::path::TypePath;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::parameters::TypeParams;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::format::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::representation::response::json;
use crate::store::streams::head::ListedStream;
use crate::wire::path::segment;
use crate::wire::time::format_time;

/// A page of the streams of a type.
#[derive(Serialize, ToSchema)]
pub struct StreamList {
    aggregate_type: String,
    streams: Vec<ListedStreamOut>,
    /// The path of the next page; null at the end.
    next: Option<String>,
}

/// A stream and the version of its latest event.
#[derive(Serialize, ToSchema)]
#[schema(as = ListedStream)]
pub struct ListedStreamOut {
    aggregate_id: String,
    version: Version,
    #[schema(format = DateTime)]
    first_occurred_at: String,
    #[schema(format = DateTime)]
    last_occurred_at: String,
}

/// The query parameters.
pub struct ListParameters {
    /// The beginning of the aggregate ids in the list.
    prefix: Option<String>,
    /// The aggregate id after which the list begins.
    after: Option<String>,
    limit: usize,
}

impl FromQuery for ListParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let after = query.take_path_name("after")?;
        let limit = query.take_number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        let prefix = take_prefix(&mut query)?;
        query.finish()?;
        Ok(Self { prefix, after, limit })
    }
}

impl From<ListedStream> for ListedStreamOut {
    fn from(listed: ListedStream) -> Self {
        Self {
            aggregate_id: listed.aggregate_id,
            version: listed.head.version,
            first_occurred_at: format_time(listed.head.first_occurred_at),
            last_occurred_at: format_time(listed.head.last_occurred_at),
        }
    }
}

/// List the streams of a type in the byte order of their ids
#[utoipa::path(get, path = "/streams/{aggregate_type}", operation_id = "list_streams", tag = "streams",
    params(
        TypeParams,
        ("prefix" = Option<String>, Query, description = "Only aggregate ids that begin with this text"),
        ("after" = Option<String>, Query, description = "Begins after this aggregate id"),
        ("limit" = Option<u64>, Query, description = "1 to 1000, default 100", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page of streams; empty if the type has no stream", body = StreamList),
        ReadProblems,
    ))]
pub async fn list_streams(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    TypePath(aggregate_type): TypePath,
    Parameters(ListParameters { prefix, after, limit }): Parameters<ListParameters>,
) -> ApiResult<Response> {
    let ids = ids_of_prefix(prefix.as_deref());
    // One more than requested shows whether there is a next page.
    let mut streams =
        app.primary.list_streams(&aggregate_type, &ids, after.as_deref().unwrap_or(""), limit + 1).await?;
    let is_last = streams.len() <= limit;
    streams.truncate(limit);
    let next = streams.last().filter(|_| !is_last).map(|last| {
        let mut parameters = vec![("after", last.aggregate_id.clone()), ("limit", limit.to_string())];
        parameters.extend(prefix.as_ref().map(|prefix| ("prefix", prefix.clone())));
        link(&format!("/streams/{}", segment(&aggregate_type)), &parameters)
    });
    let streams = streams.into_iter().map(ListedStreamOut::from).collect();
    Ok(json(StreamList { aggregate_type, streams, next }))
}
