//! The lists of all routes, of the service and of the admin address, and the layers around them.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Extension, Router};
use tower::layer::layer_fn;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::authorize::authorize;
use crate::http::cors::cors_layer;
use crate::http::middleware::Observe;
use crate::http::openapi::document::{complete, frame};
use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;
use crate::http::request_log::RequestLog;
use crate::http::routes::{
    aggregates, appends, assets, console, erasures, events, groups, keys, metrics, pages, probes, problems,
    projection_history, projections, reducers, snapshots, stats, streams,
};
use crate::http::routing_hints::RouteMethods;

/// The routes that the OpenAPI document describes.
fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(frame())
        .routes(routes!(streams::append::append_to_stream, streams::read::read_stream))
        .routes(routes!(appends::append_to_streams))
        .routes(routes!(streams::list_all::list_all_streams))
        .routes(routes!(streams::list::list_streams))
        .routes(routes!(streams::event::read_stream_event))
        .routes(routes!(events::get::read_event))
        .routes(routes!(events::list::read_log))
        .routes(routes!(aggregates::load::load_aggregate))
        .routes(routes!(aggregates::state::read_state))
        .routes(routes!(aggregates::states::read_states))
        .routes(routes!(reducers::list::list_reducers))
        .routes(routes!(reducers::read::read_reducer, reducers::put::put_reducer, reducers::delete::delete_reducer))
        .routes(routes!(reducers::test::test_reducer))
        .routes(routes!(snapshots::read_snapshot, snapshots::put_snapshot, snapshots::delete_snapshot))
        .routes(routes!(projections::list_projections))
        .routes(routes!(projections::read_projection, projections::set_projection, projections::delete_projection))
        .routes(routes!(projection_history::read_projection_history))
        .routes(routes!(groups::list::list_groups))
        .routes(routes!(groups::read::read_group, groups::put::put_group, groups::delete::delete_group))
        .routes(routes!(projection_history::read_group_history))
        .routes(routes!(groups::claim::create_claim, groups::claims::list_claims))
        .routes(routes!(
            groups::acknowledge::acknowledge_claim,
            groups::claims::read_claim,
            groups::claims::release_claim
        ))
        .routes(routes!(groups::parked::list_parked_streams))
        .routes(routes!(groups::parked::read_parked_stream, groups::move_parked::move_parked_stream))
        .routes(routes!(groups::retry::retry_parked_streams))
        .routes(routes!(erasures::create::erase_events, erasures::list::list_erasures))
        .routes(routes!(erasures::read::read_erasure))
        .routes(routes!(keys::read_own_key))
        .routes(routes!(probes::check_liveness))
        .routes(routes!(probes::check_readiness))
        .routes(routes!(stats::overview::read_stats))
        .routes(routes!(stats::aggregate_types::read_aggregate_type_stats))
        .routes(routes!(stats::largest_aggregates::read_largest_aggregates))
        .routes(routes!(stats::snapshot_coverage::read_snapshot_coverage))
        .routes(routes!(stats::tables::read_table_stats))
        .routes(routes!(stats::aggregates::read_aggregate_stats))
        .routes(routes!(stats::rates::read_rates))
        .routes(routes!(metrics::read_metrics))
        .routes(routes!(problems::read_problem))
}

/// Returns the OpenAPI document. `openapi/openapi.json` has the same content.
pub fn openapi_document() -> OpenApi {
    let mut document = documented().into_openapi();
    complete(&mut document);
    document
}

/// Builds the router of the service.
pub fn router(app: Arc<App>) -> Router {
    let (routes, mut document) = documented().split_for_parts();
    complete(&mut document);
    let methods = RouteMethods::from_document(&document);
    let document: Arc<str> = document.to_pretty_json().expect("the document is plain data").into();
    let mut routes = routes
        .route("/", get(pages::index))
        .route("/openapi.json", get(pages::openapi_document).layer(Extension(document)))
        .route("/assets/{file}", get(assets::read_asset))
        .route("/docs", get(assets::redirect_to_docs))
        .route("/docs/", get(assets::read_docs))
        .route("/docs/{file}", get(assets::read_docs_file));
    if app.settings.has_console {
        routes = routes
            .route("/console", get(console::redirect_to_console))
            .route("/console/", get(console::read_console))
            .route("/console/{*path}", get(console::read_console_path));
    }
    if app.settings.needs_keys {
        routes = routes.layer(from_fn_with_state(app.clone(), authorize));
    }
    let routes = observe(routes, &app, methods);
    match cors_layer(&app.settings.cors_origins) {
        Some(cors) => routes.layer(cors).with_state(app),
        None => routes.with_state(app),
    }
}

/// Builds the router of the admin address: probes and metrics, which need no key.
pub fn admin_router(app: Arc<App>) -> Router {
    let routes = Router::new()
        .route("/livez", get(probes::check_liveness))
        .route("/readyz", get(probes::check_readiness))
        .route("/metrics", get(metrics::read_metrics))
        .fallback(not_on_admin_address);
    observe(routes, &app, RouteMethods::from_document(&frame())).with_state(app)
}

/// Returns the error for every other path of the admin address.
async fn not_on_admin_address() -> ApiError {
    let detail = "the admin address serves only /livez, /readyz and /metrics: send other requests to ANNALS_LISTEN";
    ApiError::new(Code::RouteNotFound, detail)
}

/// Adds the layer around every request.
fn observe(routes: Router<Arc<App>>, app: &Arc<App>, methods: RouteMethods) -> Router<Arc<App>> {
    let (app, methods, request_log) = (app.clone(), Arc::new(methods), Arc::new(RequestLog::new()));
    routes.layer(layer_fn(move |route| Observe::new(app.clone(), methods.clone(), request_log.clone(), route)))
}
