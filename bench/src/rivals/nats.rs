//! NATS JetStream, over the text protocol of NATS.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::per_second;
use crate::load::{EVENT_DATA, EVENTS_OF_STREAM, PARTITIONS};

/// The number of messages that are published before the server has confirmed the first of them.
const PUBLISHED_AHEAD: u64 = 500;
/// The longest wait for the server to start.
const START_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A server whose stream has all events.
pub struct NatsServer {
    address: String,
    events: u64,
    /// The number of catch-ups so far. Each has consumers of its own.
    catch_ups: u64,
    // The order matters: the process ends before its folder is removed.
    _child: Child,
    _folder: tempfile::TempDir,
}

impl NatsServer {
    /// Starts a server, and publishes the events.
    pub async fn start(program: &Path, events: u64) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("annals-bench-nats-").tempdir()?;
        let child = Command::new(program)
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(folder.path().join("store"))
            .arg("--ports_file_dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let address = tokio::time::timeout(START_MAX, read_address(folder.path())).await??;
        publish(&address, events).await?;
        Ok(Self { address, events, catch_ups: 0, _child: child, _folder: folder })
    }

    /// Lets a worker for each partition process all events, or as many as it can in the time. Returns the number of events
    /// per second.
    pub async fn catch_up(&mut self, time: Duration) -> anyhow::Result<f64> {
        self.catch_ups += 1;
        let mut client = Connection::open(&self.address).await?;
        let mut consumers = Vec::new();
        for partition in 0..PARTITIONS {
            let name = format!("c{}-{partition}", self.catch_ups);
            let config = json!({"stream_name": "work", "config": {
                "durable_name": name, "filter_subject": format!("work.{partition}"), "deliver_policy": "all",
                "ack_policy": "explicit", "max_ack_pending": 1}});
            client.request(&format!("$JS.API.CONSUMER.DURABLE.CREATE.work.{name}"), &config.to_string()).await?;
            consumers.push((name, Connection::open(&self.address).await?));
        }
        let (processed, all_done) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for (name, connection) in consumers {
            tasks.spawn(work(connection, name, self.events, processed.clone(), all_done.clone()));
        }
        tokio::select! {
            () = all_done.notified() => {}
            () = tokio::time::sleep(time) => {}
            Some(failed) = tasks.join_next() => failed??,
        }
        Ok(per_second(processed.load(Ordering::Relaxed), started))
    }
}

/// Returns the address of the server, as soon as it has written it.
async fn read_address(folder: &Path) -> anyhow::Result<String> {
    loop {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "ports") {
                let ports: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
                let url = ports["nats"][0].as_str().context("the server has a port")?;
                return Ok(url.trim_start_matches("nats://").to_owned());
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Publishes the events, stream by stream. Each stream belongs to one partition.
async fn publish(address: &str, events: u64) -> anyhow::Result<()> {
    let mut client = Connection::open(address).await?;
    let stream = json!({"name": "work", "subjects": ["work.*"], "storage": "file"});
    client.request("$JS.API.STREAM.CREATE.work", &stream.to_string()).await?;
    let inbox = client.inbox.clone();
    let mut published = 0;
    while published < events {
        // The server drops messages if too many of them wait to be stored.
        let end = events.min(published + PUBLISHED_AHEAD);
        for n in published..end {
            let partition = (n / EVENTS_OF_STREAM) % u64::from(PARTITIONS);
            client.publish(&format!("work.{partition}"), Some(&inbox), EVENT_DATA).await?;
        }
        client.writer.flush().await?;
        for _ in published..end {
            let stored: Value = serde_json::from_slice(&client.receive().await?.payload)?;
            ensure!(stored["error"].is_null(), "a message is not stored: {stored}");
        }
        published = end;
    }
    Ok(())
}

/// Processes the messages of a consumer, one after the other.
async fn work(
    mut connection: Connection,
    consumer: String,
    events: u64,
    processed: Arc<AtomicU64>,
    all_done: Arc<Notify>,
) -> anyhow::Result<()> {
    let inbox = connection.inbox.clone();
    connection.publish(&format!("$JS.API.CONSUMER.MSG.NEXT.work.{consumer}"), Some(&inbox), "1").await?;
    loop {
        connection.writer.flush().await?;
        let message = connection.receive().await?;
        ensure!(message.payload == EVENT_DATA.as_bytes(), "another message than expected");
        if processed.fetch_add(1, Ordering::Relaxed) + 1 == events {
            all_done.notify_one();
        }
        connection.publish(&message.reply_to, Some(&inbox), "+NXT").await?;
    }
}

/// A message of a subscription.
struct Message {
    /// The subject that takes the response, or empty.
    reply_to: String,
    payload: Vec<u8>,
}

/// A connection with one subscription, to a subject for responses.
struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: BufWriter<OwnedWriteHalf>,
    inbox: String,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let inbox = format!("_INBOX.{:016x}", fastrand::u64(..));
        let mut connection = Self { reader: BufReader::new(reader), writer: BufWriter::new(writer), inbox };
        let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {} 1\r\n", connection.inbox);
        connection.writer.write_all(hello.as_bytes()).await?;
        connection.writer.flush().await?;
        Ok(connection)
    }

    /// Writes a message. It is sent when the buffer is flushed, or full.
    async fn publish(&mut self, subject: &str, reply_to: Option<&str>, payload: &str) -> anyhow::Result<()> {
        let reply_to = reply_to.map(|reply_to| format!("{reply_to} ")).unwrap_or_default();
        let message = format!("PUB {subject} {reply_to}{}\r\n{payload}\r\n", payload.len());
        Ok(self.writer.write_all(message.as_bytes()).await?)
    }

    /// Sends a request of the JetStream API. Fails if the response has an error.
    async fn request(&mut self, subject: &str, payload: &str) -> anyhow::Result<Value> {
        let inbox = self.inbox.clone();
        self.publish(subject, Some(&inbox), payload).await?;
        self.writer.flush().await?;
        let response: Value = serde_json::from_slice(&self.receive().await?.payload)?;
        ensure!(response["error"].is_null(), "{subject}: {}", response["error"]);
        Ok(response)
    }

    /// Waits for the next message.
    async fn receive(&mut self) -> anyhow::Result<Message> {
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.reader.read_line(&mut line).await? > 0, "the server has closed the connection");
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("MSG") => break,
                Some("PING") => {
                    self.writer.write_all(b"PONG\r\n").await?;
                    self.writer.flush().await?;
                }
                Some("INFO" | "PONG" | "+OK") => {}
                _ => bail!("the server has sent {line:?}"),
            }
        }
        // MSG <subject> <subscription> [<reply-to>] <bytes>
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let bytes: usize = words.last().context("a message has a length")?.parse()?;
        let reply_to = if words.len() == 5 { words[3].to_owned() } else { String::new() };
        let mut payload = vec![0; bytes + 2];
        self.reader.read_exact(&mut payload).await?;
        payload.truncate(bytes);
        Ok(Message { reply_to, payload })
    }
}
