//! The listener: accepts until the soft stage of a shutdown, and answers what is in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::app::App;

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
        let stalled_after = self.app.settings.stalled_after;
        // Answers are small and written at once: waiting for more to send would only delay them.
        let listener = self.listener.tap_io(move |connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
            give_up_after(connection, stalled_after);
        });
        let served = axum::serve(listener, super::router(self.app)).with_graceful_shutdown(soft.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    }
}

/// Has the system close a connection whose peer takes nothing for so long: an event stream that nobody reads would keep its
/// place, and hold up a shutdown.
#[cfg(target_os = "linux")]
fn give_up_after(connection: &tokio::net::TcpStream, stalled: Duration) {
    use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
    let millis = u32::try_from(stalled.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(connection, TcpUserTimeout, &millis) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT could not be set");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_up_after(_: &tokio::net::TcpStream, _: Duration) {}
