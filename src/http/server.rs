//! The listener: accepts until the soft stage of a shutdown, and answers what is in flight.
//!
//! A client has so long for the head of a request, for its body, and to take its answer; and there are so many connections
//! at the most. Who is slower, or comes too late, holds up nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::app::{App, ClientLimits};

/// Bytes of a request's head, and of an answer that the connection keeps until the client takes it.
const BUFFER_BYTES: usize = 64 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 200;
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
        let builder = builder(&limits);
        let service = TowerToHyperService::new(super::router(self.app));
        let seats = Arc::new(Semaphore::new(limits.connections));
        let graceful = GracefulShutdown::new();
        let accepting = async {
            loop {
                // Who finds no seat waits in the system's queue.
                let Ok(seat) = seats.clone().acquire_owned().await else { return };
                let connection = accept(&self.listener, &limits).await;
                let (builder, service, watcher) = (builder.clone(), service.clone(), graceful.watcher());
                let soft = soft.clone();
                tokio::spawn(async move {
                    if soft.run_until_cancelled(begins(&connection, limits.head)).await == Some(true) {
                        let serving = builder.serve_connection(TokioIo::new(connection), service).into_owned();
                        if let Err(error) = watcher.watch(serving).await {
                            tracing::debug!(error, "a connection broke off");
                        }
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

fn builder(limits: &ClientLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(BUFFER_BYTES as u32)
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(limits.stalled)
        .keep_alive_timeout(limits.stalled);
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

/// Whether a client says in time which protocol it speaks: before that is known, nothing else watches it. HTTP/2 begins with
/// a preface that no request of HTTP/1.1 begins with.
async fn begins(connection: &TcpStream, within: Duration) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// Between two looks at a preface of which a part has come.
    const LOOK_PAUSE: Duration = Duration::from_millis(20);
    let known = async {
        let mut first = [0; PREFACE.len()];
        loop {
            let read = connection.peek(&mut first).await?;
            if read == 0 || read == PREFACE.len() || !PREFACE.starts_with(&first[..read]) {
                return Ok::<_, std::io::Error>(read > 0);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    matches!(tokio::time::timeout(within, known).await, Ok(Ok(true)))
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
