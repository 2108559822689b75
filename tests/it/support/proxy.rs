//! A TCP proxy in front of PostgreSQL, to break connections at chosen moments.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use annals::store::database::DatabaseConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;

use super::TestDatabase;

#[derive(Default)]
struct Faults {
    /// New connections are closed at once, and old ones too.
    down: AtomicBool,
    /// So many answers to a CALL are swallowed, and their connection is closed.
    cut_answers: AtomicU32,
    /// After a cut nothing connects any more.
    down_after_cut: AtomicBool,
    changed: Notify,
}

pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    /// Where new connections go.
    target: Arc<Mutex<PathBuf>>,
}

impl Proxy {
    /// A proxy to the server of this database.
    pub async fn start(database: &TestDatabase) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let faults = Arc::new(Faults::default());
        let target = Arc::new(Mutex::new(database.socket()));
        tokio::spawn(accept(listener, target.clone(), faults.clone()));
        Self { address, faults, target }
    }

    /// Connections go to another server from now on, as after a failover.
    pub fn retarget(&self, database: &TestDatabase) {
        *self.target.lock().expect("the lock") = database.socket();
    }

    /// How to reach the database through the proxy.
    pub fn config(&self, database: &TestDatabase) -> DatabaseConfig {
        let config = database.config();
        // Options that hold a socket would prefer it: begin anew.
        let url = format!("postgres://annals@{}/{}?sslmode=disable", self.address, database.name);
        let options = annals::store::database::parse_url(&url).expect("a URL");
        DatabaseConfig { options, ..config }
    }

    /// Cuts the connection of the next append after PostgreSQL has answered, and before the answer arrives.
    pub fn cut_next_answer(&self) {
        self.faults.cut_answers.store(1, Ordering::SeqCst);
    }

    /// The same, and nothing connects afterwards until [`Proxy::up`].
    pub fn cut_next_answer_and_go_down(&self) {
        self.faults.down_after_cut.store(true, Ordering::SeqCst);
        self.cut_next_answer();
    }

    pub fn down(&self) {
        self.faults.down.store(true, Ordering::SeqCst);
        self.faults.changed.notify_waiters();
    }

    pub fn up(&self) {
        self.faults.down_after_cut.store(false, Ordering::SeqCst);
        self.faults.down.store(false, Ordering::SeqCst);
    }

    /// Whether the cut has happened.
    pub fn has_cut(&self) -> bool {
        self.faults.cut_answers.load(Ordering::SeqCst) == 0
    }
}

async fn accept(listener: TcpListener, target: Arc<Mutex<PathBuf>>, faults: Arc<Faults>) {
    while let Ok((client, _)) = listener.accept().await {
        if !faults.down.load(Ordering::SeqCst) {
            let socket = target.lock().expect("the lock").clone();
            tokio::spawn(forward(client, socket, faults.clone()));
        }
    }
}

async fn forward(mut client: TcpStream, socket: PathBuf, faults: Arc<Faults>) {
    let Ok(mut server) = UnixStream::connect(socket).await else { return };
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let down = faults.changed.notified();
        if faults.down.load(Ordering::SeqCst) {
            return;
        }
        let forwarded = tokio::select! {
            () = down => return,
            read = client.read(&mut asked) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => server.write_all(&asked[..length]).await,
            },
            read = server.read(&mut answered) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) if is_append(&answered[..length]) && take_cut(&faults) => return,
                Ok(length) => client.write_all(&answered[..length]).await,
            },
        };
        if forwarded.is_err() {
            return;
        }
    }
}

/// The command tag of a CALL, which PostgreSQL sends after the commit in it.
fn is_append(answer: &[u8]) -> bool {
    answer.windows(6).any(|window| window == b"\0CALL\0" || &window[..5] == b"CALL\0")
}

fn take_cut(faults: &Faults) -> bool {
    let taken = faults.cut_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    if taken && faults.down_after_cut.load(Ordering::SeqCst) {
        faults.down.store(true, Ordering::SeqCst);
        faults.changed.notify_waiters();
    }
    taken
}
