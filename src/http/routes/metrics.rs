//! `/metrics`: metrics for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::http::problem::error::{ApiError, ApiResult};

/// Get metrics in the text format of Prometheus
#[utoipa::path(get, path = "/metrics", operation_id = "read_metrics", tag = "operations", responses(
    (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
))]
pub async fn read_metrics(State(app): State<Arc<App>>) -> ApiResult<Response> {
    let (in_use, idle) = app.primary.pool_connections();
    let pool = &app.metrics.db_pool_connections;
    pool.with_label_values(&["in_use"]).set(in_use as i64);
    pool.with_label_values(&["idle"]).set(idle as i64);
    app.metrics.append_queue_length.set(app.append_queue.length() as i64);
    let (streams, long_polls) = app.feed.subscribers();
    app.metrics.subscribers.with_label_values(&["sse"]).set(streams as i64);
    app.metrics.subscribers.with_label_values(&["long_poll"]).set(long_polls as i64);
    app.metrics.subscribers.with_label_values(&["claim"]).set(app.feed.waiting_claims() as i64);
    app.metrics.subscription_lag_events.set(app.feed.lag());
    let text = app.metrics.render().map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
