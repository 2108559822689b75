//! What a run has sent, been answered and seen: all that the checker knows, and all that is needed to check it again.
//!
//! Times are microseconds since the run began, by one clock. An event is named by who sent it, so that its id and its
//! content can be computed, and a history does not have to hold them.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use annals::domain::event::Position;
use annals::domain::version::Version;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Microseconds since the run began.
pub type Micros = u64;

/// Which event it is: the `index`th of the `number`th request of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventName {
    pub writer: u16,
    pub number: u32,
    pub index: u16,
}

impl EventName {
    /// Its id: a UUID of version 8, made of the name alone.
    pub fn id(self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[0..2].copy_from_slice(&self.writer.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.number.to_be_bytes());
        bytes[9..11].copy_from_slice(&self.index.to_be_bytes());
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    pub fn of(id: Uuid) -> Option<Self> {
        let bytes = id.as_bytes();
        let name = Self {
            writer: u16::from_be_bytes([bytes[0], bytes[1]]),
            number: u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
            index: u16::from_be_bytes([bytes[9], bytes[10]]),
        };
        (name.id() == id).then_some(name)
    }

    /// What its `event_data` is. Folded by merge-patch, a state names the last event that is in it.
    pub fn data(self) -> Value {
        let pad = "x".repeat(usize::from(self.writer) * 7 + self.number as usize % 90);
        json!({"last": self.id(), "number": self.number, "pad": pad})
    }
}

/// A request, with every try to have it answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    pub writer: u16,
    pub number: u32,
    /// The streams that it appends to, in one step.
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
    /// 201: first version and first position of each append.
    Written(Vec<(Version, Position)>),
    /// 200: the same.
    Replayed(Vec<(Version, Position)>),
    /// 412 or 409: stream and its version at that time, for those that were not as expected.
    Conflict(Vec<(String, Version)>),
    /// 503 of a code that says that nothing was written.
    Refused(String),
    /// No answer, or 503 `outcome_unknown`.
    Unknown(String),
    /// No answer within the time that every request has to be answered in.
    Hung,
    /// An answer that nothing in a run should lead to.
    Unexpected(String),
}

impl Request {
    /// Where it stands, as the first answer that tells says.
    pub fn acknowledged(&self) -> Option<&[(Version, Position)]> {
        self.attempts.iter().find_map(|attempt| match &attempt.outcome {
            Outcome::Written(stands) | Outcome::Replayed(stands) => Some(stands.as_slice()),
            _ => None,
        })
    }

    /// Names of the events of each append.
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

/// What one reader was handed out, in that order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reader {
    pub name: String,
    /// The only aggregate type that it asks for.
    pub aggregate_type: Option<String>,
    pub events: Vec<(Position, Uuid)>,
    pub connections: u32,
}

/// Something that was read at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Where the log ended.
    Head { asked: Micros, ended: Micros, head: Position },
    /// The state of an aggregate: its version, and the last event that is in it.
    State { asked: Micros, ended: Micros, stream: String, version: Version, last: Uuid },
}

/// An event, as the log has it in the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logged {
    pub global_position: Position,
    pub stream: String,
    pub version: Version,
    pub event_id: Uuid,
    pub occurred_at: String,
    /// Left out where it is what the event's name says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub altered_data: Option<Value>,
}

/// Something that was done to the service, and whether the rest of it went on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    pub round: u32,
    pub at: Micros,
    pub what: String,
    /// What should have gone on or come back and did not.
    pub harm: Option<String>,
}

#[derive(Debug, Default)]
pub struct History {
    pub requests: Vec<Request>,
    pub readers: Vec<Reader>,
    pub looks: Vec<Look>,
    pub log: Vec<Logged>,
    pub faults: Vec<Fault>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Request(Request),
    Reader(Reader),
    Look(Look),
    Logged(Logged),
    Fault(Fault),
}

impl History {
    /// Writes one JSON object a line.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let lines = self.requests.iter().cloned().map(Line::Request);
        let lines = lines.chain(self.readers.iter().cloned().map(Line::Reader));
        let lines = lines.chain(self.looks.iter().cloned().map(Line::Look));
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
                Line::Look(look) => history.looks.push(look),
                Line::Logged(logged) => history.log.push(logged),
                Line::Fault(fault) => history.faults.push(fault),
            }
        }
        Ok(history)
    }
}
