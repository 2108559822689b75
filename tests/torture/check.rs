//! The checker: a history keeps every promise, or these are the places where it does not.
//!
//! It knows nothing of the service but its promises (P1 to P10 of docs/RELIABILITY.md), and looks at the end of a run, when
//! every request is answered and every reader has caught up: during one, an event that is only late looks lost.

use std::collections::HashMap;

use annals::domain::event::Position;
use annals::domain::version::Version;

use super::history::{Append, EventName, History, Logged, Look, Micros, Outcome, Reader, Request};

/// A promise that was not kept, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
}

/// Of one rule that is broken everywhere, so many are told.
const TOLD_MAX: usize = 20;

/// All violations, most of them once.
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker { history, at: HashMap::new(), violations: Vec::new() };
    checker.the_log_is_whole();
    checker.requests_are_answered();
    checker.acknowledged_is_in_the_log();
    checker.conflicts_were_true();
    checker.order_agrees_with_time();
    checker.looks_were_true();
    for reader in &history.readers {
        checker.reader_saw_the_log(reader);
    }
    for fault in &history.faults {
        if let Some(harm) = &fault.harm {
            checker.violated(
                "P10 the rest goes on, and comes back",
                format!("round {}, {}: {harm}", fault.round, fault.what),
            );
        }
    }
    checker.violations
}

struct Checker<'h> {
    history: &'h History,
    /// Where each event stands.
    at: HashMap<EventName, &'h Logged>,
    violations: Vec<Violation>,
}

impl<'h> Checker<'h> {
    fn violated(&mut self, rule: &'static str, what: String) {
        if self.violations.iter().filter(|violation| violation.rule == rule).count() < TOLD_MAX {
            self.violations.push(Violation { rule, what });
        }
    }

    /// Positions and versions without a hole, times that never go backwards, and nothing that nobody sent.
    fn the_log_is_whole(&mut self) {
        let history = self.history;
        let sent: HashMap<_, _> =
            history.requests.iter().map(|request| ((request.writer, request.number), request)).collect();
        let mut versions: HashMap<&str, Version> = HashMap::new();
        let mut last: Option<&Logged> = None;
        for event in &history.log {
            let place = format!("position {}, {} of {}", event.global_position, event.event_id, event.stream);
            let expected = last.map_or(0, |last| last.global_position) + 1;
            if event.global_position != expected {
                self.violated("P3 positions have no hole", format!("{place}, after {}", expected - 1));
            }
            if last.is_some_and(|last| event.occurred_at < last.occurred_at) {
                self.violated("P9 times never go backwards", format!("{place}: {}", event.occurred_at));
            }
            last = Some(event);
            let version = versions.entry(&event.stream).or_default();
            *version += 1;
            if event.version != *version {
                self.violated("P2 versions have no hole", format!("{place}: {} instead of {version}", event.version));
                *version = event.version;
            }
            let name = EventName::of(event.event_id);
            let by = name.and_then(|name| sent.get(&(name.writer, name.number)));
            let to_there = |(append, names): (&Append, Vec<EventName>)| {
                append.stream == event.stream && name.is_some_and(|name| names.contains(&name))
            };
            let is_sent = by.is_some_and(|request| request.names().any(to_there));
            if !is_sent {
                self.violated("P1 nothing is there that nobody sent", place.clone());
            }
            if let Some(data) = &event.altered_data {
                self.violated("P1 events come back as they were sent", format!("{place}: {data}"));
            }
            if let Some(name) = name
                && let Some(first) = self.at.insert(name, event)
            {
                self.violated("P4 every event is there once", format!("{place}, and at {}", first.global_position));
            }
        }
    }

    /// Every request came to an end that it may come to, in time.
    fn requests_are_answered(&mut self) {
        for request in &self.history.requests {
            let place = place(request);
            let mut written = 0;
            for attempt in &request.attempts {
                match &attempt.outcome {
                    Outcome::Written(_) => written += 1,
                    Outcome::Replayed(_) | Outcome::Conflict(_) | Outcome::Refused(_) | Outcome::Unknown(_) => {}
                    Outcome::Hung => {
                        let what = format!("{place}, sent at {}", attempt.sent);
                        self.violated("P10 every request is answered in time", what);
                    }
                    Outcome::Unexpected(answer) => {
                        self.violated("P10 errors are clear", format!("{place}: {answer}"));
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
                self.violated("P10 every request is answered in time", format!("{place} has no answer in the end"));
            }
        }
    }

    /// An acknowledged request is in the log where the answer said; one that ended with a conflict is not there at all.
    fn acknowledged_is_in_the_log(&mut self) {
        for request in &self.history.requests {
            let place = place(request);
            let Some(stands) = request.acknowledged() else {
                for name in request.names().flat_map(|(_, names)| names) {
                    if let Some(event) = self.at.get(&name) {
                        let what = format!("{place} ended with a conflict and is at {}", event.global_position);
                        self.violated("P4 a retry answers what the first one would have", what);
                    }
                }
                continue;
            };
            for attempt in &request.attempts {
                let agrees = match &attempt.outcome {
                    Outcome::Written(other) | Outcome::Replayed(other) => other.as_slice() == stands,
                    Outcome::Conflict(_) => false,
                    _ => true,
                };
                if !agrees {
                    let what = format!("{place}: {stands:?}, and {:?}", attempt.outcome);
                    self.violated("P4 a retry answers what the first one would have", what);
                }
            }
            for ((append, names), &(version, position)) in request.names().zip(stands) {
                if append.expected.is_some_and(|expected| expected + 1 != version) {
                    let what = format!("{place} expects {:?} and is version {version}", append.expected);
                    self.violated("P2 an expected version is kept", what);
                }
                for (offset, name) in names.into_iter().enumerate() {
                    let told = (version + offset as Version, position + offset as Position);
                    match self.at.get(&name) {
                        None => self.violated("P1 no acknowledged event is lost", format!("{place}, told {told:?}")),
                        Some(event) if (event.version, event.global_position) != told => {
                            let found = (event.version, event.global_position);
                            let what = format!("{place}, told {told:?}, found {found:?}");
                            self.violated("P1 an event is where it was acknowledged", what);
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }

    /// A conflict names a version that the stream had while the request was under way, and not the expected one.
    fn conflicts_were_true(&mut self) {
        // When each version may have come first, and when it was certainly there.
        let mut versions: HashMap<(&str, Version), (Micros, Micros)> = HashMap::new();
        for request in &self.history.requests {
            if let Some(stands) = request.acknowledged() {
                for (append, &(version, _)) in request.appends.iter().zip(stands) {
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
                    let of = |append: &&Append| &append.stream == stream;
                    let expected = request.appends.iter().find(of).and_then(|append| append.expected);
                    let came = versions.get(&(stream.as_str(), *current)).map_or(0, |&(from, _)| from);
                    let passed =
                        versions.get(&(stream.as_str(), current + 1)).is_some_and(|&(_, there)| there < attempt.sent);
                    if expected == Some(*current) || came > attempt.ended || passed {
                        let what = format!("{}: {stream} was said to be at version {current}", place(request));
                        self.violated("P2 a conflict tells the version of that time", what);
                    }
                }
            }
        }
    }

    /// What was acknowledged before another request was sent stands before it in the log.
    fn order_agrees_with_time(&mut self) {
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
                let what =
                    format!("{} at {position} was sent after something behind it was acknowledged", place(request));
                self.violated("P3 the order of the log agrees with time", what);
            }
            first_end = first_end.min(ended);
        }
    }

    /// The end of the log that somebody read was not behind what was acknowledged, nor behind what was read before;
    /// a state is the one of the event that it ends with.
    fn looks_were_true(&mut self) {
        let mut known: Vec<(Micros, Position)> = Vec::new();
        for request in &self.history.requests {
            if let Some(stands) = request.acknowledged() {
                let last = |(append, &(_, position)): (&Append, &(Version, Position))| {
                    position + Position::from(append.events) - 1
                };
                known.push((span(request).1, request.appends.iter().zip(stands).map(last).max().unwrap_or(0)));
            }
        }
        let mut heads = Vec::new();
        for look in &self.history.looks {
            match look {
                &Look::Head { asked, ended, head } => {
                    known.push((ended, head));
                    heads.push((asked, head));
                }
                Look::State { stream, version, last, .. } => {
                    let event = EventName::of(*last).and_then(|name| self.at.get(&name).copied());
                    if event.is_none_or(|event| event.stream != *stream || event.version != *version) {
                        let what = format!("{stream} at version {version} ends with {last}");
                        self.violated("P7 a state is the one of its events", what);
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
                let what = format!("asked at {asked}: the log ends at {head}, and {highest} was known");
                self.violated("P3 who reads sees what was acknowledged", what);
            }
        }
    }

    /// A reader was handed out every event that it asked for, in order, once.
    fn reader_saw_the_log(&mut self, reader: &Reader) {
        let wanted = |event: &&Logged| {
            let aggregate_type = event.stream.split('/').next();
            reader.aggregate_type.is_none() || reader.aggregate_type.as_deref() == aggregate_type
        };
        let mut log = self.history.log.iter().filter(wanted).peekable();
        let mut last = 0;
        for &(position, event_id) in &reader.events {
            let place = format!("{}: position {position}, {event_id}", reader.name);
            if position <= last {
                self.violated("P6 subscribers get everything once, in order", format!("{place}, after {last}"));
                continue;
            }
            last = position;
            while let Some(missed) = log.next_if(|event| event.global_position < position) {
                let what = format!("{}: missed {}, got {position}", reader.name, missed.global_position);
                self.violated("P6 subscribers miss nothing", what);
            }
            match log.next_if(|event| event.global_position == position) {
                Some(event) if event.event_id == event_id => {}
                Some(event) => {
                    self.violated("P3 a position stays the event that it is", format!("{place}, is {}", event.event_id))
                }
                None => self.violated("P3 what was read stays", place),
            }
        }
        if let Some(missed) = log.next() {
            let what = format!("{}: missed {} and all after it", reader.name, missed.global_position);
            self.violated("P6 subscribers miss nothing", what);
        }
    }
}

/// From the first sending that may have written to the answer that told: in between it was written. Who was told that
/// nothing was written finds nothing written before the next try.
fn span(request: &Request) -> (Micros, Micros) {
    let told = |outcome: &Outcome| matches!(outcome, Outcome::Written(_) | Outcome::Replayed(_));
    let may_have_written = |outcome: &Outcome| !matches!(outcome, Outcome::Refused(_));
    let attempts = |of: fn(&Outcome) -> bool| request.attempts.iter().filter(move |attempt| of(&attempt.outcome));
    let sent = attempts(may_have_written).map(|attempt| attempt.sent).min().unwrap_or(0);
    let ended = attempts(told).map(|attempt| attempt.ended).min().unwrap_or(Micros::MAX);
    (sent, ended)
}

fn place(request: &Request) -> String {
    let streams: Vec<_> = request.appends.iter().map(|append| append.stream.as_str()).collect();
    format!("request {} of writer {} to {}", request.number, request.writer, streams.join(" and "))
}
