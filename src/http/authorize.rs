//! Authentication and authorization: the key of a request, the permission that its route requires, and the key's quota.
//!
//! [`required_permission`] is the one table of permissions. A route that is not in it requires the scope
//! `admin` on all types.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;

use crate::app::App;
use crate::domain::access::Scope;
use crate::http::activity::HeldShare;
use crate::http::caller::{AuthenticatedKeyId, Caller};
use crate::http::extract::headers::single;
use crate::http::problem::code::Code;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::keyring::{AuthenticationError, Key};

/// What a route requires of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredPermission {
    /// No key: probes, metrics, pages.
    Public,
    /// A valid key with any grants.
    ValidKey,
    /// The scope on the aggregate type in the path.
    OnTypeInPath(Scope),
    /// The scope `project` on the projection or the group in the path.
    OnProjectionInPath,
    /// The scope on at least one type. The handler checks each type of the request.
    OnAnyType(Scope),
    /// The scope on all types.
    OnAllTypes(Scope),
}

/// Returns the permission that a route requires, by its template.
pub fn required_permission(method: &Method, route: &str) -> RequiredPermission {
    use RequiredPermission::{OnAllTypes, OnAnyType, OnProjectionInPath, OnTypeInPath, Public, ValidKey};
    use Scope::{Admin, Append, Read};
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route {
        "/" | "/assets/{file}" | "/openapi.json" | "/livez" | "/readyz" | "/metrics" | "/problems/{code}" => Public,
        _ if route == "/docs" || route.starts_with("/docs/") => Public,
        _ if route == "/console" || route.starts_with("/console/") => Public,
        "/streams/{aggregate_type}/{aggregate_id}" if *method == Method::POST => OnTypeInPath(Append),
        "/appends" => OnAnyType(Append),
        "/streams" | "/events" | "/events/{event_id}" => OnAnyType(Read),
        "/snapshots/{aggregate_type}/{aggregate_id}" if !reads => OnTypeInPath(Append),
        // The handlers check `admin` on every type of an erasure.
        "/erasures" | "/erasures/{erasure}" => OnAnyType(Admin),
        "/keys/self" => ValidKey,
        "/reducers" => OnAnyType(Read),
        "/reducers/{aggregate_type}" if !reads => OnTypeInPath(Admin),
        "/reducers/{aggregate_type}/test" => OnTypeInPath(Read),
        "/projections" => OnAnyType(Read),
        "/projections/{projection_name}" if !reads => OnProjectionInPath,
        "/projections/{projection_name}" | "/projections/{projection_name}/history" => OnAnyType(Read),
        // The handlers check `read` or `admin` on the types of the group's filter.
        "/groups" | "/groups/{group_name}/history" | "/groups/{group_name}/parked" => OnAnyType(Read),
        "/groups/{group_name}"
        | "/groups/{group_name}/claims"
        | "/groups/{group_name}/claims/{claim_id}"
        | "/groups/{group_name}/parked/{aggregate_type}/{aggregate_id}" => {
            if reads {
                OnAnyType(Read)
            } else {
                OnProjectionInPath
            }
        }
        "/groups/{group_name}/retries" => OnProjectionInPath,
        "/stats/tables" => OnAllTypes(Read),
        "/stats"
        | "/stats/aggregate-types"
        | "/stats/snapshot-coverage"
        | "/stats/largest-aggregates"
        | "/stats/rates" => OnAnyType(Read),
        "/streams/{aggregate_type}"
        | "/streams/{aggregate_type}/{aggregate_id}"
        | "/streams/{aggregate_type}/{aggregate_id}/{version}"
        | "/aggregates/{aggregate_type}/{aggregate_id}"
        | "/aggregates/{aggregate_type}/{aggregate_id}/state"
        | "/aggregates/{aggregate_type}/{aggregate_id}/states"
        | "/snapshots/{aggregate_type}/{aggregate_id}"
        | "/reducers/{aggregate_type}"
        | "/stats/aggregates/{aggregate_type}/{aggregate_id}" => OnTypeInPath(Read),
        _ => OnAllTypes(Admin),
    }
}

/// Handles a request only if its key has the required permission. A streamed response ends when its key expires
/// or is revoked.
///
/// It is a layer of every route if the service requires keys.
pub async fn authorize(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    // A request that matches no route needs only a valid key: its response is 404.
    let route = parts.extensions.get::<MatchedPath>();
    let required =
        route.map_or(RequiredPermission::ValidKey, |route| required_permission(&parts.method, route.as_str()));
    if required == RequiredPermission::Public {
        parts.extensions.insert(Caller::unrestricted());
        return next.run(Request::from_parts(parts, body)).await;
    }
    let key = match admit(&app, &parts, required).await {
        Ok(key) => key,
        Err((error, key_id)) => {
            app.metrics.keys_refused.with_label_values(&[error.problem().code.as_str()]).inc();
            let mut response = error.into_response();
            if let Some(key_id) = key_id {
                response.extensions_mut().insert(key_id);
            }
            return response;
        }
    };
    let ended = key.ended.clone();
    let key_id = AuthenticatedKeyId(key.key_id().to_owned());
    let client = key.client.clone();
    let Ok(share) = app.requests_in_progress.try_acquire(client.clone(), 1) else {
        let detail = "the key has its share of the requests in progress; nothing was written";
        return ApiError::new(Code::Overloaded, detail).into_response();
    };
    parts.extensions.insert(Caller::with_key(key));
    // Only a read may be cancelled: the client of an append must receive its outcome.
    let only_reads = matches!(parts.method, Method::GET | Method::HEAD);
    let handled = client.scope(next.run(Request::from_parts(parts, body)));
    let mut response = tokio::select! {
        response = handled => response,
        () = ended.cancelled(), if only_reads => {
            return ApiError::unauthenticated("the API key has expired or was revoked").into_response();
        }
    };
    response.extensions_mut().insert(key_id);
    // The listener releases the share with the body.
    response.extensions_mut().insert(HeldShare(Arc::new(share)));
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let until_ended = |body: Body| Body::from_stream(body.into_data_stream().take_until(ended.cancelled_owned()));
    response.map(until_ended)
}

/// Returns the key of a request if it is valid, within its quota, and has the required permission. An error has the id
/// of the key if the key is known.
async fn admit(
    app: &App,
    request: &Parts,
    required: RequiredPermission,
) -> Result<Arc<Key>, (ApiError, Option<AuthenticatedKeyId>)> {
    let key = authenticate(app, &request.headers).await.map_err(|error| (error, None))?;
    let key_id = AuthenticatedKeyId(key.key_id().to_owned());
    check(&key, request, required).map_err(|error| (error, Some(key_id)))?;
    Ok(key)
}

/// Fails unless a key is within its quota and has the required permission.
fn check(key: &Arc<Key>, request: &Parts, required: RequiredPermission) -> ApiResult<()> {
    key.count_request().map_err(ApiError::quota_exceeded)?;
    let caller = Caller::with_key(key.clone());
    match required {
        RequiredPermission::Public | RequiredPermission::ValidKey => Ok(()),
        RequiredPermission::OnTypeInPath(scope) => caller.check(scope, &name_in_path(request.uri.path())),
        RequiredPermission::OnProjectionInPath => caller.check(Scope::Project, &name_in_path(request.uri.path())),
        RequiredPermission::OnAnyType(scope) => caller.check_any(scope),
        RequiredPermission::OnAllTypes(scope) => caller.check_all(scope),
    }
}

async fn authenticate(app: &App, headers: &HeaderMap) -> ApiResult<Arc<Key>> {
    let authorization = single(headers, "Authorization")?;
    let authorization = authorization.ok_or_else(|| ApiError::unauthenticated("the request has no API key"))?;
    let bearer = authorization.to_str().ok().and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| key.trim())
    });
    let presented = bearer
        .ok_or_else(|| ApiError::unauthenticated("the header Authorization does not have the form: Bearer <key>"))?;
    app.keyring.authenticate(presented, app.clock.now(), &app.primary).await.map_err(|error| match error {
        AuthenticationError::UnknownKey => {
            ApiError::unauthenticated("the API key is unknown, has expired or was revoked")
        }
        AuthenticationError::Unavailable(error) => error.into(),
    })
}

/// Returns the aggregate type or the projection in a path: the second segment, or the third one under `/stats`.
fn name_in_path(path: &str) -> String {
    let mut segments = path.trim_start_matches('/').split('/');
    let index = if segments.next() == Some("stats") { 1 } else { 0 };
    let segment = segments.nth(index).unwrap_or_default();
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
