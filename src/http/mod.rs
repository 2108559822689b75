//! HTTP: the only module that names axum and the wire format.
//!
//! The router on one page. Around every route stands [`middleware`] (id, log line, metrics, problems, compression), and, where
//! keys are asked for, [`access::guard`]. No global timeout and no global body limit: each route knows its own.

pub mod access;
mod body;
pub mod conditional;
pub mod event_in;
mod headers;
pub mod middleware;
mod min_position;
pub mod negotiate;
pub mod openapi;
pub mod path;
pub mod problem;
pub mod query;
pub mod representation;
pub mod routes;
mod server;
mod sse;
pub mod wire;

pub use server::{Serving, serve};

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use tower::layer::layer_fn;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::app::App;
use routes::{
    aggregates, append, health, log, metrics, pages, projections, read, reducers, snapshots, state, stats, stream,
};

/// The routes that the OpenAPI document describes.
fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::info())
        .routes(routes!(append::append_to_stream, stream::read_stream))
        .routes(routes!(append::append_to_streams))
        .routes(routes!(read::list_streams))
        .routes(routes!(read::read_version))
        .routes(routes!(read::read_event))
        .routes(routes!(log::read_log))
        .routes(routes!(aggregates::load))
        .routes(routes!(state::read_state))
        .routes(routes!(reducers::list_reducers))
        .routes(routes!(reducers::read_reducer, reducers::put_reducer, reducers::delete_reducer))
        .routes(routes!(reducers::test_reducer))
        .routes(routes!(snapshots::read_snapshot, snapshots::put_snapshot, snapshots::delete_snapshot))
        .routes(routes!(projections::list_projections))
        .routes(routes!(projections::read_projection, projections::set_projection, projections::delete_projection))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(stats::overview))
        .routes(routes!(stats::aggregate_types))
        .routes(routes!(stats::largest_aggregates))
        .routes(routes!(stats::snapshot_coverage))
        .routes(routes!(stats::tables))
        .routes(routes!(stats::aggregate))
        .routes(routes!(metrics::render))
        .routes(routes!(pages::problem_page))
}

/// The OpenAPI document, as `openapi/openapi.json` holds it.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    let mut document = documented().into_openapi();
    openapi::refine(&mut document);
    document
}

pub fn router(app: Arc<App>) -> Router {
    let (routes, mut document) = documented().split_for_parts();
    openapi::refine(&mut document);
    let document: Arc<str> = document.to_pretty_json().expect("the document is plain data").into();
    let mut routes = routes
        .route("/", axum::routing::get(pages::index))
        .route("/openapi.json", axum::routing::get(pages::openapi_document).layer(Extension(document)))
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")));
    if app.settings.needs_keys {
        routes = routes.layer(from_fn_with_state(app.clone(), access::guard));
    }
    let observed = app.clone();
    routes.layer(layer_fn(move |route| middleware::Observe::new(observed.clone(), route))).with_state(app)
}
