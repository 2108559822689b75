//! The server: serves the routes of the service until the soft stage of a shutdown. On the admin address, if there is
//! one, it serves probes and metrics until every other request is complete.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::http::listener::Listener;
use crate::http::router::{admin_router, router};
use crate::http::seats::SeatLimits;

/// The number of connections that are accepted above the limit, for one request each: probes and metrics are answered,
/// and every other request gets 503.
pub const SPARE_CONNECTIONS: usize = 100;
/// The number of connections to the admin address. Clients of the service cannot occupy them.
pub const ADMIN_CONNECTIONS: usize = 64;

/// Binds an address. Port 0 binds any free port.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A server whose addresses are bound.
pub struct Server {
    pub address: SocketAddr,
    app: Arc<App>,
    listener: Listener,
    admin: Option<Listener>,
}

impl Server {
    /// Serves on a socket.
    pub fn on(app: Arc<App>, socket: std::net::TcpListener) -> std::io::Result<Self> {
        let limits = SeatLimits { regular: app.settings.clients.connections, spare: SPARE_CONNECTIONS };
        let listener = Listener::on(socket, app.clone(), router(app.clone()), limits)?;
        Ok(Self { address: listener.address, app, listener, admin: None })
    }

    /// Serves probes and metrics on the socket of the admin address. Returns the address.
    pub fn serve_admin_on(&mut self, socket: std::net::TcpListener) -> std::io::Result<SocketAddr> {
        let limits = SeatLimits { regular: ADMIN_CONNECTIONS, spare: 0 };
        let listener = Listener::on(socket, self.app.clone(), admin_router(self.app.clone()), limits)?;
        Ok(self.admin.insert(listener).address)
    }

    /// Accepts connections until the soft stage, and returns when every request in progress is complete. The admin
    /// address remains open until the others are complete, so that probes show the shutdown.
    pub async fn run(self) {
        let Self { app, listener, admin, .. } = self;
        let served = CancellationToken::new();
        let serve = async {
            listener.run(app.shutdown.soft()).await;
            served.cancel();
        };
        let serve_admin = async {
            if let Some(admin) = admin {
                admin.run(served.clone()).await;
            }
        };
        tokio::join!(serve, serve_admin);
    }
}
