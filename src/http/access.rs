//! Who may send which request: the key that it carries, the right that its route needs, and its quota.
//!
//! What a route needs stands in one table, [`needed`]; a route that is not in it needs everything. Where the types of events
//! are known only later (in a body, in a filter, in the log itself), the handler asks its [`Caller`].

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;

use super::headers::single;
use super::middleware::AnsweredTo;
use super::problem::{Code, Problem};
use crate::app::App;
use crate::domain::access::{Access, Pattern, Scope};
use crate::keyring::{Key, Refused};

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Nothing: probes, metrics, pages.
    Nothing,
    /// A key, whatever it may do.
    Key,
    /// The scope on the aggregate type in the path.
    OnTypeInPath(Scope),
    /// The scope on some type; the handler looks at each.
    OnSome(Scope),
    /// The scope on all types.
    OnAll(Scope),
}

/// What a route needs, by its template.
pub fn needed(method: &Method, route: &str) -> Needed {
    use Needed::{Nothing, OnAll, OnSome, OnTypeInPath};
    use Scope::{Admin, Append, Read};
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match route {
        "/" | "/openapi.json" | "/livez" | "/readyz" | "/metrics" | "/problems/{code}" => Nothing,
        _ if route == "/docs" || route.starts_with("/docs/") => Nothing,
        "/streams/{aggregate_type}/{aggregate_id}" if *method == Method::POST => OnTypeInPath(Append),
        "/appends" => OnSome(Append),
        "/events" | "/events/{event_id}" => OnSome(Read),
        "/snapshots/{aggregate_type}/{aggregate_id}" if !reads => OnTypeInPath(Append),
        "/reducers" => OnSome(Read),
        "/reducers/{aggregate_type}" | "/reducers/{aggregate_type}/test" if !reads => OnTypeInPath(Admin),
        "/projections" => OnSome(Read),
        "/projections/{projection_name}" if *method == Method::DELETE => OnSome(Admin),
        "/projections/{projection_name}" => OnSome(Read),
        "/stats" | "/stats/tables" => OnAll(Read),
        "/stats/aggregate-types" | "/stats/snapshot-coverage" | "/stats/largest-aggregates" => OnSome(Read),
        "/streams/{aggregate_type}"
        | "/streams/{aggregate_type}/{aggregate_id}"
        | "/streams/{aggregate_type}/{aggregate_id}/{version}"
        | "/aggregates/{aggregate_type}/{aggregate_id}"
        | "/aggregates/{aggregate_type}/{aggregate_id}/state"
        | "/snapshots/{aggregate_type}/{aggregate_id}"
        | "/reducers/{aggregate_type}"
        | "/stats/aggregates/{aggregate_type}/{aggregate_id}" => OnTypeInPath(Read),
        _ => OnAll(Admin),
    }
}

/// Whoever sent the request at hand.
#[derive(Clone)]
pub struct Caller(Option<Arc<Key>>);

impl Caller {
    fn access(&self) -> Option<&Access> {
        self.0.as_ref().map(|key| &key.access)
    }

    /// Refuses what is not granted on a type.
    pub fn check(&self, scope: Scope, aggregate_type: &str) -> Result<(), Box<Problem>> {
        if self.may(scope, aggregate_type) {
            Ok(())
        } else {
            Err(forbidden(scope, &format!("the type {aggregate_type:?}")))
        }
    }

    pub fn check_all(&self, scope: Scope) -> Result<(), Box<Problem>> {
        let may = self.access().is_none_or(|access| access.may_all(scope));
        if may { Ok(()) } else { Err(forbidden(scope, "all types (a grant on *)")) }
    }

    pub fn check_some(&self, scope: Scope) -> Result<(), Box<Problem>> {
        let may = self.access().is_none_or(|access| access.may_any(scope));
        if may { Ok(()) } else { Err(forbidden(scope, "any type")) }
    }

    pub fn may(&self, scope: Scope, aggregate_type: &str) -> bool {
        self.access().is_none_or(|access| access.may(scope, aggregate_type))
    }

    /// The types that the caller may read; `None`: all.
    pub fn readable(&self) -> Option<Vec<Pattern>> {
        let access = self.access().filter(|access| !access.may_all(Scope::Read))?;
        Some(access.patterns(Scope::Read).cloned().collect())
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Self::Rejection> {
        if !app.settings.needs_keys {
            return Ok(Self(None));
        }
        Ok(parts.extensions.get().cloned().expect("the guard stands before every route"))
    }
}

/// Lets a request in, or not; what is streamed to a key ends with the key. Stands before every route where keys are needed.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    // Where there is no route, whoever has a key may know it.
    let route = parts.extensions.get::<MatchedPath>();
    let needed = route.map_or(Needed::Key, |route| needed(&parts.method, route.as_str()));
    if needed == Needed::Nothing {
        parts.extensions.insert(Caller(None));
        return next.run(Request::from_parts(parts, body)).await;
    }
    let key = match admit(&app, &parts, needed).await {
        Ok(key) => key,
        Err(problem) => {
            app.metrics.keys_refused.with_label_values(&[problem.code.as_str()]).inc();
            return problem.into_response();
        }
    };
    let ended = key.ended.clone();
    let answered_to = AnsweredTo(key.key_id().to_owned());
    parts.extensions.insert(Caller(Some(key)));
    // What only reads may be broken off; whether an append was written must be told.
    let only_reads = matches!(parts.method, Method::GET | Method::HEAD);
    let answered = next.run(Request::from_parts(parts, body));
    let mut response = tokio::select! {
        response = answered => response,
        () = ended.cancelled(), if only_reads => return unauthenticated("the key has ended").into_response(),
    };
    response.extensions_mut().insert(answered_to);
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let until_ended = |body: Body| Body::from_stream(body.into_data_stream().take_until(ended.cancelled_owned()));
    response.map(until_ended)
}

async fn admit(app: &App, request: &Parts, needed: Needed) -> Result<Arc<Key>, Box<Problem>> {
    let key = authenticate(app, &request.headers).await?;
    key.take_from_quota().map_err(|wait| {
        let seconds = wait.as_secs() + 1;
        let problem = Problem::new(Code::QuotaExceeded, format!("the key's quota is used up: wait {seconds} s"));
        problem.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    })?;
    let caller = Caller(Some(key.clone()));
    match needed {
        Needed::Nothing | Needed::Key => {}
        Needed::OnTypeInPath(scope) => caller.check(scope, &type_in_path(request.uri.path()))?,
        Needed::OnSome(scope) => caller.check_some(scope)?,
        Needed::OnAll(scope) => caller.check_all(scope)?,
    }
    Ok(key)
}

async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Arc<Key>, Box<Problem>> {
    let given = single(headers, "Authorization")?.ok_or_else(|| unauthenticated("the request has no key"))?;
    let bearer = given.to_str().ok().and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| key.trim())
    });
    let presented = bearer.ok_or_else(|| unauthenticated("Authorization is not of the form: Bearer <key>"))?;
    app.keyring.find(presented, app.clock.now(), &app.store).await.map_err(|refused| match refused {
        Refused::NoSuchKey => unauthenticated("the key is not known, or has expired, or was revoked"),
        Refused::Unavailable(error) => error.into(),
    })
}

fn unauthenticated(detail: &str) -> Box<Problem> {
    let challenge = HeaderValue::from_static("Bearer realm=\"annals\"");
    Problem::new(Code::Unauthenticated, detail).with_header(header::WWW_AUTHENTICATE, challenge)
}

fn forbidden(scope: Scope, what: &str) -> Box<Problem> {
    Problem::new(Code::Forbidden, format!("the key has no grant to {} {what}", verb(scope)))
}

fn verb(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Append => "append to",
        Scope::Admin => "administer",
    }
}

/// The aggregate type in a path: the second segment, or the third under /stats.
fn type_in_path(path: &str) -> String {
    let mut segments = path.trim_start_matches('/').split('/');
    let at = if segments.next() == Some("stats") { 1 } else { 0 };
    let segment = segments.nth(at).unwrap_or_default();
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
