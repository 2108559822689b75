//! The listener: accepts until the soft stage of a shutdown, and answers what is in flight.

use std::net::SocketAddr;
use std::sync::Arc;

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
        // Answers are small and written at once: waiting for more to send would only delay them.
        let listener = self.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
        });
        let served = axum::serve(listener, super::router(self.app)).with_graceful_shutdown(soft.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    }
}
