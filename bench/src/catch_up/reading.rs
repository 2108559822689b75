//! One read of events over HTTP. The client only counts: parsing would take processor time from the service.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncReadExt;

use crate::load::open;

/// The size of the buffer of a client.
const BUFFER_BYTES: usize = 256 * 1024;

/// The representation of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Lines,
    EventStream,
}

/// What a read has received.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub events: u64,
    /// The time from the request to the first byte of the body.
    pub first_byte: Duration,
    /// The time from the request to the last byte.
    pub took: Duration,
}

impl Reading {
    /// Returns the number of events per second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

/// Reads all events of a path, which ends with its query: lines up to the end line, an event stream until it has caught
/// up.
pub async fn read_events(address: &str, path: &str, format: Format) -> anyhow::Result<Reading> {
    let accept = match format {
        Format::Lines => "application/x-ndjson",
        Format::EventStream => "text/event-stream",
    };
    let started = Instant::now();
    let mut connection = open(address, path, accept).await?;
    let mut body = Body { format, breaks: 0, tail: Vec::new() };
    let (mut buffer, mut head, mut first_byte) = (vec![0; BUFFER_BYTES], Vec::new(), None);
    loop {
        let read = connection.read(&mut buffer).await?;
        if first_byte.is_none() {
            ensure!(read > 0, "the response has no body: {}", String::from_utf8_lossy(&head));
            head.extend_from_slice(&buffer[..read]);
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            ensure!(head.starts_with(b"HTTP/1.1 200 ") || head.starts_with(b"HTTP/1.0 200 "), "{}", {
                String::from_utf8_lossy(&head)
            });
            if head.len() > end + 4 {
                first_byte = Some(started.elapsed());
                body.add(&head[end + 4..]);
            }
        } else {
            body.add(&buffer[..read]);
        }
        if read == 0 || body.has_caught_up() {
            break;
        }
    }
    let first_byte = first_byte.context("the response has no body")?;
    Ok(Reading { events: body.events()?, first_byte, took: started.elapsed() })
}

/// Reads the pages of a path, one after the other.
pub async fn read_pages(address: &str, path: &str) -> anyhow::Result<Reading> {
    let started = Instant::now();
    let (mut next, mut events, mut first_byte) = (Some(path.to_owned()), 0, None);
    while let Some(path) = next {
        let mut connection = open(address, &path, "application/json").await?;
        let mut response = Vec::with_capacity(BUFFER_BYTES);
        connection.read_buf(&mut response).await?;
        first_byte.get_or_insert_with(|| started.elapsed());
        connection.read_to_end(&mut response).await?;
        let response = String::from_utf8(response)?;
        ensure!(response.get(9..12) == Some("200"), "{response}");
        events += response.matches("{\"event_id\":").count() as u64;
        let (_, end) = response.rsplit_once("\"next\":").context("a page has no next")?;
        next = end.strip_prefix('"').and_then(|link| Some(link.split_once('"')?.0.to_owned()));
    }
    Ok(Reading { events, first_byte: first_byte.context("no page was read")?, took: started.elapsed() })
}

/// The body of a response, of which the line breaks are counted.
struct Body {
    format: Format,
    breaks: u64,
    /// The last bytes.
    tail: Vec<u8>,
}

impl Body {
    const TAIL_BYTES: usize = 256;

    fn add(&mut self, bytes: &[u8]) {
        self.breaks += count_byte(bytes, b'\n');
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(Self::TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(Self::TAIL_BYTES));
    }

    fn has_caught_up(&self) -> bool {
        self.format == Format::EventStream && self.tail_text().contains("\nevent: caught-up\n")
    }

    fn tail_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.tail)
    }

    /// Returns the number of events in a complete body.
    fn events(&self) -> anyhow::Result<u64> {
        let tail = self.tail_text();
        match self.format {
            Format::Lines => {
                let (_, end) =
                    tail.rsplit_once("{\"end\":{\"count\":").with_context(|| format!("no end line: {tail}"))?;
                let count = end.split(',').next().unwrap_or_default().parse()?;
                ensure!(count == self.breaks - 1, "the end line says {count} events, received {}", self.breaks - 1);
                Ok(count)
            }
            // `retry` has two lines, `caught-up` has four, and each event has three: its id, its data and the end.
            Format::EventStream if self.has_caught_up() && self.breaks.is_multiple_of(3) => Ok(self.breaks / 3 - 2),
            Format::EventStream => bail!("the event stream ended early: {tail}"),
        }
    }
}

fn count_byte(bytes: &[u8], wanted: u8) -> u64 {
    // Sums of 255 bytes fit in a byte, and are computed for many bytes at once.
    bytes.chunks(255).map(|part| u64::from(part.iter().map(|byte| u8::from(*byte == wanted)).sum::<u8>())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(format: Format, parts: &[&str]) -> anyhow::Result<u64> {
        let mut body = Body { format, breaks: 0, tail: Vec::new() };
        parts.iter().for_each(|part| body.add(part.as_bytes()));
        body.events()
    }

    #[test]
    fn events_are_counted_and_an_incomplete_body_is_an_error() {
        let end = "{\"end\":{\"count\":2,\"next\":\"x\"}}\n";
        assert_eq!(events(Format::Lines, &["{\"a\":1}\n{\"a\"", ":2}\n", end]).expect("a count"), 2);
        assert!(events(Format::Lines, &["{\"a\":1}\n", end]).is_err());
        assert!(events(Format::Lines, &["{\"a\":1}\n"]).is_err());
        let caught_up = "event: caught-up\nid: 1:2\ndata: {\"position\":2}\n\n";
        let frames = ["retry: 2000\n\n", "id: 1:1\ndata: {}\n", "\nid: 1:2\ndata: {}\n\n", caught_up];
        assert_eq!(events(Format::EventStream, &frames).expect("a count"), 2);
        assert!(events(Format::EventStream, &frames[..3]).is_err());
    }
}
