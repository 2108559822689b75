//! The server: serves the routes of the service until the soft stage of a shutdown.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::app::App;
use crate::http::listener::Listener;
use crate::http::router::router;
use crate::http::seats::SeatLimits;

/// The number of connections that are accepted above the limit, for one request each: probes and metrics are answered,
/// and every other request gets 503.
pub const SPARE_CONNECTIONS: usize = 100;

/// A server whose address is bound.
pub struct Server {
    pub address: SocketAddr,
    app: Arc<App>,
    listener: Listener,
}

impl Server {
    /// Binds an address. Port 0 binds any free port.
    pub async fn bind(app: Arc<App>, address: SocketAddr) -> std::io::Result<Self> {
        let limits = SeatLimits { regular: app.settings.clients.connections, spare: SPARE_CONNECTIONS };
        let listener = Listener::bind(address, app.clone(), router(app.clone()), limits).await?;
        Ok(Self { address: listener.address, app, listener })
    }

    /// Accepts connections until the soft stage, and returns when every request in progress is complete.
    pub async fn run(self) {
        self.listener.run(self.app.shutdown.soft()).await;
    }
}
