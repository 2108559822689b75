//! The server while the service starts: it waits for PostgreSQL, and brings the schema up to date. `/livez` succeeds,
//! `/readyz` names the reason, and every other request gets 503, so that a supervisor does not end the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{Settings, event_id_at};
use crate::clock::Clock;
use crate::http::base_path;
use crate::http::listener::ACCEPT_PAUSE;
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
    pub fn run<'l>(
        listeners: impl IntoIterator<Item = &'l std::net::TcpListener>,
        settings: &Settings,
    ) -> std::io::Result<Self> {
        let settings = Arc::new(settings.clone());
        let reason = Reason(Arc::new(Mutex::new("the service starts".to_owned())));
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let router = Router::new()
            .route("/livez", get(check_liveness))
            .route("/readyz", get(check_readiness))
            .fallback(not_started)
            .with_state(reason.clone());
        for listener in listeners {
            let listener = TcpListener::from_std(listener.try_clone()?)?;
            let (router, settings, stopping) = (router.clone(), settings.clone(), stopping.clone());
            tasks.spawn(async move { stopping.run_until_cancelled(accept(listener, router, settings)).await });
        }
        tasks.close();
        Ok(Self { reason, stopping, tasks })
    }

    /// Sets the reason why the service is not ready.
    pub fn set_reason(&self, reason: String) {
        *self.reason.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Stops accepting connections. The service accepts those that wait on the sockets.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
    }
}

/// Accepts connections, and serves one request of each: the service answers the next one.
async fn accept(listener: TcpListener, router: Router, settings: Arc<Settings>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, settings) = (TowerToHyperService::new(router.clone()), settings.clone());
                let service = service_fn(move |mut request: Request<Incoming>| {
                    let (base, _) = base_path::take(&mut request, &settings);
                    base_path::scope(base, router.call(request))
                });
                let serving = Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                // It continues after the server has stopped, so that the request gets its response.
                tokio::spawn(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
