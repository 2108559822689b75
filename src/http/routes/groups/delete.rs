//! `DELETE /groups/{group_name}`: delete a consumer group.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::app::App;
use crate::domain::access::Scope;
use crate::http::caller::Caller;
use crate::http::extract::path::GroupPath;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::parameters::GroupParams;
use crate::http::openapi::responses::{DeleteProblems, GroupNotFound};
use crate::http::problem::error::{ApiError, ApiResult};
use crate::http::routes::groups::shared::check_filter;

/// Delete a consumer group
///
/// Its claims are lost, and its parked streams and its position are deleted.
#[utoipa::path(delete, path = "/groups/{group_name}", operation_id = "delete_group", tag = "groups",
    params(GroupParams),
    responses((status = 204, description = "Deleted"), GroupNotFound, DeleteProblems))]
pub async fn delete_group(
    State(app): State<Arc<App>>,
    caller: Caller,
    GroupPath(name): GroupPath,
    _: NoQuery,
) -> ApiResult<StatusCode> {
    let group = app.primary.group(&name).await?.ok_or_else(|| ApiError::group_not_found(&name))?;
    check_filter(&caller, Scope::Admin, &group.filter)?;
    let existed = app.primary.delete_group(&name).await?;
    app.groups.drop_group(&name);
    app.awaited_projections.report(&name, None);
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::group_not_found(&name)) }
}
