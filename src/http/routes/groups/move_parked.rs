//! `PUT /groups/{group_name}/parked/{aggregate_type}/{aggregate_id}`: try a parked stream again, or skip events of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::domain::event::Position;
use crate::domain::json::EXACT_INTEGER_MAX;
use crate::domain::version::ExpectedVersion;
use crate::groups::error::GroupError;
use crate::http::cache::etag;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::conditional::Precondition;
use crate::http::extract::json_request::JsonRequest;
use crate::http::extract::path::{GroupPath, StreamPath};
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::ParkedStreamParams;
use crate::http::openapi::responses::{ParkedStreamNotFound, WriteProblems};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::problem::schema::ProblemSchema;
use crate::http::routes::groups::shared::{ParkedStreamOut, of_group, open_managed};
use crate::store::groups::parked::ParkedStream;

const EXAMPLE: &str = r#"{"last_processed_position": 5289}"#;

/// The position of a parked stream, to set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ParkedStreamPosition)]
pub struct PositionIn {
    /// The current one: the stream is tried again now. A later one: the events up to it are skipped.
    #[schema(value_type = u64, maximum = 9007199254740991_u64)]
    last_processed_position: i64,
}

/// Try a parked stream again, or skip events of it
///
/// The same position tries the failed event again now. A later position, up to that of the group, skips the events between.
/// A stream without unprocessed events is no longer parked.
#[utoipa::path(put, path = "/groups/{group_name}/parked/{aggregate_type}/{aggregate_id}",
    operation_id = "move_parked_stream", tag = "groups",
    params(
        ParkedStreamParams,
        ("If-Match" = Option<String>, Header, description = "The expected position of the stream, `\"5289\"`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: fails, because the stream is parked"),
    ),
    request_body(content = PositionIn, content_type = "application/json"),
    responses(
        (status = 200, description = "The stream is tried again, or is no longer parked", body = ParkedStreamOut),
        ParkedStreamNotFound,
        (status = 409, description = "The position is before that of the stream", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 412, description = "The stream is at another position", body = ProblemSchema,
            content_type = "application/problem+json"),
        (status = 422, description = "The position is beyond that of the group", body = ProblemSchema,
            content_type = "application/problem+json"),
        WriteProblems,
    ))]
pub async fn move_parked_stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    request: JsonRequest<(GroupPath, StreamPath, NoQuery, Precondition)>,
) -> ApiResult<Response> {
    let JsonRequest { parts: (GroupPath(name), StreamPath(stream), NoQuery, Precondition(expected)), body } = request;
    let position = body.parse::<PositionIn>(EXAMPLE)?.last_processed_position;
    ApiError::check_range("/last_processed_position", position, 0, EXACT_INTEGER_MAX)?;
    let group = open_managed(&app, &caller, &name).await?;
    let before = group.parked_stream(&stream).await.map_err(|error| of_group(error, &name))?;
    let expected = match expected {
        ExpectedVersion::Any | ExpectedVersion::Exists => None,
        ExpectedVersion::Exact(position) => Some(Position::try_from(position).unwrap_or(Position::MAX)),
        ExpectedVersion::None => return Err(GroupError::PositionConflict(before.last_processed_position).into()),
    };
    let moved = group.move_parked_stream(&stream, position, expected).await.map_err(|error| of_group(error, &name))?;
    let out = match moved {
        Some(parked) => ParkedStreamOut::read_all(&app, vec![parked]).await?.into_iter().next(),
        // No event of the stream is left.
        None => {
            let version = before.event.version;
            let parked = ParkedStream { last_processed_position: position, retry_at: None, ..before };
            Some(ParkedStreamOut::new(parked, version))
        }
    };
    let out = out.ok_or_else(|| ApiError::internal("a parked stream has no version"))?;
    Ok(([(header::ETAG, etag(position))], Json(out)).into_response())
}
