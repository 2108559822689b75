//! The checker, which returns the places at which a history breaks a promise.
//!
//! It knows only the promises P1 to P10 (docs/explanation/reliability.md) and the invariants of groups and of erasures, and
//! no part of the implementation. It checks
//! the history at the end of a run, when every request has a response and every reader has caught up. An earlier check
//! could not distinguish a delayed event from a lost one.

use std::collections::{HashMap, HashSet};

use annals::domain::event::Position;
use annals::domain::version::Version;

use super::history::{Append, EventName, History, Logged, Micros, Outcome, Read, Reader, Request};

/// A broken promise, and its place in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

/// The maximum number of violations that are reported for one rule.
const REPORTED_MAX: usize = 20;

/// Returns the violations, up to a limit for each rule.
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker { history, at: HashMap::new(), violations: Vec::new() };
    checker.check_log();
    checker.check_responses();
    checker.check_acknowledged();
    checker.check_conflicts();
    checker.check_order();
    checker.check_reads();
    checker.check_processed();
    checker.check_erasures();
    for reader in &history.readers {
        checker.check_reader(reader);
    }
    for fault in &history.faults {
        if let Some(harm) = &fault.harm {
            checker.violated(
                "P10 the service continues and recovers",
                format!("round {}, {}: {harm}", fault.round, fault.what),
            );
        }
    }
    checker.violations
}

struct Checker<'h> {
    history: &'h History,
    /// The place of each event.
    at: HashMap<EventName, &'h Logged>,
    violations: Vec<Violation>,
}

impl<'h> Checker<'h> {
    fn violated(&mut self, rule: &'static str, what: String) {
        if self.violations.iter().filter(|violation| violation.rule == rule).count() < REPORTED_MAX {
            self.violations.push(Violation { rule, what });
        }
    }

    /// Checks that positions and versions have no gap, that times never go backwards, and that every event was sent.
    fn check_log(&mut self) {
        let history = self.history;
        let sent: HashMap<_, _> =
            history.requests.iter().map(|request| ((request.writer, request.number), request)).collect();
        let mut versions: HashMap<&str, Version> = HashMap::new();
        let mut last: Option<&Logged> = None;
        for event in &history.log {
            let place = format!("position {}, {} of {}", event.global_position, event.event_id, event.stream);
            let expected = last.map_or(0, |last| last.global_position) + 1;
            if event.global_position != expected {
                self.violated("P3 positions have no gap", format!("{place}, after {}", expected - 1));
            }
            if last.is_some_and(|last| event.occurred_at < last.occurred_at) {
                self.violated("P9 times never go backwards", format!("{place}: {}", event.occurred_at));
            }
            last = Some(event);
            let version = versions.entry(&event.stream).or_default();
            *version += 1;
            if event.version != *version {
                self.violated("P2 versions have no gap", format!("{place}: {} instead of {version}", event.version));
                *version = event.version;
            }
            if event.announcement.is_some() {
                continue;
            }
            let name = EventName::from_id(event.event_id);
            let by = name.and_then(|name| sent.get(&(name.writer, name.number)));
            let is_append_of_event = |(append, names): (&Append, Vec<EventName>)| {
                append.stream == event.stream && name.is_some_and(|name| names.contains(&name))
            };
            let is_sent = by.is_some_and(|request| request.names().any(is_append_of_event));
            if !is_sent {
                self.violated("P1 every stored event was sent", place.clone());
            }
            if let Some(data) = &event.altered_data {
                self.violated("P1 events are returned as they were sent", format!("{place}: {data}"));
            }
            if let Some(name) = name
                && let Some(first) = self.at.insert(name, event)
            {
                self.violated("P4 every event is stored once", format!("{place}, and at {}", first.global_position));
            }
        }
    }

    /// Checks that an acknowledged erasure has erased what it named, that nothing else is erased, and that each erased event
    /// is announced in its stream, once.
    fn check_erasures(&mut self) {
        let history = self.history;
        let mut announced: HashMap<(&str, Version), usize> = HashMap::new();
        let mut once = HashSet::new();
        for event in &history.log {
            let Some(announcement) = &event.announcement else { continue };
            if !once.insert((event.stream.as_str(), announcement.erasure)) {
                let what = format!("{}: erasure {}", event.stream, announcement.erasure);
                self.violated("E6 an erasure is announced once in a stream", what);
            }
            for version in announcement.versions.iter().flat_map(|&(first, last)| first..=last) {
                *announced.entry((event.stream.as_str(), version)).or_default() += 1;
            }
        }
        let named: HashSet<_> = history.erased.iter().flat_map(|erased| &erased.event_ids).collect();
        for event in history.log.iter().filter(|event| event.announcement.is_none()) {
            let place = || format!("position {}, {} of {}", event.global_position, event.event_id, event.stream);
            let times = announced.get(&(event.stream.as_str(), event.version)).copied().unwrap_or_default();
            if event.is_erased && !named.contains(&event.event_id) {
                self.violated("E8 nothing but an erasure changes an event", place());
            }
            if !event.is_erased && named.contains(&event.event_id) {
                self.violated("E1 acknowledged erasures are hidden", place());
            }
            if times != usize::from(event.is_erased) {
                self.violated("E6 each erased event is announced once", format!("{}: {times} times", place()));
            }
        }
    }

    /// Checks that the workers of the group have acknowledged every event once, and those of a stream in order. The numbers
    /// of the claims of a partition increase, so they have the order of the acknowledgements, whatever the order of the
    /// responses was.
    fn check_processed(&mut self) {
        let history = self.history;
        if history.processed.is_empty() {
            return;
        }
        let streams: HashMap<Position, &str> =
            history.log.iter().map(|event| (event.global_position, event.stream.as_str())).collect();
        let mut by_stream: HashMap<&str, Vec<(i64, Position)>> = HashMap::new();
        for processed in &history.processed {
            let number = processed.claim.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or_default();
            for position in &processed.positions {
                match streams.get(position) {
                    Some(stream) => by_stream.entry(stream).or_default().push((number, *position)),
                    None => self.violated("G14 only events of the log are processed", format!("{position}")),
                }
            }
        }
        let mut expected: HashMap<&str, Vec<Position>> = HashMap::new();
        for event in &history.log {
            expected.entry(&event.stream).or_default().push(event.global_position);
        }
        for (stream, expected) in expected {
            let mut processed = by_stream.remove(stream).unwrap_or_default();
            processed.sort_by_key(|(number, _)| *number);
            let processed: Vec<Position> = processed.into_iter().map(|(_, position)| position).collect();
            if processed == expected {
                continue;
            }
            let times = |position: &Position| processed.iter().filter(|other| *other == position).count();
            match expected.iter().find(|position| times(position) != 1) {
                Some(position) if times(position) == 0 => {
                    self.violated("G1 every event is processed", format!("{stream}: {position}"));
                }
                Some(position) => {
                    let what = format!("{stream}: {position}, {} times", times(position));
                    self.violated("G3 an event is acknowledged once", what);
                }
                None => self.violated("G2 the events of a stream are acknowledged in order", stream.to_owned()),
            }
        }
    }

    /// Checks that every request has an allowed response within the time limit.
    fn check_responses(&mut self) {
        for request in &self.history.requests {
            let place = place(request);
            let mut written = 0;
            for attempt in &request.attempts {
                match &attempt.outcome {
                    Outcome::Written(_) => written += 1,
                    Outcome::Replayed(_) | Outcome::Conflict(_) | Outcome::Refused(_) | Outcome::Unknown(_) => {}
                    Outcome::Hung => {
                        let what = format!("{place}, sent at {}", attempt.sent);
                        self.violated("P10 every request gets a response in time", what);
                    }
                    Outcome::Unexpected(response) => {
                        self.violated("P10 errors are clear", format!("{place}: {response}"));
                    }
                }
            }
            if written > 1 {
                self.violated("P4 a retry writes nothing", format!("{place} was written {written} times"));
            }
            if !matches!(
                request.attempts.last().map(|attempt| &attempt.outcome),
                Some(Outcome::Written(_) | Outcome::Replayed(_) | Outcome::Conflict(_))
            ) {
                self.violated(
                    "P10 every request gets a response in time",
                    format!("{place} has no response at the end"),
                );
            }
        }
    }

    /// Checks that an acknowledged request is in the log at the place of its response, and that a request that ended
    /// with a conflict is not in the log.
    fn check_acknowledged(&mut self) {
        for request in &self.history.requests {
            let place = place(request);
            let Some(places) = request.acknowledged() else {
                for name in request.names().flat_map(|(_, names)| names) {
                    if let Some(event) = self.at.get(&name) {
                        let what = format!(
                            "{place} ended with a conflict, and the log has its event at {}",
                            event.global_position
                        );
                        self.violated("P4 a retry returns what the first attempt would have returned", what);
                    }
                }
                continue;
            };
            for attempt in &request.attempts {
                let agrees = match &attempt.outcome {
                    Outcome::Written(other) | Outcome::Replayed(other) => other.as_slice() == places,
                    Outcome::Conflict(_) => false,
                    _ => true,
                };
                if !agrees {
                    let what = format!(
                        "{place}: the first acknowledgement is {places:?}, and another attempt has {:?}",
                        attempt.outcome
                    );
                    self.violated("P4 a retry returns what the first attempt would have returned", what);
                }
            }
            for ((append, names), &(version, position)) in request.names().zip(places) {
                if append.expected.is_some_and(|expected| expected + 1 != version) {
                    let what = format!(
                        "{place} expects version {:?}, and its first event has version {version}",
                        append.expected
                    );
                    self.violated("P2 an expected version is met", what);
                }
                for (offset, name) in names.into_iter().enumerate() {
                    let acknowledged = (version + offset as Version, position + offset as Position);
                    match self.at.get(&name) {
                        None => self.violated(
                            "P1 no acknowledged event is lost",
                            format!("{place}, acknowledged at {acknowledged:?}"),
                        ),
                        Some(event) if (event.version, event.global_position) != acknowledged => {
                            let found = (event.version, event.global_position);
                            let what = format!("{place}, acknowledged at {acknowledged:?}, found at {found:?}");
                            self.violated("P1 an event is at its acknowledged place", what);
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }

    /// Checks that a conflict names a version that the stream had during the request, and not the expected version.
    fn check_conflicts(&mut self) {
        // The earliest time at which each version may exist, and the time at which it certainly exists.
        let mut versions: HashMap<(&str, Version), (Micros, Micros)> = HashMap::new();
        for request in &self.history.requests {
            if let Some(places) = request.acknowledged() {
                for (append, &(version, _)) in request.appends.iter().zip(places) {
                    let last = version + Version::from(append.events) - 1;
                    for version in version..=last {
                        versions.insert((&append.stream, version), span(request));
                    }
                }
            }
        }
        for request in &self.history.requests {
            for attempt in &request.attempts {
                let Outcome::Conflict(current) = &attempt.outcome else { continue };
                for (stream, current) in current {
                    let is_of_stream = |append: &&Append| &append.stream == stream;
                    let expected = request.appends.iter().find(is_of_stream).and_then(|append| append.expected);
                    let earliest = versions.get(&(stream.as_str(), *current)).map_or(0, |&(earliest, _)| earliest);
                    let next = versions.get(&(stream.as_str(), current + 1));
                    let was_passed = next.is_some_and(|&(_, certain)| certain < attempt.sent);
                    if expected == Some(*current) || earliest > attempt.ended || was_passed {
                        let what = format!("{}: {stream} was reported at version {current}", place(request));
                        self.violated("P2 a conflict names the version of that time", what);
                    }
                }
            }
        }
    }

    /// Checks that a request that was acknowledged before another one was sent precedes it in the log.
    fn check_order(&mut self) {
        let mut placed: Vec<(Position, Micros, Micros, &Request)> = Vec::new();
        for request in &self.history.requests {
            if let Some(&(_, position)) = request.acknowledged().and_then(<[_]>::first) {
                let (sent, ended) = span(request);
                placed.push((position, sent, ended, request));
            }
        }
        placed.sort_unstable_by_key(|&(position, ..)| std::cmp::Reverse(position));
        let mut first_end = Micros::MAX;
        for (position, sent, ended, request) in placed {
            if sent > first_end {
                let what = format!(
                    "{} at {position} was sent after an event at a higher position was acknowledged",
                    place(request)
                );
                self.violated("P3 the order of the log agrees with time", what);
            }
            first_end = first_end.min(ended);
        }
    }

    /// Checks that the head of the log in a response is not below a position of an earlier response, and that the
    /// stream and the version of a state are those of its last event.
    fn check_reads(&mut self) {
        let mut known: Vec<(Micros, Position)> = Vec::new();
        for request in &self.history.requests {
            if let Some(places) = request.acknowledged() {
                let last = |(append, &(_, position)): (&Append, &(Version, Position))| {
                    position + Position::from(append.events) - 1
                };
                known.push((span(request).1, request.appends.iter().zip(places).map(last).max().unwrap_or(0)));
            }
        }
        let is_skipped = |event: &&Logged| event.is_erased || event.announcement.is_some();
        let skipped: HashSet<(&str, Version)> =
            self.history.log.iter().filter(is_skipped).map(|event| (event.stream.as_str(), event.version)).collect();
        let mut heads = Vec::new();
        for read in &self.history.reads {
            match read {
                &Read::Head { asked, ended, head } => {
                    known.push((ended, head));
                    heads.push((asked, head));
                }
                Read::State { stream, version, last, .. } => {
                    let event = EventName::from_id(*last).and_then(|name| self.at.get(&name).copied());
                    // A reducer is not called for erased events and announcements.
                    let is_last = |event: &Logged| {
                        (event.version + 1..=*version).all(|version| skipped.contains(&(stream.as_str(), version)))
                    };
                    if event.is_none_or(|event| event.stream != *stream || event.version > *version || !is_last(event))
                    {
                        let what = format!("the state of {stream} at version {version} has the last event {last}");
                        self.violated("P7 a state matches its events", what);
                    }
                }
            }
        }
        known.sort_unstable();
        heads.sort_unstable();
        let mut known = known.into_iter().peekable();
        let mut highest = 0;
        for (asked, head) in heads {
            while let Some((_, position)) = known.next_if(|&(ended, _)| ended < asked) {
                highest = highest.max(position);
            }
            if head < highest {
                let what = format!("a read at {asked} returned the head {head} after position {highest} was known");
                self.violated("P3 a read shows what was acknowledged", what);
            }
        }
    }

    /// Checks that a reader has received every event that it requested, once and in order.
    fn check_reader(&mut self, reader: &Reader) {
        let is_requested = |event: &&Logged| {
            let aggregate_type = event.stream.split('/').next();
            reader.aggregate_type.is_none() || reader.aggregate_type.as_deref() == aggregate_type
        };
        let mut log = self.history.log.iter().filter(is_requested).peekable();
        let mut last = 0;
        for &(position, event_id) in &reader.events {
            let place = format!("{}: position {position}, {event_id}", reader.name);
            if position <= last {
                self.violated("P6 subscribers get every event once, in order", format!("{place}, after {last}"));
                continue;
            }
            last = position;
            while let Some(missed) = log.next_if(|event| event.global_position < position) {
                let what = format!("{}: missed position {}, received {position}", reader.name, missed.global_position);
                self.violated("P6 subscribers miss nothing", what);
            }
            match log.next_if(|event| event.global_position == position) {
                Some(event) if event.event_id == event_id => {}
                Some(event) => {
                    self.violated(
                        "P3 the event at a position never changes",
                        format!("{place}, and the log has {}", event.event_id),
                    );
                }
                None => self.violated("P3 an event that was read is not lost", place),
            }
        }
        if let Some(missed) = log.next() {
            let what = format!("{}: missed position {} and all later ones", reader.name, missed.global_position);
            self.violated("P6 subscribers miss nothing", what);
        }
    }
}

/// Returns the time during which a request was written. It begins with the first attempt that may have written, and
/// ends with the first acknowledgement. A refused attempt has written nothing.
fn span(request: &Request) -> (Micros, Micros) {
    let is_acknowledged = |outcome: &Outcome| matches!(outcome, Outcome::Written(_) | Outcome::Replayed(_));
    let may_have_written = |outcome: &Outcome| !matches!(outcome, Outcome::Refused(_));
    let attempts =
        |matches: fn(&Outcome) -> bool| request.attempts.iter().filter(move |attempt| matches(&attempt.outcome));
    let sent = attempts(may_have_written).map(|attempt| attempt.sent).min().unwrap_or(0);
    let ended = attempts(is_acknowledged).map(|attempt| attempt.ended).min().unwrap_or(Micros::MAX);
    (sent, ended)
}

fn place(request: &Request) -> String {
    let streams: Vec<_> = request.appends.iter().map(|append| append.stream.as_str()).collect();
    format!("request {} of writer {} to {}", request.number, request.writer, streams.join(" and "))
}
