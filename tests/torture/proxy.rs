//! A TCP proxy that cuts, delays, swallows and holds back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};

/// The message with which a client of PostgreSQL ends what it asks for (the manual, "Message Formats").
const SYNC: &[u8] = b"S\0\0\0\x04";
/// How the connection is known on which appends are sent: it has prepared this.
const APPEND: &[u8] = b"CALL append_event";
/// An append is longer than everything else that is sent on that connection again and again.
const APPEND_BYTES_MIN: usize = 150;

#[derive(Clone)]
pub enum Target {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

struct Faults {
    /// Every connection of an earlier generation is closed.
    generation: watch::Sender<u64>,
    delay_millis: AtomicU64,
    /// So many answers are swallowed; each costs its connection.
    swallow: AtomicU32,
    /// The end of the next append is held back.
    hold: AtomicBool,
    held: Notify,
    release: Notify,
    /// A connection whose append is held back was closed by its client.
    given_up: AtomicBool,
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
            swallow: AtomicU32::new(0),
            hold: AtomicBool::new(false),
            held: Notify::new(),
            release: Notify::new(),
            given_up: AtomicBool::new(false),
        });
        tokio::spawn(accept(listener, target, faults.clone()));
        Ok(Self { address, faults })
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.faults.generation.send_modify(|generation| *generation += 1);
    }

    /// Every piece that passes waits so long from now on.
    pub fn delay(&self, delay: Duration) {
        self.faults.delay_millis.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Swallows the next answers, each with its connection.
    pub fn swallow(&self, answers: u32) {
        self.faults.swallow.store(answers, Ordering::SeqCst);
    }

    /// Holds back the last message of the next append, which PostgreSQL carries out without it; returns when it is held.
    pub async fn hold_append(&self) {
        self.faults.given_up.store(false, Ordering::SeqCst);
        self.faults.hold.store(true, Ordering::SeqCst);
        self.faults.held.notified().await;
    }

    /// Nothing is to be held back any more, or what is held back goes on.
    pub fn release(&self) {
        self.faults.hold.store(false, Ordering::SeqCst);
        self.faults.release.notify_waiters();
    }

    /// Whether the client of the append that is held back has gone.
    pub fn has_given_up(&self) -> bool {
        self.faults.given_up.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, target: Target, faults: Arc<Faults>) {
    while let Ok((client, _)) = listener.accept().await {
        // Small pieces go at once, as they do without a proxy.
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

/// Both directions, until one ends or the connection is cut.
async fn forward<R, W>(client: TcpStream, (from_server, to_server): (R, W), faults: Arc<Faults>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut generation = faults.generation.subscribe();
    let (from_client, to_client) = client.into_split();
    tokio::select! {
        () = ask(from_client, to_server, &faults) => {}
        () = answer(from_server, to_client, &faults) => {}
        _ = generation.changed() => {}
    }
}

async fn ask(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, faults: &Faults) {
    let mut buffer = vec![0; 65_536];
    let mut appends = false;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut piece = &buffer[..length];
        pause(faults).await;
        appends |= piece.windows(APPEND.len()).any(|window| window == APPEND);
        let is_append = appends && length >= APPEND_BYTES_MIN && piece.ends_with(SYNC);
        if is_append && faults.hold.swap(false, Ordering::SeqCst) {
            let (most, end) = piece.split_at(length - SYNC.len());
            if to.write_all(most).await.is_err() {
                return;
            }
            let released = faults.release.notified();
            faults.held.notify_one();
            tokio::select! {
                () = released => {}
                // Nothing more comes before the answer: it can only be the end.
                _ = from.read_u8() => {
                    faults.given_up.store(true, Ordering::SeqCst);
                    return;
                }
            }
            piece = end;
        }
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}

async fn answer(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, faults: &Faults) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        pause(faults).await;
        let swallowed = faults.swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if swallowed.is_ok() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn pause(faults: &Faults) {
    let millis = faults.delay_millis.load(Ordering::SeqCst);
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}
