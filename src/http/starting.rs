//! The server while the service starts: it waits for PostgreSQL, and brings the schema up to date. `/livez` succeeds,
//! `/readyz` names the reason, and every other request gets 503, so that a supervisor does not end the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::event_id_at;
use crate::clock::Clock;
use crate::http::problem::code::Code;
use crate::http::problem::error::ApiError;
use crate::http::request_id::{REQUEST_ID, RequestId};
use crate::http::routes::probes::{check_liveness, unavailable};

/// A server that runs until [`StartingServer::stop`].
pub struct StartingServer {
    reason: Reason,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// Why the service is not ready. Clones share it.
#[derive(Clone)]
struct Reason(Arc<Mutex<String>>);

impl StartingServer {
    /// Serves requests on these listeners, which remain open afterwards.
    pub fn run<'l>(listeners: impl IntoIterator<Item = &'l std::net::TcpListener>) -> std::io::Result<Self> {
        let reason = Reason(Arc::new(Mutex::new("the service starts".to_owned())));
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let router = Router::new()
            .route("/livez", get(check_liveness))
            .route("/readyz", get(check_readiness))
            .fallback(not_started)
            .layer(map_response(close_connection))
            .with_state(reason.clone());
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener.try_clone()?)?;
            let serving =
                axum::serve(listener, router.clone()).with_graceful_shutdown(stopping.clone().cancelled_owned());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::debug!(%error, "the server of the start has failed");
                }
            });
        }
        tasks.close();
        Ok(Self { reason, stopping, tasks })
    }

    /// Sets the reason why the service is not ready.
    pub fn set_reason(&self, reason: String) {
        *self.reason.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Completes the requests in progress, and stops.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
    }
}

/// Makes the client open another connection for its next request, which the service may answer.
async fn close_connection(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

impl Reason {
    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn check_readiness(State(reason): State<Reason>) -> Response {
    unavailable(BTreeMap::from([("database", reason.get())]))
}

/// Returns the error for every other request.
async fn not_started(headers: HeaderMap) -> Response {
    let error = ApiError::new(Code::DatabaseUnavailable, "the service waits for its database: try again later");
    let id = RequestId::from_headers(&headers, || event_id_at(Clock::system().now()));
    let problem = error.problem().clone();
    let mut response = error.into_response();
    problem.write_to(&mut response, id.as_str());
    response.headers_mut().insert(REQUEST_ID, id.into_header());
    response
}
