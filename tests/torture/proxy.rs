//! A TCP proxy that closes connections, and delays, drops and withholds data.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};

/// The Sync message, with which a client of PostgreSQL ends a request.
const SYNC: &[u8] = b"S\0\0\0\x04";
/// The beginning of the statements that append. Only the connection of the writer prepares them.
const APPEND: &[u8] = b"CALL append_event";
/// The minimum length of an append. On the connection of the writer, all other messages are shorter, except those at
/// the start of the connection.
const APPEND_BYTES_MIN: usize = 150;

#[derive(Clone)]
pub enum Target {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

struct Faults {
    /// Connections of an earlier generation are closed.
    generation: watch::Sender<u64>,
    delay_millis: AtomicU64,
    /// The number of responses to drop. When a response is dropped, its connection is closed.
    drop_responses: AtomicU32,
    /// Whether the end of the next append is withheld.
    withhold: AtomicBool,
    withheld: Notify,
    release: Notify,
    /// Whether the client has closed the connection of the withheld append.
    abandoned: AtomicBool,
}

pub struct Proxy {
    pub address: SocketAddr,
    faults: Arc<Faults>,
}

impl Proxy {
    pub async fn start(target: Target) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults {
            generation: watch::Sender::new(0),
            delay_millis: AtomicU64::new(0),
            drop_responses: AtomicU32::new(0),
            withhold: AtomicBool::new(false),
            withheld: Notify::new(),
            release: Notify::new(),
            abandoned: AtomicBool::new(false),
        });
        tokio::spawn(accept(listener, target, faults.clone()));
        Ok(Self { address, faults })
    }

    /// Closes every connection.
    pub fn cut(&self) {
        self.faults.generation.send_modify(|generation| *generation += 1);
    }

    /// Delays every later chunk of data.
    pub fn delay(&self, delay: Duration) {
        self.faults.delay_millis.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Drops a number of responses, and closes their connections.
    pub fn drop_responses(&self, responses: u32) {
        self.faults.drop_responses.store(responses, Ordering::SeqCst);
    }

    /// Withholds the last message of the next append. PostgreSQL executes the append without that message. Returns when
    /// the message is withheld.
    pub async fn withhold_append(&self) {
        self.faults.abandoned.store(false, Ordering::SeqCst);
        self.faults.withhold.store(true, Ordering::SeqCst);
        self.faults.withheld.notified().await;
    }

    /// Forwards the withheld message, or stops waiting for an append.
    pub fn release(&self) {
        self.faults.withhold.store(false, Ordering::SeqCst);
        self.faults.release.notify_waiters();
    }

    /// Whether the client of the withheld append has closed its connection.
    pub fn was_abandoned(&self) -> bool {
        self.faults.abandoned.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, target: Target, faults: Arc<Faults>) {
    while let Ok((client, _)) = listener.accept().await {
        // Small chunks are sent at once, as without a proxy.
        let _ = client.set_nodelay(true);
        let (target, faults) = (target.clone(), faults.clone());
        tokio::spawn(async move {
            match target {
                Target::Unix(path) => {
                    if let Ok(server) = UnixStream::connect(path).await {
                        forward(client, server.into_split(), faults).await;
                    }
                }
                Target::Tcp(address) => {
                    if let Ok(server) = TcpStream::connect(address).await {
                        let _ = server.set_nodelay(true);
                        forward(client, server.into_split(), faults).await;
                    }
                }
            }
        });
    }
}

/// Forwards both directions until one of them ends or the connection is closed.
async fn forward<R, W>(client: TcpStream, (from_server, to_server): (R, W), faults: Arc<Faults>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut generation = faults.generation.subscribe();
    let (from_client, to_client) = client.into_split();
    tokio::select! {
        () = forward_requests(from_client, to_server, &faults) => {}
        () = forward_responses(from_server, to_client, &faults) => {}
        _ = generation.changed() => {}
    }
}

async fn forward_requests(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, faults: &Faults) {
    let mut buffer = vec![0; 65_536];
    let mut is_writer = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut chunk = &buffer[..length];
        delay(faults).await;
        is_writer |= chunk.windows(APPEND.len()).any(|window| window == APPEND);
        let is_append = is_writer && length >= APPEND_BYTES_MIN && chunk.ends_with(SYNC);
        if is_append && faults.withhold.swap(false, Ordering::SeqCst) {
            let (beginning, end) = chunk.split_at(length - SYNC.len());
            if to.write_all(beginning).await.is_err() {
                return;
            }
            let released = faults.release.notified();
            faults.withheld.notify_one();
            tokio::select! {
                () = released => {}
                // A client sends nothing before it has the response, so this is the end of the connection.
                _ = from.read_u8() => {
                    faults.abandoned.store(true, Ordering::SeqCst);
                    return;
                }
            }
            chunk = end;
        }
        if to.write_all(chunk).await.is_err() {
            return;
        }
    }
}

async fn forward_responses(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, faults: &Faults) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        delay(faults).await;
        let dropped =
            faults.drop_responses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if dropped.is_ok() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn delay(faults: &Faults) {
    let millis = faults.delay_millis.load(Ordering::SeqCst);
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}
