//! `/metrics`, for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::http::problem::{Code, Problem, ProblemSchema, Refusal};
use crate::http::query;

/// Metrics in the text format of Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
    (status = 400, description = "Unknown parameter", body = ProblemSchema, content_type = "application/problem+json"),
))]
pub async fn render(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Refusal> {
    query::no_parameters(&uri)?;
    let (in_use, idle) = app.store.pool_connections();
    let pool = &app.metrics.db_pool_connections;
    pool.with_label_values(&["in_use"]).set(in_use as i64);
    pool.with_label_values(&["idle"]).set(idle as i64);
    app.metrics.append_queue_length.set(app.writer.queue_length() as i64);
    let (streams, long_polls) = app.feed.subscribers();
    app.metrics.subscribers.with_label_values(&["sse"]).set(streams as i64);
    app.metrics.subscribers.with_label_values(&["long_poll"]).set(long_polls as i64);
    app.metrics.subscription_lag_events.set(app.feed.lag());
    let unrendered = |error| Problem::new(Code::Internal, "the metrics could not be rendered").because(error);
    let text = app.metrics.render().map_err(unrendered)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
