//! HTTP: the only module that names axum and the wire format.
//!
//! The router on one page. Middleware, from the outside in: [`middleware::observe`] (id, log line, metrics, problems),
//! then the panic catcher. No global timeout and no global body limit: each route knows its own.

mod body;
pub mod conditional;
pub mod event_in;
mod headers;
pub mod middleware;
pub mod negotiate;
pub mod openapi;
pub mod path;
pub mod problem;
pub mod query;
pub mod routes;
mod server;
pub mod wire;

pub use server::{Serving, serve};

use std::sync::Arc;

use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::app::App;
use routes::{append, health, metrics, pages, projections, read};

/// The routes that the OpenAPI document describes.
fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::info())
        .routes(routes!(append::append_to_stream, read::read_stream))
        .routes(routes!(append::append_to_streams))
        .routes(routes!(read::list_streams))
        .routes(routes!(read::read_version))
        .routes(routes!(read::read_event))
        .routes(routes!(projections::list_projections))
        .routes(routes!(projections::read_projection, projections::set_projection, projections::delete_projection))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::render))
        .routes(routes!(pages::problem_page))
}

/// The OpenAPI document, as `openapi/openapi.json` holds it.
pub fn openapi_document() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

pub fn router(app: Arc<App>) -> Router {
    let (routes, document) = documented().split_for_parts();
    let document: Arc<str> = document.to_pretty_json().expect("the document is plain data").into();
    routes
        .route("/", axum::routing::get(pages::index))
        .route("/openapi.json", axum::routing::get(pages::openapi_document).layer(Extension(document)))
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .layer(CatchPanicLayer::custom(middleware::on_panic))
        .layer(axum::middleware::from_fn_with_state(app.clone(), middleware::observe))
        .with_state(app)
}
