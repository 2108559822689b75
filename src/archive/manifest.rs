//! The manifest of an archived partition: its files, and the digests with which a reader verifies them.

use std::ops::Range;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::event::Position;
use crate::domain::hex::hex;

/// The value of every manifest's `format`.
const FORMAT: &str = "annals-archive/1";

/// The order of the events in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By global position.
    Position,
    /// By aggregate type, aggregate id and version.
    Aggregate,
}

impl Order {
    /// The orders of the files of a partition, as the manifest lists them.
    pub const ALL: [Self; 2] = [Self::Position, Self::Aggregate];

    /// Returns the name of the file in this order.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Position => "by_position.parquet",
            Self::Aggregate => "by_aggregate.parquet",
        }
    }

    /// Returns the columns by which the file is sorted.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Position => &["global_position"],
            Self::Aggregate => &["aggregate_type", "aggregate_id", "version"],
        }
    }
}

/// The manifest of a partition. Times are RFC 3339 with microseconds, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    /// The name of the partition, like `events_2025_01`.
    pub partition: String,
    pub starts_at: String,
    pub ends_at: String,
    pub events: u64,
    pub first_position: Position,
    pub last_position: Position,
    pub first_occurred_at: String,
    pub last_occurred_at: String,
    /// The SHA-256 of the events in the order of the log: of their fields, not of a file.
    pub events_sha256: String,
    pub files: Vec<FileManifest>,
    pub annals_version: String,
    pub created_at: String,
}

/// One file of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileManifest {
    pub name: String,
    /// The columns by which its rows are sorted.
    pub sorted_by: Vec<String>,
    pub bytes: u64,
    pub sha256: String,
    /// The row groups, in order.
    pub row_groups: Vec<FileRange>,
    /// The bytes after the row groups.
    pub footer: FileRange,
}

/// A range of a file that is read at once. Every read compares the SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRange {
    pub offset: u64,
    pub bytes: u64,
    pub sha256: String,
}

impl FileRange {
    /// Describes the bytes at an offset.
    pub fn new(offset: u64, bytes: &[u8]) -> Self {
        Self { offset, bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
    }

    /// Returns the offsets of the bytes in the file.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.bytes)
    }

    /// Returns whether these are the bytes that were written.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        *self == Self::new(self.offset, bytes)
    }
}

/// What the catalogue records of a sealed partition that has events.
#[derive(Debug, Clone)]
pub struct PartitionFacts {
    pub name: String,
    pub starts_at: DateTime<Utc>,
    pub ends_at: DateTime<Utc>,
    pub events: u64,
    pub first_position: Position,
    pub last_position: Position,
    pub first_occurred_at: DateTime<Utc>,
    pub last_occurred_at: DateTime<Utc>,
}

impl Manifest {
    /// Creates a manifest. `now` is the time at which it is created.
    pub fn new(facts: &PartitionFacts, events_sha256: String, files: Vec<FileManifest>, now: DateTime<Utc>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            partition: facts.name.clone(),
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

    /// Returns the text of `manifest.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        text.push(b'\n');
        text
    }

    /// Parses `manifest.json`. The error says what is wrong, for the end of a message.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("its format is {:?}, and this version reads {FORMAT:?}", manifest.format));
        }
        Ok(manifest)
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
