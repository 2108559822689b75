//! The caller of a request, and what it may do.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::app::App;
use crate::domain::access::{Access, Pattern, Scope};
use crate::domain::append::AppendRequest;
use crate::http::problem::error::{ApiError, ApiResult};
use crate::keyring::Key;

/// The caller of a request. Handlers check its permissions if the aggregate types are not in the path, but in a body,
/// in a filter, or in the log.
#[derive(Clone)]
pub struct Caller(Option<Arc<Key>>);

/// The id of the key with which a request was authenticated, for the log.
#[derive(Debug, Clone)]
pub struct AuthenticatedKeyId(pub String);

impl Caller {
    /// Returns a caller with all permissions: the service requires no keys, or the route is public.
    pub fn unrestricted() -> Self {
        Self(None)
    }

    /// Returns a caller with the grants of a key.
    pub fn with_key(key: Arc<Key>) -> Self {
        Self(Some(key))
    }

    /// Returns the key; `None` if the service requires no keys.
    pub fn key(&self) -> Option<&Key> {
        self.0.as_deref()
    }

    /// Returns the id of the key; `None` if the service requires no keys.
    pub fn key_id(&self) -> Option<&str> {
        self.0.as_ref().map(|key| key.key_id())
    }

    /// Counts events to append. Fails if they exceed the quota of the key.
    pub fn count_events(&self, events: usize) -> ApiResult<()> {
        self.0.as_ref().map_or(Ok(()), |key| key.count_events(events)).map_err(ApiError::quota_exceeded)
    }

    /// Counts the bytes of a request body. Fails if they exceed the quota of the key.
    pub fn count_bytes(&self, bytes: usize) -> ApiResult<()> {
        self.0.as_ref().map_or(Ok(()), |key| key.count_bytes(bytes)).map_err(ApiError::quota_exceeded)
    }

    fn access(&self) -> Option<&Access> {
        self.0.as_ref().map(|key| &key.access)
    }

    /// Returns whether the caller has the scope on a name.
    pub fn may(&self, scope: Scope, name: &str) -> bool {
        self.access().is_none_or(|access| access.may(scope, name))
    }

    /// Fails unless the caller has the scope on a name.
    pub fn check(&self, scope: Scope, name: &str) -> ApiResult<()> {
        if self.may(scope, name) {
            Ok(())
        } else {
            let kind = if scope == Scope::Project { "projection or group" } else { "type" };
            Err(ApiError::forbidden(scope, &format!("the {kind} {name:?}")))
        }
    }

    /// Fails unless the caller has the scope on all types.
    pub fn check_all(&self, scope: Scope) -> ApiResult<()> {
        let may = self.access().is_none_or(|access| access.may_all(scope));
        if may { Ok(()) } else { Err(ApiError::forbidden(scope, "all types (a grant on *)")) }
    }

    /// Fails unless the caller has the scope on at least one type.
    pub fn check_any(&self, scope: Scope) -> ApiResult<()> {
        let may = self.access().is_none_or(|access| access.may_any(scope));
        if may { Ok(()) } else { Err(ApiError::forbidden(scope, "any type")) }
    }

    /// Returns whether the caller may read all types.
    pub fn may_read_all(&self) -> bool {
        self.access().is_none_or(|access| access.may_all(Scope::Read))
    }

    /// Returns whether the caller may read all streams to which a request appends.
    pub fn may_read_streams(&self, request: &AppendRequest) -> bool {
        request.appends.iter().all(|append| self.may(Scope::Read, append.stream.aggregate_type()))
    }

    /// Returns the types that the caller may read; `None` if it may read all types.
    pub fn readable_types(&self) -> Option<Vec<Pattern>> {
        let access = self.access().filter(|access| !access.may_all(Scope::Read))?;
        Some(access.patterns(Scope::Read).cloned().collect())
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        if !app.settings.needs_keys {
            return Ok(Self::unrestricted());
        }
        Ok(parts.extensions.get().cloned().expect("every route is behind `authorize`"))
    }
}
