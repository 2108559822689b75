//! The errors of requests that no handler receives: the path has no route, or the route does not have the method. They
//! say what the client probably meant.

use std::collections::BTreeMap;

use axum::http::Method;
use utoipa::openapi::OpenApi;

use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;

const NO_SLASH: &str = "an aggregate id cannot contain a slash, encoded or not: use another separator, like a colon";
const APPEND: &str = "to append events, send POST /streams/{aggregate_type}/{aggregate_id}";

/// Returns the error for a path that has no route.
pub fn route_not_found(path: &str) -> ApiError {
    let segments = segments(path);
    let hint = match segments.as_slice() {
        _ if path.len() > 1 && path.ends_with('/') => "remove the slash at the end of the path",
        _ if path.contains("//") => "a segment of the path is empty",
        ["streams" | "aggregates" | "snapshots", _, _, ..] => NO_SLASH,
        ["append" | "event" | "stream" | "log", ..] => APPEND,
        _ => "/docs lists the routes",
    };
    ApiError::new(Code::RouteNotFound, format!("no route has this path: {hint}"))
}

/// The methods of each route, by its template. The header `Allow` has the same, and is added later.
pub struct RouteMethods(BTreeMap<String, String>);

impl RouteMethods {
    /// Reads the methods from the OpenAPI document. A route that it does not describe is a page.
    pub fn from_document(document: &OpenApi) -> Self {
        let methods = document.paths.paths.iter().map(|(path, item)| {
            let methods = [
                item.get.as_ref().map(|_| "GET, HEAD"),
                item.post.as_ref().map(|_| "POST"),
                item.put.as_ref().map(|_| "PUT"),
                item.delete.as_ref().map(|_| "DELETE"),
            ];
            (path.clone(), methods.into_iter().flatten().collect::<Vec<_>>().join(", "))
        });
        Self(methods.collect())
    }

    fn for_route(&self, route: &str) -> &str {
        self.0.get(route).map_or("GET, HEAD", String::as_str)
    }
}

/// Returns the error for a method that a route does not have.
pub fn method_not_allowed(method: &Method, path: &str, route: &str, methods: &RouteMethods) -> ApiError {
    let mut detail = format!("this path accepts {}, and not {method}", methods.for_route(route));
    let is_write = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    let hint = match segments(path).as_slice() {
        ["streams", _, _, _, ..] if is_write => Some(NO_SLASH),
        ["events" | "streams", ..] if is_write => Some(APPEND),
        ["streams" | "events", ..] if *method == Method::DELETE => Some("events are never deleted"),
        _ => None,
    };
    if let Some(hint) = hint {
        detail.push_str(": ");
        detail.push_str(hint);
    }
    ApiError::new(Code::MethodNotAllowed, detail)
}

fn segments(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}
