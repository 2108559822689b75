//! `GET /groups/{group_name}`: read a consumer group.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::http::cache::{NO_CACHE, etag};
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::path::GroupPath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::GroupParams;
use crate::http::openapi::responses::{GroupNotFound, ReadProblems};
use crate::http::problem::error::ApiResult;
use crate::http::routes::groups::shared::{GroupOut, of_group};

/// Read a consumer group
#[utoipa::path(get, path = "/groups/{group_name}", operation_id = "read_group", tag = "groups",
    params(GroupParams),
    responses(
        (status = 200, description = "The group with the states of its partitions", body = GroupOut),
        GroupNotFound,
        ReadProblems,
    ))]
pub async fn read_group(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    GroupPath(name): GroupPath,
    _: NoQuery,
) -> ApiResult<Response> {
    let group = app.groups.open_current(&name).await.map_err(|error| of_group(error, &name))?;
    let out = GroupOut::read(&app, &group).await?;
    let headers = [(header::CACHE_CONTROL, NO_CACHE), (header::ETAG, etag(group.group().revision))];
    Ok((headers, Json(out)).into_response())
}
