//! The file of an import, line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use anyhow::bail;
use indicatif::ProgressBar;

use crate::cli::import::line::{ImportEvent, Line, Ordinals};
use crate::domain::derived_id::DerivedIds;

/// The longest line, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Adds what the file probably is, if it does not have one event a line.
fn with_hint(error: String, text: &str) -> String {
    let hint = match (text.as_bytes().first(), text.ends_with('}')) {
        (Some(b'['), _) => "the file is a JSON array: write one event a line, for example with `jq -c '.[]'`",
        (Some(b'{'), false) => "the file is pretty-printed JSON: write one event a line, for example with `jq -c .`",
        _ => return error,
    };
    format!("{error}. Probably {hint}")
}

/// The lines of a file.
pub(super) struct Lines<'f> {
    reader: BufReader<&'f mut File>,
    text: String,
    /// The number of the last line.
    pub(super) number: u64,
    events: u64,
    ordinals: Ordinals,
}

impl<'f> Lines<'f> {
    /// Reads the file from its start.
    pub(super) fn read(file: &'f mut File, ids: DerivedIds) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let reader = BufReader::with_capacity(1024 * 1024, file);
        Ok(Self { reader, text: String::new(), number: 0, events: 0, ordinals: Ordinals::new(ids) })
    }

    /// Returns the next event. Skips empty lines, and compares the end line of an export with the number of its events.
    pub(super) fn next_event(&mut self, progress: &ProgressBar) -> anyhow::Result<Option<ImportEvent>> {
        loop {
            self.text.clear();
            let read = (&mut self.reader).take(LINE_BYTES_MAX).read_line(&mut self.text);
            let read = read.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => anyhow::anyhow!("line {} is not UTF-8", self.number + 1),
                _ => anyhow::Error::new(error).context(format!("line {}", self.number + 1)),
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            progress.inc(read as u64);
            if read as u64 == LINE_BYTES_MAX {
                bail!("line {} is longer than {LINE_BYTES_MAX} bytes", self.number);
            }
            let text = self.text.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                continue;
            }
            let parsed = Line::parse(text, &mut self.ordinals);
            match parsed.map_err(|error| anyhow::anyhow!("line {}: {}", self.number, with_hint(error, text)))? {
                Line::Event(event) => {
                    self.events += 1;
                    return Ok(Some(*event));
                }
                // A file may contain several exports.
                Line::End(count) if count == self.events => self.events = 0,
                Line::End(count) => bail!(
                    "line {} says that the number of events before it is {count}, and it is {}: the file is \
                     not complete",
                    self.number,
                    self.events
                ),
            }
        }
    }
}
