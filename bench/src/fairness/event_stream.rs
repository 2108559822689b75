//! An open event stream of a key.

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::fairness::connection::{CONNECTION_FAILED, Key, NO_RESPONSE, RESPONSE_TIMEOUT, describe};

/// An event stream with every new event that its key may read.
pub struct EventStream(BufReader<TcpStream>);

impl EventStream {
    /// Opens an event stream at the head of the log, and waits until it has caught up. If the service refuses it, the
    /// error describes the response for the report.
    pub async fn open(address: &str, key: &Key) -> Result<Self, String> {
        match tokio::time::timeout(RESPONSE_TIMEOUT, Self::try_open(address, key)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) => Err(CONNECTION_FAILED.to_owned()),
            Err(_) => Err(NO_RESPONSE.to_owned()),
        }
    }

    async fn try_open(address: &str, key: &Key) -> anyhow::Result<Result<Self, String>> {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(key.subscribe().as_bytes()).await?;
        let mut lines = BufReader::new(connection);
        let mut line = String::new();
        lines.read_line(&mut line).await?;
        let status = line.get(9..12).context("a response has no status")?.parse::<u16>()?;
        if status != 200 {
            let mut rest = String::new();
            lines.read_to_string(&mut rest).await?;
            let (_, body) = rest.split_once("\r\n\r\n").unwrap_or_default();
            return Ok(Err(describe(status, body.as_bytes())));
        }
        let mut event_stream = Self(lines);
        event_stream.read_until("event: caught-up").await?;
        Ok(Ok(event_stream))
    }

    /// Reads lines until one contains a text.
    pub async fn read_until(&mut self, text: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            if self.0.read_line(&mut line).await? == 0 {
                bail!("the event stream has ended");
            }
        }
        Ok(())
    }

    /// Reads and discards everything until the event stream ends.
    pub async fn discard(mut self) {
        // A broken event stream is not an error: the service ends it if it must.
        drop(tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await);
    }
}
