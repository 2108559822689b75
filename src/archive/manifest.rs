//! The manifest of an archived month: what is in its files, and how to tell that they are still what was written.

use std::ops::Range;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::event::Position;
use crate::domain::hex::hex;

/// What every manifest says it is.
const FORMAT: &str = "annals-archive/1";

/// What a file is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Position,
    Aggregate,
}

impl Order {
    pub const ALL: [Self; 2] = [Self::Position, Self::Aggregate];

    pub fn file_name(self) -> &'static str {
        match self {
            Self::Position => "by_position.parquet",
            Self::Aggregate => "by_aggregate.parquet",
        }
    }

    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Position => &["global_position"],
            Self::Aggregate => &["aggregate_type", "aggregate_id", "version"],
        }
    }
}

/// One month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    /// The partition that it was, like `events_2025_01`.
    pub month: String,
    pub starts_at: String,
    pub ends_at: String,
    pub events: u64,
    pub first_position: Position,
    pub last_position: Position,
    pub first_occurred_at: String,
    pub last_occurred_at: String,
    /// SHA-256 of the events in the order of the log: of what they say, not of a file.
    pub events_sha256: String,
    pub files: Vec<FileManifest>,
    pub annals_version: String,
    pub created_at: String,
}

/// One file of a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileManifest {
    pub name: String,
    /// The columns that its rows are sorted by.
    pub sorted_by: Vec<String>,
    pub bytes: u64,
    pub sha256: String,
    /// The row groups, one after the other.
    pub row_groups: Vec<Piece>,
    /// Everything after them.
    pub footer: Piece,
}

/// A piece of a file. Every read checks the piece that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    pub offset: u64,
    pub bytes: u64,
    pub sha256: String,
}

impl Piece {
    pub fn of(offset: u64, bytes: &[u8]) -> Self {
        Self { offset, bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
    }

    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.bytes)
    }

    /// Whether these are the bytes that were written.
    pub fn is(&self, bytes: &[u8]) -> bool {
        *self == Self::of(self.offset, bytes)
    }
}

/// The facts that a manifest of a month begins with.
#[derive(Debug, Clone)]
pub struct MonthFacts {
    pub month: String,
    pub starts_at: DateTime<Utc>,
    pub ends_at: DateTime<Utc>,
    pub events: u64,
    pub first_position: Position,
    pub last_position: Position,
    pub first_occurred_at: DateTime<Utc>,
    pub last_occurred_at: DateTime<Utc>,
}

impl Manifest {
    pub fn new(facts: &MonthFacts, events_sha256: String, files: Vec<FileManifest>, now: DateTime<Utc>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            month: facts.month.clone(),
            starts_at: time(facts.starts_at),
            ends_at: time(facts.ends_at),
            events: facts.events,
            first_position: facts.first_position,
            last_position: facts.last_position,
            first_occurred_at: time(facts.first_occurred_at),
            last_occurred_at: time(facts.last_occurred_at),
            events_sha256,
            files,
            annals_version: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: time(now),
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        text.push(b'\n');
        text
    }

    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("its format is {:?}, and {FORMAT:?} is known here", manifest.format));
        }
        Ok(manifest)
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
