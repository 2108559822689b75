//! `GET /groups`: list the consumer groups.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::groups::error::GroupError;
use crate::http::base_path::link;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::{FromQuery, Parameters, Query};
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::format::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::http::representation::response::json;
use crate::http::routes::groups::shared::GroupOut;

/// A page of the groups.
#[derive(Serialize, ToSchema)]
pub struct GroupList {
    groups: Vec<GroupOut>,
    /// The path of the next page; null at the end.
    next: Option<String>,
}

/// The query parameters.
pub struct ListParameters {
    after: String,
    limit: usize,
}

impl FromQuery for ListParameters {
    fn from_query(mut query: Query) -> ApiResult<Self> {
        let after = query.take_path_name("after")?;
        let limit = query.take_number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        query.finish()?;
        Ok(Self { after: after.unwrap_or_default(), limit })
    }
}

/// List the consumer groups
#[utoipa::path(get, path = "/groups", operation_id = "list_groups", tag = "groups",
    params(
        ("after" = Option<String>, Query, description = "Begins after this name"),
        ("limit" = Option<u64>, Query, description = "1 to 1000, default 100", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page of the groups, in the byte order of their names", body = GroupList),
        ReadProblems,
    ))]
pub async fn list_groups(
    State(app): State<Arc<App>>,
    _: AcceptsJson,
    Parameters(ListParameters { after, limit }): Parameters<ListParameters>,
) -> ApiResult<Response> {
    let mut names: Vec<String> =
        app.primary.groups(&after, limit + 1).await?.into_iter().map(|group| group.group_name).collect();
    let has_more = names.len() > limit;
    names.truncate(limit);
    let mut groups = Vec::with_capacity(names.len());
    for name in &names {
        match app.groups.open(name).await {
            Ok(group) => groups.push(GroupOut::read(&app, &group).await?),
            // It was deleted in the meantime.
            Err(GroupError::GroupNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let next = names
        .last()
        .filter(|_| has_more)
        .map(|last| link("/groups", &[("after", last.clone()), ("limit", limit.to_string())]));
    Ok(json(GroupList { groups, next }))
}
