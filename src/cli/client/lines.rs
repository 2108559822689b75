//! The lines of a response, and events as lines (NDJSON).

use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::cli::client::failure::Failure;
use crate::cli::client::http::{Client, LINES_SILENCE_MAX, NDJSON, SILENCE_MAX};
use crate::cli::client::problem::{CallError, Problem};

/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The lines of a response, as they arrive.
pub struct Lines<'c> {
    client: &'c Client,
    response: Response,
    /// The longest time without a part of the response.
    silence: Duration,
    buffer: Vec<u8>,
    /// The start of the next line in the buffer.
    start: usize,
}

impl<'c> Lines<'c> {
    /// Requests a path in a representation that consists of lines.
    pub async fn open(client: &'c Client, path: &str, accept: &'static str) -> Result<Self, CallError> {
        let response = client.open(path, accept).await?;
        let silence = if accept == NDJSON { LINES_SILENCE_MAX } else { SILENCE_MAX };
        Ok(Self { client, response, silence, buffer: Vec::new(), start: 0 })
    }

    /// Returns whether the next line has to be waited for.
    pub fn is_drained(&self) -> bool {
        !self.buffer[self.start..].contains(&b'\n')
    }

    /// Waits for the next line, without its line break; `None` at the end of the response.
    pub async fn next(&mut self) -> Result<Option<&str>, CallError> {
        let mut searched = self.start;
        let end = loop {
            if let Some(found) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                break searched + found;
            }
            self.buffer.drain(..self.start);
            (self.start, searched) = (0, self.buffer.len());
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self.client.foreign("it responded with a line that is too long"));
            }
            match self.client.next_chunk(&mut self.response, self.silence).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(self.client.cut_short()),
            }
        };
        let line = &self.buffer[self.start..end];
        self.start = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        std::str::from_utf8(line)
            .map(Some)
            .map_err(|_| self.client.foreign("it responded with a line that is not UTF-8"))
    }
}

/// The members of the last line, which no event has.
#[derive(Deserialize)]
struct LastLine {
    end: Option<IgnoredAny>,
    error: Option<Box<Problem>>,
}

/// Reads events as lines, and passes each one on. Fails if the response has no end line, because then events are
/// missing.
pub async fn read_events(
    client: &Client,
    path: &str,
    mut each: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut lines = Lines::open(client, path, NDJSON).await?;
    while let Some(line) = lines.next().await? {
        let last: LastLine = serde_json::from_str(line)
            .map_err(|_| client.foreign("it responded with a line that is not a JSON object"))?;
        if last.end.is_some() {
            return Ok(());
        }
        if let Some(problem) = last.error {
            return Err(CallError::Problem(problem).into());
        }
        each(line)?;
    }
    Err(client.cut_short().into())
}
