//! The listener: accepts connections until the soft stage of a shutdown, and then completes the requests in progress.
//!
//! Each client has a limited time to send the head of a request, to send its body, and to receive the response. The
//! number of connections is limited, too. Above the limit, `SPARE_CONNECTIONS` more are accepted for one request
//! each: probes and metrics are answered, and every other request gets 503. So a slow client delays no other one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::app::{App, ClientLimits};
use crate::http::connection::Connection;
use crate::http::middleware::OverConnectionLimit;
use crate::http::router::router;

/// The largest head of a request, and the largest part of a response that is buffered for one connection. A request
/// line of the largest length fits beside its headers.
const BUFFER_BYTES: usize = 72 * 1024;
/// The send buffer of a socket, which the system doubles.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// The number of connections that are accepted above the limit.
const SPARE_CONNECTIONS: usize = 100;
/// The pause after a failed accept. The most common cause is the limit of open files, and the pause lets files close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A server whose address is bound.
pub struct Server {
    pub address: SocketAddr,
    listener: TcpListener,
    app: Arc<App>,
}

impl Server {
    /// Binds an address. Port 0 binds any free port.
    pub async fn bind(app: Arc<App>, address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener, app })
    }

    /// Accepts connections until the soft stage, and returns when every request in progress is complete.
    pub async fn run(self) {
        let soft = self.app.shutdown.soft();
        let limits = self.app.settings.clients;
        let app = self.app;
        let router = router(app.clone());
        let connection_permits = Arc::new(Semaphore::new(limits.connections));
        let spare_permits = Arc::new(Semaphore::new(SPARE_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let accepting = async {
            loop {
                let connection = accept(&self.listener, &limits).await;
                let (permit, builder, router) = if let Ok(permit) = connection_permits.clone().try_acquire_owned() {
                    (permit, builder(&limits), router.clone())
                } else if let Ok(permit) = spare_permits.clone().try_acquire_owned() {
                    let mut builder = builder(&limits);
                    builder.keep_alive(false);
                    (permit, builder, router.clone().layer(Extension(OverConnectionLimit)))
                } else {
                    continue;
                };
                let (service, watcher) = (TowerToHyperService::new(router), graceful.watcher());
                let connection = Connection::new(connection, app.clone());
                tokio::spawn(async move {
                    let serving = builder.serve_connection(connection, service);
                    if let Err(error) = watcher.watch(serving).await {
                        tracing::debug!(%error, "a connection ended with an error");
                    }
                    drop(permit);
                });
            }
        };
        soft.run_until_cancelled(accepting).await;
        drop(self.listener);
        graceful.shutdown().await;
    }
}

/// Configures a connection. It is HTTP/1.1 only: with HTTP/2, the system does not see whether a client receives its
/// responses. Proxies use HTTP/1.1 to a service in any case.
fn builder(limits: &ClientLimits) -> Builder {
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(BUFFER_BYTES);
    builder
}

/// Accepts the next connection. A failed accept affects one client or is temporary, so it is only logged.
async fn accept(listener: &TcpListener, limits: &ClientLimits) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                // A response is written at once, so waiting for more data would only delay it.
                if let Err(error) = connection.set_nodelay(true) {
                    tracing::debug!(%error, "failed to set TCP_NODELAY");
                }
                limit_send_buffer(&connection);
                set_tcp_user_timeout(&connection, limits.stalled);
                return connection;
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
/// client reads would hold its permit and delay a shutdown.
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
