//! `GET /groups/{group_name}/parked`: the parked streams of a group.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::name::check_path_name;
use crate::http::base_path::link;
use crate::http::cache::{NO_CACHE, etag};
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::{GroupPath, StreamPath};
use crate::http::extract::query::{FromQuery, NoQuery, Parameters, Query};
use crate::http::openapi::parameters::{GroupParams, ParkedStreamParams};
use crate::http::openapi::responses::{GroupNotFound, ParkedStreamNotFound, ReadProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::field_error::FieldError;
use crate::http::representation::format::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::representation::response::{json, stored_json};
use crate::http::routes::groups::shared::{ParkedStreamOut, of_group, open_readable};
use crate::store::groups::parked::ParkedQuery;
use crate::wire::event::EventSchema;
use crate::wire::path::segment;

/// A page of the parked streams.
#[derive(Serialize, ToSchema)]
pub struct ParkedStreamList {
    parked_streams: Vec<ParkedStreamOut>,
    /// The path of the next page; null at the end.
    next: Option<String>,
}

/// A parked stream with the event that failed.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedStreamWithEvent)]
pub struct ParkedStreamWithEventOut {
    #[serde(flatten)]
    parked: ParkedStreamOut,
    #[schema(value_type = EventSchema)]
    event: Box<RawValue>,
}

/// The query parameters.
pub struct ParkedParameters {
    after: (String, String),
    limit: usize,
    aggregate_type: Option<String>,
    for_good: bool,
}

impl FromQuery for ParkedParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let after = match query.take("after")? {
            None => (String::new(), String::new()),
            Some(text) => {
                let names = text.split_once('/').filter(|(aggregate_type, aggregate_id)| {
                    check_path_name(aggregate_type).is_ok() && check_path_name(aggregate_id).is_ok()
                });
                let detail = "must be an aggregate type and an aggregate id, like Order/ord-1";
                let (aggregate_type, aggregate_id) =
                    names.ok_or_else(|| ApiError::invalid(FieldError::parameter("after", detail)))?;
                (aggregate_type.to_owned(), aggregate_id.to_owned())
            }
        };
        let limit = query.take_number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        let aggregate_type = query.take_path_name("aggregate_type")?;
        let for_good = query.take_flag("for_good")?;
        query.finish()?;
        Ok(Self { after, limit, aggregate_type, for_good })
    }
}

/// List the parked streams
#[utoipa::path(get, path = "/groups/{group_name}/parked", operation_id = "list_parked_streams", tag = "groups",
    params(
        GroupParams,
        ("after" = Option<String>, Query,
            description = "Begins after this stream: its type and its id with a slash between, like `Order/ord-1`"),
        ("limit" = Option<u64>, Query, description = "1 to 1000, default 100", minimum = 1, maximum = 1000),
        ("aggregate_type" = Option<String>, Query, description = "Only streams of this type"),
        ("for_good" = Option<bool>, Query, description = "`true`: only streams whose next try an operator decides"),
    ),
    responses(
        (status = 200, description = "A page of the parked streams, in the byte order of types and ids",
            body = ParkedStreamList),
        GroupNotFound,
        ReadProblems,
    ))]
pub async fn list_parked_streams(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    GroupPath(name): GroupPath,
    Parameters(parameters): Parameters<ParkedParameters>,
) -> ApiResult<Response> {
    let group = open_readable(&app, &caller, &name).await?;
    let ParkedParameters { after, limit, aggregate_type, for_good } = parameters;
    let query = ParkedQuery {
        after: (&after.0, &after.1),
        aggregate_type: aggregate_type.as_deref(),
        aggregate_id: None,
        only_for_good: for_good,
        limit: limit + 1,
    };
    let mut parked = group.parked_streams(query).await.map_err(|error| of_group(error, &name))?;
    let has_more = parked.len() > limit;
    parked.truncate(limit);
    let next = parked.last().filter(|_| has_more).map(|last| {
        let after = format!("{}/{}", last.aggregate_type, last.aggregate_id);
        let mut parameters = vec![("after", after), ("limit", limit.to_string())];
        parameters.extend(aggregate_type.map(|name| ("aggregate_type", name)));
        parameters.extend(for_good.then(|| ("for_good", "true".to_owned())));
        link(&format!("/groups/{}/parked", segment(&name)), &parameters)
    });
    Ok(json(ParkedStreamList { parked_streams: ParkedStreamOut::read_all(&app, parked).await?, next }))
}

/// Read a parked stream with the event that failed
#[utoipa::path(get, path = "/groups/{group_name}/parked/{aggregate_type}/{aggregate_id}",
    operation_id = "read_parked_stream", tag = "groups",
    params(ParkedStreamParams),
    responses(
        (status = 200, description = "The parked stream", body = ParkedStreamWithEventOut),
        ParkedStreamNotFound,
        ReadProblems,
    ))]
pub async fn read_parked_stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    GroupPath(name): GroupPath,
    StreamPath(stream): StreamPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let group = open_readable(&app, &caller, &name).await?;
    let parked = group.parked_stream(&stream).await.map_err(|error| of_group(error, &name))?;
    let event = group.failed_event(&parked).await?;
    let event = event.ok_or_else(|| ApiError::internal(format!("the failed event of {stream} is not in the log")))?;
    let event = String::from_utf8(event.json.to_vec()).map_err(ApiError::internal)?;
    let tag = etag(parked.last_processed_position);
    let parked = ParkedStreamOut::read_all(&app, vec![parked]).await?.into_iter().next();
    let parked = parked.ok_or_else(|| ApiError::internal("a parked stream has no version"))?;
    let out = ParkedStreamWithEventOut { parked, event: stored_json(event)? };
    Ok(([(header::ETAG, tag), (header::CACHE_CONTROL, NO_CACHE)], Json(out)).into_response())
}
