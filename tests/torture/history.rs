//! The history of a run: requests, responses, reads and the log. The checker needs nothing else, so a stored history
//! can be checked again.
//!
//! Times are microseconds since the start of the run, on one clock. The name of an event identifies the request that
//! sent it. The id and the content of the event are computed from the name, and are not stored in the history.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use annals::domain::event::Position;
use annals::domain::version::Version;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Microseconds since the start of the run.
pub type Micros = u64;

/// The name of an event: its writer, the number of the request of that writer, and its index in the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventName {
    pub writer: u16,
    pub number: u32,
    pub index: u16,
}

impl EventName {
    /// Returns the event id, a UUID of version 8 that encodes the name.
    pub fn id(self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[0..2].copy_from_slice(&self.writer.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.number.to_be_bytes());
        bytes[9..11].copy_from_slice(&self.index.to_be_bytes());
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Decodes an event id; `None` for an id that encodes no name.
    pub fn from_id(id: Uuid) -> Option<Self> {
        let bytes = id.as_bytes();
        let name = Self {
            writer: u16::from_be_bytes([bytes[0], bytes[1]]),
            number: u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
            index: u16::from_be_bytes([bytes[9], bytes[10]]),
        };
        (name.id() == id).then_some(name)
    }

    /// Returns the `event_data`. A state that merge-patch has folded contains the id of its last event.
    pub fn data(self) -> Value {
        let pad = "x".repeat(usize::from(self.writer) * 7 + self.number as usize % 90);
        json!({"last": self.id(), "number": self.number, "pad": pad})
    }
}

/// A request with all its attempts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    pub writer: u16,
    pub number: u32,
    /// The appends, one for each stream, in one atomic step.
    pub appends: Vec<Append>,
    pub attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Append {
    /// `type/id`.
    pub stream: String,
    pub expected: Option<Version>,
    pub events: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    pub sent: Micros,
    pub ended: Micros,
    pub replica: usize,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// 201: the first version and the first position of each append.
    Written(Vec<(Version, Position)>),
    /// 200: the first version and the first position of each append, as in the first response.
    Replayed(Vec<(Version, Position)>),
    /// 412 or 409: the streams whose version was not the expected one, with their current versions.
    Conflict(Vec<(String, Version)>),
    /// 503 with a code that means that nothing was written.
    Refused(String),
    /// No response, or 503 `outcome_unknown`.
    Unknown(String),
    /// No response within the time limit of every request.
    Hung,
    /// A response that no fault of the run explains.
    Unexpected(String),
}

impl Request {
    /// Returns the first version and position of each append, from the first acknowledgement.
    pub fn acknowledged(&self) -> Option<&[(Version, Position)]> {
        self.attempts.iter().find_map(|attempt| match &attempt.outcome {
            Outcome::Written(places) | Outcome::Replayed(places) => Some(places.as_slice()),
            _ => None,
        })
    }

    /// Returns each append with the names of its events.
    pub fn names(&self) -> impl Iterator<Item = (&Append, Vec<EventName>)> {
        let mut next = 0;
        self.appends.iter().map(move |append| {
            let range = next..next + append.events;
            next = range.end;
            let name = |index| EventName { writer: self.writer, number: self.number, index };
            (append, range.map(name).collect())
        })
    }
}

/// The events that a reader has received, in that order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reader {
    pub name: String,
    /// The only aggregate type that the reader requests; `None`: all types.
    pub aggregate_type: Option<String>,
    pub events: Vec<(Position, Uuid)>,
    pub connections: u32,
}

/// A read of the head of the log, or of a state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read {
    /// The position of the last event of the log.
    Head { asked: Micros, ended: Micros, head: Position },
    /// The state of an aggregate: its version and its last event.
    State { asked: Micros, ended: Micros, stream: String, version: Version, last: Uuid },
}

/// An acknowledged erasure: the ids of the events that the request named.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Erased {
    pub erasure: i64,
    pub event_ids: Vec<Uuid>,
}

/// An accepted acknowledgement of a worker: the claim, and the positions of the events that it has processed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Processed {
    pub claim: String,
    pub positions: Vec<Position>,
}

/// An event of the log at the end of the run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logged {
    pub global_position: Position,
    pub stream: String,
    pub version: Version,
    pub event_id: Uuid,
    pub occurred_at: String,
    /// The `event_data`, if it differs from the content that the name determines, and is not erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub altered_data: Option<Value>,
    #[serde(default)]
    pub is_erased: bool,
    /// What a `$erased` event announces; `None`: the event is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announcement: Option<Announcement>,
}

/// The data of a `$erased` event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Announcement {
    pub erasure: i64,
    /// The erased versions as ranges, both bounds included.
    pub versions: Vec<(Version, Version)>,
}

/// A fault that was injected, and whether the service continued.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    pub round: u32,
    pub at: Micros,
    pub what: String,
    /// What did not continue or recover.
    pub harm: Option<String>,
}

#[derive(Debug, Default)]
pub struct History {
    pub requests: Vec<Request>,
    pub readers: Vec<Reader>,
    pub reads: Vec<Read>,
    /// In the order of the responses. It is empty if the run had no workers.
    pub processed: Vec<Processed>,
    pub erased: Vec<Erased>,
    pub log: Vec<Logged>,
    pub faults: Vec<Fault>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Request(Request),
    Reader(Reader),
    Read(Read),
    Processed(Processed),
    Erased(Erased),
    Logged(Logged),
    Fault(Fault),
}

impl History {
    /// Writes one JSON object on each line.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let lines = self.requests.iter().cloned().map(Line::Request);
        let lines = lines.chain(self.readers.iter().cloned().map(Line::Reader));
        let lines = lines.chain(self.reads.iter().cloned().map(Line::Read));
        let lines = lines.chain(self.processed.iter().cloned().map(Line::Processed));
        let lines = lines.chain(self.erased.iter().cloned().map(Line::Erased));
        let lines = lines.chain(self.log.iter().cloned().map(Line::Logged));
        for line in lines.chain(self.faults.iter().cloned().map(Line::Fault)) {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut history = Self::default();
        let file = File::open(path).with_context(|| path.display().to_string())?;
        for line in BufReader::new(file).lines() {
            match serde_json::from_str(&line?)? {
                Line::Request(request) => history.requests.push(request),
                Line::Reader(reader) => history.readers.push(reader),
                Line::Read(read) => history.reads.push(read),
                Line::Processed(processed) => history.processed.push(processed),
                Line::Erased(erased) => history.erased.push(erased),
                Line::Logged(logged) => history.log.push(logged),
                Line::Fault(fault) => history.faults.push(fault),
            }
        }
        Ok(history)
    }
}
