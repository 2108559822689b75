//! No promise: the model of the API, which consists of a few maps in memory. It follows docs/reference/http-api.md and
//! docs/reference/errors.md, and shares no code with the implementation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Command;
use crate::support::id;

pub const TYPES: [&str; 2] = ["Order", "Invoice"];
pub const EVENT_TYPES: [&str; 2] = ["Happened", "Changed"];
const NAMES: [&str; 5] = ["Order/1", "Order/2", "Order/a", "Invoice/1", "Invoice/2"];
pub const STREAMS: u8 = NAMES.len() as u8;

/// Returns the name of a stream, as `type/id`.
pub fn stream(number: u8) -> &'static str {
    NAMES[usize::from(number)]
}

#[derive(Debug, Clone)]
pub struct Append {
    pub stream: u8,
    pub expected: Expected,
    /// For each event, the number of its id, and whether it has its unusual content.
    pub events: Vec<(u8, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Any,
    None,
    Exists,
    Exactly(i64),
    /// The current version of the stream.
    Current,
}

impl Append {
    pub fn events(&self) -> Vec<Value> {
        self.events.iter().map(|event| sent(*event)).collect()
    }
}

fn sent((event, unusual): (u8, bool)) -> Value {
    let event_type = EVENT_TYPES[usize::from(event % 2)];
    json!({"event_id": id(u32::from(event)), "event_type": event_type, "event_data": {"of": event, "unusual": unusual}})
}

#[derive(Debug, Clone)]
struct Stored {
    stream: u8,
    version: i64,
    event: (u8, bool),
}

struct Snapshot {
    version: i64,
    revision: Option<u8>,
}

/// The store. The position of an event is its index in the log, from 1.
#[derive(Default)]
pub struct Model {
    log: Vec<Stored>,
    projections: BTreeMap<u8, i64>,
    snapshots: BTreeMap<u8, Snapshot>,
}

type Response = (u16, Value);

fn problem(status: u16, code: &str, mut more: Value) -> Response {
    more["code"] = json!(code);
    (status, more)
}

impl Model {
    pub fn head(&self, stream: u8) -> i64 {
        self.events_of(stream).count() as i64
    }

    fn events_of(&self, stream: u8) -> impl Iterator<Item = (i64, &Stored)> {
        (1..=self.log.len() as i64).zip(&self.log).filter(move |(_, stored)| stored.stream == stream)
    }

    fn event(&self, position: i64) -> Value {
        let stored = &self.log[position as usize - 1];
        let (aggregate_type, aggregate_id) = stream(stored.stream).split_once('/').expect("type/id");
        let mut event = sent(stored.event);
        event["aggregate_type"] = json!(aggregate_type);
        event["aggregate_id"] = json!(aggregate_id);
        event["version"] = json!(stored.version);
        event["global_position"] = json!(position);
        event["metadata"] = Value::Null;
        event
    }

    pub fn log(&self) -> Value {
        (1..=self.log.len() as i64).map(|position| self.event(position)).collect()
    }

    /// Returns the command with the current version of the stream in place of [`Expected::Current`].
    pub fn with_exact_versions(&self, command: &Command) -> Command {
        let exact = |append: &Append| match append.expected {
            Expected::Current => Append { expected: Expected::Exactly(self.head(append.stream)), ..append.clone() },
            _ => append.clone(),
        };
        match command {
            Command::Append(append) => Command::Append(exact(append)),
            Command::AppendMany(appends) => Command::AppendMany(appends.iter().map(exact).collect()),
            command => command.clone(),
        }
    }

    pub fn respond(&mut self, command: &Command) -> Response {
        match command {
            Command::Append(append) => {
                let (status, body) = self.append(std::slice::from_ref(append));
                match status {
                    200 | 201 => (status, body["appends"][0].clone()),
                    409 if body["code"] == "version_conflict" => {
                        let conflict = &body["conflicts"][0];
                        problem(412, "version_conflict", json!({"current_version": conflict["current_version"]}))
                    }
                    _ => (status, body),
                }
            }
            Command::AppendMany(appends) => self.append(appends),
            Command::Repeat(_) => unreachable!("a repetition is replaced by the command that it repeats"),
            Command::ReadStream { stream, from, to, limit, backward } => {
                self.stream(*stream, *from, *to, *limit, *backward)
            }
            Command::ReadVersion { stream, version } => {
                match self.events_of(*stream).find(|(_, stored)| stored.version == *version) {
                    _ if *version < 1 => problem(400, "invalid_request", json!({})),
                    Some((position, _)) => (200, self.event(position)),
                    None if self.head(*stream) == 0 => problem(404, "stream_not_found", json!({})),
                    None => problem(404, "event_not_found", json!({})),
                }
            }
            Command::ReadEvent { event } => match self.position_of(*event) {
                Some(position) => (200, self.event(position)),
                None => problem(404, "event_not_found", json!({})),
            },
            Command::ReadLog { after, limit, aggregate_type, event_type } => {
                self.page(*after, *limit, *aggregate_type, *event_type)
            }
            Command::ListStreams { aggregate_type, after } => self.streams(TYPES[usize::from(*aggregate_type)], *after),
            Command::PutProjection { name, position, expected, reset } => {
                self.put_projection(*name, *position, *expected, *reset)
            }
            Command::ReadProjection { name } => match self.projections.get(name) {
                Some(position) => {
                    (200, json!({"last_processed_position": position, "lag": self.log.len() as i64 - position}))
                }
                None => problem(404, "projection_not_found", json!({})),
            },
            Command::DeleteProjection { name } => match self.projections.remove(name) {
                Some(_) => (204, Value::Null),
                None => problem(404, "projection_not_found", json!({})),
            },
            Command::PutSnapshot { stream, version, revision } => self.put_snapshot(*stream, *version, *revision),
            Command::ReadSnapshot { stream } => match self.snapshots.get(stream) {
                Some(snapshot) => (200, json!({"version": snapshot.version, "state": {"of": snapshot.version}})),
                None => problem(404, "snapshot_not_found", json!({})),
            },
            Command::DeleteSnapshot { stream } => match self.snapshots.remove(stream) {
                Some(_) => (204, Value::Null),
                None => problem(404, "snapshot_not_found", json!({})),
            },
            Command::Load { stream, ignore, revision } => self.load(*stream, *ignore, *revision),
        }
    }

    fn position_of(&self, event: u8) -> Option<i64> {
        self.log.iter().position(|stored| stored.event.0 == event).map(|index| index as i64 + 1)
    }

    /// Appends all events or none. Returns the response of `/appends`.
    fn append(&mut self, appends: &[Append]) -> Response {
        let mut ids: Vec<u8> =
            appends.iter().flat_map(|append| append.events.iter().map(|(event, _)| *event)).collect();
        let mut streams: Vec<u8> = appends.iter().map(|append| append.stream).collect();
        let known: Vec<u8> = ids.iter().copied().filter(|event| self.position_of(*event).is_some()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        streams.sort_unstable();
        streams.dedup();
        if ids.len() < all || streams.len() < appends.len() {
            return problem(400, "invalid_request", json!({}));
        }
        if !known.is_empty() {
            return self.replay(appends, &known, all);
        }
        let conflicts: Vec<_> = appends.iter().filter(|append| !self.is_as_expected(append)).collect();
        if !conflicts.is_empty() {
            let conflict = |append: &&Append| json!({"current_version": self.head(append.stream)});
            return problem(
                409,
                "version_conflict",
                json!({"conflicts": conflicts.iter().map(conflict).collect::<Vec<_>>()}),
            );
        }
        for append in appends {
            for event in &append.events {
                let version = self.head(append.stream) + 1;
                self.log.push(Stored { stream: append.stream, version, event: *event });
            }
        }
        (201, self.appended(appends))
    }

    fn is_as_expected(&self, append: &Append) -> bool {
        let head = self.head(append.stream);
        match append.expected {
            Expected::Any => true,
            Expected::None => head == 0,
            Expected::Exists => head > 0,
            Expected::Exactly(version) => head == version,
            Expected::Current => unreachable!("the current version is replaced by its number"),
        }
    }

    fn replay(&self, appends: &[Append], known: &[u8], all: usize) -> Response {
        let ids = json!({"known_event_ids": known.iter().map(|event| id(u32::from(*event))).collect::<Vec<_>>()});
        let mut in_order = known.len() == all;
        for append in appends {
            let mut next = None;
            for event in &append.events {
                let Some(position) = self.position_of(event.0) else { continue };
                let stored = &self.log[position as usize - 1];
                if stored.stream != append.stream || stored.event != *event {
                    return problem(409, "event_id_reused", ids);
                }
                in_order &= next.is_none_or(|next| next == stored.version);
                next = Some(stored.version + 1);
            }
        }
        if in_order { (200, self.appended(appends)) } else { problem(409, "event_partly_known", ids) }
    }

    fn appended(&self, appends: &[Append]) -> Value {
        let one = |append: &Append| {
            let events: Vec<_> = append
                .events
                .iter()
                .map(|(event, _)| {
                    let position = self.position_of(*event).expect("the event is stored");
                    let stored = &self.log[position as usize - 1];
                    json!({"event_id": id(u32::from(*event)), "version": stored.version, "global_position": position})
                })
                .collect();
            let (first, last) = (&events[0], &events[events.len() - 1]);
            json!({"first_version": first["version"], "version": last["version"],
                   "global_position": last["global_position"], "events": events})
        };
        json!({"appends": appends.iter().map(one).collect::<Vec<_>>()})
    }

    fn stream(&self, stream: u8, from: i64, to: Option<i64>, limit: usize, backward: bool) -> Response {
        if from < 1 || to.is_some_and(|to| to < from) {
            return problem(400, "invalid_request", json!({}));
        }
        let head = self.head(stream);
        if head == 0 {
            return problem(404, "stream_not_found", json!({}));
        }
        let inside = |stored: &&(i64, &Stored)| stored.1.version >= from && to.is_none_or(|to| stored.1.version <= to);
        let mut positions: Vec<_> =
            self.events_of(stream).collect::<Vec<_>>().iter().filter(inside).map(|(position, _)| *position).collect();
        if backward {
            positions.reverse();
        }
        let complete = positions.len() <= limit;
        positions.truncate(limit);
        let events: Vec<_> = positions.into_iter().map(|position| self.event(position)).collect();
        let mut body = json!({"version": head, "events": events});
        if complete {
            body["next"] = Value::Null;
        }
        (200, body)
    }

    fn page(&self, after: i64, limit: usize, aggregate_type: Option<u8>, event_type: Option<u8>) -> Response {
        let head = self.log.len() as i64;
        if after > head {
            return (422, json!({"code": "position_beyond_head", "head": head}));
        }
        let matches = |event: &Value| {
            aggregate_type.is_none_or(|wanted| event["aggregate_type"] == TYPES[usize::from(wanted)])
                && event_type.is_none_or(|wanted| event["event_type"] == EVENT_TYPES[usize::from(wanted)])
        };
        let mut events: Vec<_> = (after + 1..=head).map(|position| self.event(position)).filter(matches).collect();
        let complete = events.len() < limit;
        events.truncate(limit);
        let last = events.last().map(|event| event["global_position"].clone());
        let mut body = json!({"events": events, "head": head, "epoch": 1});
        if complete {
            body["at_head"] = json!(true);
            body["next_after"] = json!(head);
        } else if let Some(last) = last
            && aggregate_type.is_none()
            && event_type.is_none()
        {
            body["next_after"] = last;
        }
        (200, body)
    }

    fn streams(&self, aggregate_type: &str, after: Option<u8>) -> Response {
        let mut names: Vec<(&str, i64)> = (0..STREAMS)
            .filter(|number| self.head(*number) > 0)
            .map(|number| (stream(number).split_once('/').expect("type/id"), self.head(number)))
            .filter(|((of_type, _), _)| *of_type == aggregate_type)
            .map(|((_, aggregate_id), head)| (aggregate_id, head))
            .filter(|(aggregate_id, _)| {
                after.is_none_or(|after| *aggregate_id > stream(after).split_once('/').expect("type/id").1)
            })
            .collect();
        names.sort_unstable();
        let listed: Vec<_> = names
            .into_iter()
            .map(|(aggregate_id, head)| json!({"aggregate_id": aggregate_id, "version": head}))
            .collect();
        (200, json!({"aggregate_type": aggregate_type, "streams": listed, "next": null}))
    }

    fn put_projection(&mut self, name: u8, position: i64, expected: Option<i64>, reset: bool) -> Response {
        let current = self.projections.get(&name).copied();
        let head = self.log.len() as i64;
        if position > head {
            return problem(422, "position_beyond_head", json!({"head": head}));
        }
        if expected.is_some() && expected != current {
            return problem(412, "position_conflict", json!({"current_position": current}));
        }
        if !reset && current.is_some_and(|current| position < current) {
            return problem(409, "position_regressed", json!({"current_position": current}));
        }
        self.projections.insert(name, position);
        (if current.is_some() { 200 } else { 201 }, json!({"last_processed_position": position}))
    }

    fn put_snapshot(&mut self, stream: u8, version: i64, revision: Option<u8>) -> Response {
        let head = self.head(stream);
        if version < 1 {
            return problem(400, "invalid_request", json!({}));
        }
        if head == 0 {
            return problem(404, "stream_not_found", json!({}));
        }
        if version > head {
            return problem(422, "version_beyond_head", json!({"current_version": head}));
        }
        let stored = self.snapshots.get(&stream);
        if let Some(stored) = stored
            && stored.revision == revision
            && stored.version > version
        {
            return problem(409, "snapshot_stale", json!({"snapshot_version": stored.version}));
        }
        let status = if stored.is_some() { 200 } else { 201 };
        self.snapshots.insert(stream, Snapshot { version, revision });
        (status, json!({"version": version}))
    }

    fn load(&self, stream: u8, ignore: bool, revision: Option<u8>) -> Response {
        let head = self.head(stream);
        if head == 0 {
            return problem(404, "stream_not_found", json!({}));
        }
        let is_usable = |snapshot: &&Snapshot| !ignore && (revision.is_none() || snapshot.revision == revision);
        let snapshot = self.snapshots.get(&stream).filter(is_usable);
        let from = snapshot.map_or(0, |snapshot| snapshot.version);
        let after = self.events_of(stream).filter(|(_, stored)| stored.version > from);
        let events: Vec<_> = after.map(|(position, _)| self.event(position)).collect();
        let snapshot = snapshot.map(|snapshot| json!({"version": snapshot.version, "state": {"of": snapshot.version}}));
        (200, json!({"version": head, "snapshot": snapshot, "events": events, "next": null}))
    }
}
