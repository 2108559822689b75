//! The listener of one address: accepts connections until it is closed, and then completes the requests in progress.
//!
//! Each client has a limited time to send the head of a request, to send its body, and to receive the response. The
//! number of connections is limited, too: [`crate::http::seats`]. So a slow client delays no other one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioTimer;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, ClientLimits};
use crate::http::activity::{HeldShare, ResponseBody};
use crate::http::base_path::{self, Target};
use crate::http::connection::Connection;
use crate::http::middleware::OverConnectionLimit;
use crate::http::seats::{Seat, SeatLimits, Seats};
use crate::shares::client::ClientId;

/// The largest head of a request, and the largest part of a response that is buffered for one connection. A request
/// line of the largest length fits beside its headers.
const BUFFER_BYTES: usize = 72 * 1024;
/// The send buffer of a socket, which the system doubles.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// The pause after a failed accept. The most common cause is the limit of open files, and the pause lets files close.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listener whose address is bound.
pub struct Listener {
    /// The address, with the port that the system has chosen for port 0.
    pub address: SocketAddr,
    listener: TcpListener,
    app: Arc<App>,
    router: Router,
    limits: SeatLimits,
}

impl Listener {
    /// Accepts connections of a socket.
    pub fn on(
        socket: std::net::TcpListener,
        app: Arc<App>,
        router: Router,
        limits: SeatLimits,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(socket)?;
        Ok(Self { address: listener.local_addr()?, listener, app, router, limits })
    }

    /// Accepts connections until `closing` is cancelled, and returns when every request in progress is complete.
    pub async fn run(self, closing: CancellationToken) {
        let Self { listener, app, router, limits, .. } = self;
        let seats = Seats::new(limits);
        let connections = TaskTracker::new();
        let accepting = async {
            loop {
                let (stream, peer) = accept(&listener, &app.settings.clients).await;
                if let Some(seat) = seats.occupy(&closing) {
                    let client = ClientId::at_address(peer.ip());
                    connections.spawn(serve(stream, client, app.clone(), router.clone(), seat));
                }
            }
        };
        closing.run_until_cancelled(accepting).await;
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

/// Serves the requests of a connection until the client or the service closes it. `client` is the client at its address,
/// for whom the requests are handled unless they have an API key.
async fn serve(stream: TcpStream, client: ClientId, app: Arc<App>, router: Router, seat: Seat) {
    let (activity, is_spare) = (seat.activity().clone(), seat.is_spare());
    let connection = Connection::new(stream, app.clone(), activity.clone());
    let shares_by_address = !app.settings.needs_keys;
    let requests = app.requests_in_progress.clone();
    let mut builder = builder(&app.settings.clients);
    builder.keep_alive(!is_spare);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let in_progress = activity.begin_request();
        let share = shares_by_address.then(|| requests.try_acquire(client.clone(), 1));
        if is_spare || in_progress.is_none() || matches!(share, Some(Err(_))) {
            request.extensions_mut().insert(OverConnectionLimit);
        }
        let share = share.and_then(Result::ok).map(|share| HeldShare(Arc::new(share)));
        let (base, target) = base_path::take(&mut request, &app.settings);
        let responding = match target {
            Target::Route => Ok(client.clone().scope(base_path::scope(base, router.call(request)))),
            Target::Redirect(location) => Err(base_path::redirect(location)),
        };
        async move {
            let mut response = match responding {
                Ok(responding) => {
                    let Ok(response) = responding.await;
                    response
                }
                Err(redirect) => redirect,
            };
            let share = share.or_else(|| response.extensions_mut().remove());
            Ok::<_, Infallible>(response.map(|body| ResponseBody { body, request: in_progress, share }))
        }
    });
    let mut serving = pin!(builder.serve_connection(connection, service));
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = seat.activity().closing() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Configures a connection. It is HTTP/1.1 only: with HTTP/2, the system does not see whether a client receives its
/// responses. Proxies use HTTP/1.1 to a service in any case.
fn builder(limits: &ClientLimits) -> Builder {
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(BUFFER_BYTES);
    builder
}

/// Accepts the next connection, and returns it with the address of its client.
///
/// A failed accept affects one client or is temporary, so it is only logged.
async fn accept(listener: &TcpListener, limits: &ClientLimits) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((connection, peer)) => {
                // A response is written at once, so waiting for more data would only delay it.
                if let Err(error) = connection.set_nodelay(true) {
                    tracing::debug!(%error, "failed to set TCP_NODELAY");
                }
                limit_send_buffer(&connection);
                set_tcp_user_timeout(&connection, limits.stalled);
                return (connection, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Limits the send buffer. Without a limit, the system buffers megabytes for a client that reads slowly.
fn limit_send_buffer(connection: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt::SndBuf};
    if let Err(error) = setsockopt(connection, SndBuf, &SEND_BUFFER_BYTES) {
        tracing::debug!(%error, "failed to set SO_SNDBUF");
    }
}

/// Makes the system close a connection whose peer has received nothing for this time. Otherwise an event stream that no
/// client reads would keep its seat and delay a shutdown.
#[cfg(target_os = "linux")]
fn set_tcp_user_timeout(connection: &TcpStream, stalled: Duration) {
    use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
    let millis = u32::try_from(stalled.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(connection, TcpUserTimeout, &millis) {
        tracing::debug!(%error, "failed to set TCP_USER_TIMEOUT");
    }
}

#[cfg(not(target_os = "linux"))]
fn set_tcp_user_timeout(_: &TcpStream, _: Duration) {}
