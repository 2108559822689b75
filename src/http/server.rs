//! The listener: accepts until the soft stage of a shutdown, and answers what is in flight.
//!
//! A client has so long for the head of a request, for its body, and to take its answer; and there are so many connections
//! at the most. Who is slower, or comes too late, holds up nobody else: when all seats are taken, a few more are there for
//! one request each, which probes and Prometheus get answered, and everybody else is told to come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::middleware;
use crate::app::{App, ClientLimits};

/// Bytes of a request's head, and of an answer that the connection keeps until the client takes it.
const BUFFER_BYTES: usize = 64 * 1024;
/// What the system keeps of an answer that its client does not take (it doubles this number).
const SEND_BYTES: usize = 128 * 1024;
/// Connections beyond the limit that get an answer.
const SPARE_CONNECTIONS: usize = 100;
/// After an error of accept: most often there are too many open files, and some must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A server that listens already.
pub struct Serving {
    pub address: SocketAddr,
    listener: TcpListener,
    app: Arc<App>,
}

/// Binds the address; port 0 takes any.
pub async fn serve(app: Arc<App>, address: SocketAddr) -> std::io::Result<Serving> {
    let listener = TcpListener::bind(address).await?;
    Ok(Serving { address: listener.local_addr()?, listener, app })
}

impl Serving {
    /// Serves until the soft stage, then until every request is answered.
    pub async fn run(self) {
        let soft = self.app.shutdown.soft();
        let limits = self.app.settings.clients;
        let router = super::router(self.app);
        let seats = Arc::new(Semaphore::new(limits.connections));
        let spare = Arc::new(Semaphore::new(SPARE_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let accepting = async {
            loop {
                let connection = accept(&self.listener, &limits).await;
                let (seat, builder, router) = if let Ok(seat) = seats.clone().try_acquire_owned() {
                    (seat, builder(&limits), router.clone())
                } else if let Ok(seat) = spare.clone().try_acquire_owned() {
                    let mut builder = builder(&limits);
                    builder.keep_alive(false);
                    (seat, builder, router.clone().layer(Extension(middleware::BeyondLimit)))
                } else {
                    continue;
                };
                let (service, watcher) = (TowerToHyperService::new(router), graceful.watcher());
                tokio::spawn(async move {
                    let serving = builder.serve_connection(TokioIo::new(connection), service);
                    if let Err(error) = watcher.watch(serving).await {
                        tracing::debug!(%error, "a connection broke off");
                    }
                    drop(seat);
                });
            }
        };
        soft.run_until_cancelled(accepting).await;
        drop(self.listener);
        graceful.shutdown().await;
    }
}

/// HTTP/1.1 alone: whether a client of HTTP/2 takes its answers, nobody below sees. Proxies speak it here anyway.
fn builder(limits: &ClientLimits) -> Builder {
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(BUFFER_BYTES);
    builder
}

/// The next connection; errors of accept are those of one client, or pass.
async fn accept(listener: &TcpListener, limits: &ClientLimits) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                // Answers are small and written at once: waiting for more to send would only delay them.
                if let Err(error) = connection.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                keep_little(&connection);
                give_up_after(&connection, limits.stalled);
                return connection;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// By itself the system would keep megabytes for a client that reads slowly.
fn keep_little(connection: &TcpStream) {
    use nix::sys::socket::{setsockopt, sockopt::SndBuf};
    if let Err(error) = setsockopt(connection, SndBuf, &SEND_BYTES) {
        tracing::debug!(%error, "SO_SNDBUF could not be set");
    }
}

/// Has the system close a connection whose peer takes nothing for so long: an event stream that nobody reads would keep its
/// place, and hold up a shutdown.
#[cfg(target_os = "linux")]
fn give_up_after(connection: &TcpStream, stalled: Duration) {
    use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
    let millis = u32::try_from(stalled.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(connection, TcpUserTimeout, &millis) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT could not be set");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_up_after(_: &TcpStream, _: Duration) {}
