//! No promise: a TCP proxy in front of PostgreSQL that breaks connections at chosen moments.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use annals::store::connection::address::Address;
use annals::store::connection::config::DatabaseConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;

use super::TestDatabase;

#[derive(Default)]
struct Faults {
    /// Whether new and existing connections are closed at once.
    down: AtomicBool,
    /// Whether all connections, also new ones, stay open and transfer nothing, as if the server's machine had vanished.
    vanished: AtomicBool,
    /// The number of results of a CALL to drop. When a result is dropped, its connection is closed.
    results_to_drop: AtomicU32,
    /// Whether new connections are closed, too, after a result was dropped.
    down_after_drop: AtomicBool,
    changed: Notify,
}

pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    /// The sockets for new connections, in turn.
    targets: Arc<Mutex<VecDeque<PathBuf>>>,
}

impl Proxy {
    /// Starts a proxy to the server of a database.
    pub async fn start(database: &TestDatabase) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let faults = Arc::new(Faults::default());
        let targets = Arc::new(Mutex::new(VecDeque::from([database.socket()])));
        tokio::spawn(accept(listener, targets.clone(), faults.clone()));
        Self { address, faults, targets }
    }

    /// Redirects new connections to another server, as after a failover.
    pub fn retarget(&self, database: &TestDatabase) {
        *self.targets.lock().expect("the lock") = VecDeque::from([database.socket()]);
    }

    /// Distributes new connections among the former servers and another one, in turn.
    pub fn balance(&self, database: &TestDatabase) {
        self.targets.lock().expect("the lock").push_back(database.socket());
    }

    /// Returns a configuration that connects to the database through the proxy.
    pub fn config(&self, database: &TestDatabase) -> DatabaseConfig {
        let config = database.config();
        // The options of the database have a socket, which would take precedence over the address.
        let url = format!("postgres://annals@{}/{}?sslmode=disable", self.address, database.name);
        let servers = Address::parse(&url).and_then(|address| address.to_options()).expect("a URL");
        DatabaseConfig { servers, ..config }
    }

    /// Closes the connection of the next append after PostgreSQL has sent the result, and before the result arrives.
    pub fn drop_next_result(&self) {
        self.faults.results_to_drop.store(1, Ordering::SeqCst);
    }

    /// Drops the result of the next append, and then closes all connections until [`Proxy::up`].
    pub fn drop_next_result_and_go_down(&self) {
        self.faults.down_after_drop.store(true, Ordering::SeqCst);
        self.drop_next_result();
    }

    pub fn down(&self) {
        self.faults.down.store(true, Ordering::SeqCst);
        self.faults.changed.notify_waiters();
    }

    /// Makes the server vanish until [`Proxy::up`]: no packet ends a connection, and none is answered.
    pub fn vanish(&self) {
        self.faults.vanished.store(true, Ordering::SeqCst);
        self.faults.changed.notify_waiters();
    }

    /// Accepts new connections again. Those of before stay as they are.
    pub fn up(&self) {
        self.faults.vanished.store(false, Ordering::SeqCst);
        self.faults.down_after_drop.store(false, Ordering::SeqCst);
        self.faults.down.store(false, Ordering::SeqCst);
    }

    /// Whether the result of an append was dropped.
    pub fn has_dropped_result(&self) -> bool {
        self.faults.results_to_drop.load(Ordering::SeqCst) == 0
    }
}

async fn accept(listener: TcpListener, targets: Arc<Mutex<VecDeque<PathBuf>>>, faults: Arc<Faults>) {
    while let Ok((client, _)) = listener.accept().await {
        if faults.vanished.load(Ordering::SeqCst) {
            tokio::spawn(hold(client));
        } else if !faults.down.load(Ordering::SeqCst) {
            let socket = {
                let mut targets = targets.lock().expect("the lock");
                targets.rotate_left(1);
                targets[0].clone()
            };
            tokio::spawn(forward(client, socket, faults.clone()));
        }
    }
}

/// Keeps a connection open, and transfers nothing.
async fn hold(client: TcpStream) {
    std::future::pending::<()>().await;
    drop(client);
}

async fn forward(mut client: TcpStream, socket: PathBuf, faults: Arc<Faults>) {
    let Ok(mut server) = UnixStream::connect(socket).await else { return };
    let (mut request, mut response) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let down = faults.changed.notified();
        if faults.vanished.load(Ordering::SeqCst) {
            return hold(client).await;
        }
        if faults.down.load(Ordering::SeqCst) {
            return;
        }
        let forwarded = tokio::select! {
            () = down => {
                if faults.vanished.load(Ordering::SeqCst) {
                    hold(client).await;
                }
                // Also if the proxy is up again already.
                return;
            }
            read = client.read(&mut request) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => server.write_all(&request[..length]).await,
            },
            read = server.read(&mut response) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) if is_append_result(&response[..length]) && claim_drop(&faults) => return,
                Ok(length) => client.write_all(&response[..length]).await,
            },
        };
        if forwarded.is_err() {
            return;
        }
    }
}

/// Whether PostgreSQL reports the end of a CALL. It sends this report after the procedure has committed.
fn is_append_result(response: &[u8]) -> bool {
    response.windows(6).any(|window| window == b"\0CALL\0" || &window[..5] == b"CALL\0")
}

/// Returns whether the result must be dropped, and counts it as dropped.
fn claim_drop(faults: &Faults) -> bool {
    let taken =
        faults.results_to_drop.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    if taken && faults.down_after_drop.load(Ordering::SeqCst) {
        faults.down.store(true, Ordering::SeqCst);
        faults.changed.notify_waiters();
    }
    taken
}
