//! HTTP: the only module that names axum.
//!
//! ```text
//! server ── listener ── router ── middleware ── authorize ── routes/
//!                                                             ├ extract/          reads the request
//!                                                             ├ representation/   writes events and other JSON
//!                                                             ├ event_stream      writes server-sent events
//!                                                             └ problem/          errors
//! openapi/: the parts of the OpenAPI document that utoipa does not derive from the handlers
//! ```
//!
//! A handler has its extractors in the order in which errors take precedence: `Accept` (406), `Content-Type` (415), the
//! size of the body (413), then everything else that is wrong with the request (400).
//!
//! Invariants:
//! - Every error response is a problem document, except the 503 of `/readyz`, which lists its checks. Handlers return
//!   [`problem::error::ApiError`], and the middleware writes the body.
//! - There is no global timeout and no global limit of the body: each route has its own.

pub mod activity;
pub mod authorize;
pub mod backoff;
pub mod base_path;
pub mod cache;
pub mod caller;
pub mod connection;
pub mod cors;
pub mod erasure_guard;
pub mod event_stream;
pub mod extract;
pub mod host;
pub mod html;
pub mod lingering_body;
pub mod listener;
pub mod markdown;
pub mod media_type;
pub mod middleware;
pub mod missing_events;
pub mod openapi;
pub mod problem;
pub mod representation;
pub mod request_id;
pub mod request_log;
pub mod router;
pub mod routes;
pub mod routing_hints;
pub mod seats;
pub mod server;
pub mod starting;
