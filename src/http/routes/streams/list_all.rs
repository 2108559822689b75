//! `GET /streams`: list the streams of all types that the caller may read.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::name::{NameFault, check_path_name};
use crate::domain::name_range::NameRange;
use crate::domain::version::Version;
use crate::http::base_path::link;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::name_prefix::{ids_of_prefix, take_prefix};
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::representation::format::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::representation::response::json;
use crate::store::streams::of_types::{ListPlace, ListRead, StreamOfType};
use crate::wire::time::format_time;

/// A page of the streams of all types.
#[derive(Serialize, ToSchema)]
#[schema(as = AllStreamList)]
pub struct AllStreamsOut {
    streams: Vec<StreamOfTypeOut>,
    /// The path of the next page; null at the end.
    next: Option<String>,
}

/// A stream with its type, and the version of its latest event.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamOfType)]
pub struct StreamOfTypeOut {
    aggregate_type: String,
    aggregate_id: String,
    version: Version,
    #[schema(format = DateTime)]
    first_occurred_at: String,
    #[schema(format = DateTime)]
    last_occurred_at: String,
}

/// The query parameters.
pub struct ListAllParameters {
    /// The beginning of the aggregate ids in the list.
    prefix: Option<String>,
    after: ListPlace,
    limit: usize,
}

impl FromQuery for ListAllParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let prefix = take_prefix(&mut query)?;
        let after = query.take("after")?.map_or_else(|| Ok(ListPlace::default()), |text| parse_place(&text))?;
        let limit = query.take_number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        query.finish()?;
        Ok(Self { prefix, after, limit })
    }
}

/// Parses a place: a type and an id with a slash between them, which no name has. An empty id is before the first
/// stream of the type.
fn parse_place(text: &str) -> ApiResult<ListPlace> {
    let invalid = |detail: String| ApiError::invalid(FieldError::parameter("after", detail));
    let (aggregate_type, aggregate_id) = text
        .split_once('/')
        .ok_or_else(|| invalid("must be an aggregate type and an aggregate id, like Order/ord-1".to_owned()))?;
    let checked: Result<(), NameFault> = check_path_name(aggregate_type)
        .and_then(|()| if aggregate_id.is_empty() { Ok(()) } else { check_path_name(aggregate_id) });
    checked.map_err(|fault| invalid(format!("both names {fault}")))?;
    Ok(ListPlace { aggregate_type: aggregate_type.to_owned(), aggregate_id: aggregate_id.to_owned() })
}

impl From<StreamOfType> for StreamOfTypeOut {
    fn from(listed: StreamOfType) -> Self {
        Self {
            aggregate_type: listed.aggregate_type,
            aggregate_id: listed.aggregate_id,
            version: listed.head.version,
            first_occurred_at: format_time(listed.head.first_occurred_at),
            last_occurred_at: format_time(listed.head.last_occurred_at),
        }
    }
}

/// List the streams of all types
///
/// In the byte order of types and ids. A page may have fewer streams than `limit` although more follow: only
/// `"next": null` marks the end.
#[utoipa::path(get, path = "/streams", operation_id = "list_all_streams", tag = "streams",
    params(
        ("prefix" = Option<String>, Query, description = "Only aggregate ids that begin with this text"),
        ("after" = Option<String>, Query,
            description = "Begins after this stream: its type and its id with a slash between, like `Order/ord-1`"),
        ("limit" = Option<u64>, Query, description = "1 to 1000, default 100", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page of the streams of the types that the key may read", body = AllStreamsOut),
        ReadProblems,
    ))]
pub async fn list_all_streams(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    Parameters(ListAllParameters { prefix, after, limit }): Parameters<ListAllParameters>,
) -> ApiResult<Response> {
    let types = caller.readable_types().map_or_else(|| vec![NameRange::all()], |types| NameRange::of_patterns(&types));
    let ids = ids_of_prefix(prefix.as_deref());
    let time = app.feed.limits().scan.time;
    let read = ListRead { types: &types, ids: &ids, after: &after, limit, time };
    let page = app.primary.list_streams_of_types(read).await?;
    let next = page.next.map(|place| {
        let after = format!("{}/{}", place.aggregate_type, place.aggregate_id);
        let mut parameters = vec![("after", after), ("limit", limit.to_string())];
        parameters.extend(prefix.map(|prefix| ("prefix", prefix)));
        link("/streams", &parameters)
    });
    Ok(json(AllStreamsOut { streams: page.streams.into_iter().map(StreamOfTypeOut::from).collect(), next }))
}
