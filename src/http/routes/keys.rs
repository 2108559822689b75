//! `GET /keys/self`: what the caller's API key may do.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::caller::Caller;
use crate::http::extract::accepts::AcceptsJson;
use crate::http::extract::query::NoQuery;
use crate::http::openapi::responses::ReadProblems;
use crate::http::problem::error::ApiResult;
use crate::http::representation::response::json;
use crate::wire::time::format_time;

/// The API key of the request. The members are null if the service requires no keys.
#[derive(Serialize, ToSchema)]
#[schema(as = OwnKey)]
pub struct OwnKeyOut {
    /// `keys`, or `none` if the service requires no keys: then every client may do everything.
    #[schema(example = "keys")]
    auth: &'static str,
    /// The public id of the key, which the log of the service has.
    key_id: Option<String>,
    name: Option<String>,
    /// A scope and a pattern each, like `read:Order*`.
    grants: Option<Vec<String>>,
    /// Null also for a key that does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Read what the key of the request may do
#[utoipa::path(get, path = "/keys/self", operation_id = "read_own_key", tag = "operations", responses(
    (status = 200, description = "The key, its name and its grants", body = OwnKeyOut),
    ReadProblems,
))]
pub async fn read_own_key(
    State(app): State<Arc<App>>,
    caller: Caller,
    _: AcceptsJson,
    _: NoQuery,
) -> ApiResult<Response> {
    let key = caller.key();
    Ok(json(OwnKeyOut {
        auth: app.settings.auth_name(),
        key_id: key.map(|key| key.key_id().to_owned()),
        name: key.map(|key| key.name().to_owned()),
        grants: key.map(|key| key.grants().to_vec()),
        expires_at: key.and_then(|key| key.expires_at()).map(format_time),
    }))
}
