//! No promise: the checker of `annals-torture`. It accepts an intact history, and finds every kind of damage in a
//! damaged one.

#[path = "../torture/check.rs"]
mod check;
#[path = "../torture/history.rs"]
mod history;

use check::check;
use history::{
    Announcement, Append, Attempt, Erased, EventName, Fault, History, Logged, Outcome, Processed, Read, Reader, Request,
};
use serde_json::json;

fn request(number: u32, stream: &str, expected: Option<i32>, events: u16, outcomes: Vec<Outcome>) -> Request {
    // Each request is sent after the response of the previous one. Each attempt takes 10 microseconds.
    let attempt = |(n, outcome): (u64, Outcome)| {
        let sent = u64::from(number) * 100 + n * 20;
        Attempt { sent, ended: sent + 10, replica: 0, outcome }
    };
    Request {
        writer: 1,
        number,
        appends: vec![Append { stream: stream.to_owned(), expected, events }],
        attempts: (0..).zip(outcomes).map(attempt).collect(),
    }
}

fn processed(claim: &str, positions: &[i64]) -> Processed {
    Processed { claim: claim.to_owned(), positions: positions.to_vec() }
}

fn logged(number: u32, index: u16, stream: &str, version: i32, global_position: i64) -> Logged {
    Logged {
        global_position,
        stream: stream.to_owned(),
        version,
        event_id: EventName { writer: 1, number, index }.id(),
        occurred_at: format!("2026-01-01T00:00:0{global_position}.000000Z"),
        altered_data: None,
        is_erased: false,
        announcement: None,
    }
}

/// Returns a history that breaks no promise. It has five requests, five events, an erasure and two readers.
fn intact() -> History {
    let written = |version, position| Outcome::Written(vec![(version, position)]);
    let unknown = || Outcome::Unknown("no response".to_owned());
    let mut log = vec![
        logged(1, 0, "Order/1", 1, 1),
        logged(2, 0, "Order/1", 2, 2),
        logged(2, 1, "Order/1", 3, 3),
        logged(3, 0, "Invoice/1", 1, 4),
        logged(5, 0, "Order/1", 4, 5),
        logged(0, 0, "Invoice/1", 2, 6),
    ];
    log[3].is_erased = true;
    log[5].announcement = Some(Announcement { erasure: 1, versions: vec![(1, 1)] });
    let erased = vec![Erased { erasure: 1, event_ids: vec![log[3].event_id] }];
    let reader = |name: &str, aggregate_type: Option<&str>| Reader {
        name: name.to_owned(),
        aggregate_type: aggregate_type.map(str::to_owned),
        events: log
            .iter()
            .filter(|event| aggregate_type.is_none_or(|wanted| event.stream.starts_with(wanted)))
            .map(|event| (event.global_position, event.event_id))
            .collect(),
        connections: 1,
    };
    let state = Read::State { asked: 600, ended: 610, stream: "Order/1".to_owned(), version: 3, last: log[2].event_id };
    History {
        requests: vec![
            request(1, "Order/1", Some(0), 1, vec![written(1, 1)]),
            request(2, "Order/1", None, 2, vec![unknown(), Outcome::Replayed(vec![(2, 2)])]),
            request(3, "Invoice/1", None, 1, vec![Outcome::Refused("overloaded".to_owned()), written(1, 4)]),
            request(4, "Order/1", Some(2), 1, vec![Outcome::Conflict(vec![("Order/1".to_owned(), 3)])]),
            request(5, "Order/1", Some(3), 1, vec![written(4, 5)]),
        ],
        readers: vec![reader("all", None), reader("orders", Some("Order"))],
        reads: vec![
            Read::Head { asked: 0, ended: 10, head: 0 },
            Read::Head { asked: 300, ended: 340, head: 3 },
            Read::Head { asked: 600, ended: 610, head: 5 },
            state,
        ],
        processed: vec![
            processed("1.0.3", &[1, 2]),
            processed("1.1.4", &[4]),
            processed("1.0.5", &[3, 5]),
            processed("1.1.6", &[6]),
        ],
        erased,
        log,
        faults: vec![Fault { round: 1, at: 5, what: "KillPostgres".to_owned(), harm: None }],
    }
}

#[test]
fn an_intact_history_is_accepted_and_unchanged_after_it_was_written_and_read() {
    assert_eq!(check(&intact()), []);
    let file = tempfile::NamedTempFile::new().expect("a file");
    intact().write(file.path()).expect("the history is written");
    let again = History::read(file.path()).expect("the history is read");
    assert_eq!(format!("{again:?}"), format!("{:?}", intact()));
}

#[test]
fn the_id_of_an_event_encodes_its_name() {
    let name = EventName { writer: 513, number: 70_000, index: 4 };
    assert_eq!(EventName::from_id(name.id()), Some(name));
    assert_eq!(EventName::from_id(uuid::Uuid::nil()), None);
    assert_eq!(name.data()["last"], json!(name.id()));
}

type Damage = fn(&mut History);

#[test]
fn every_kind_of_damage_is_found() {
    let cases: &[(&str, Damage)] = &[
        ("P1 no acknowledged event is lost", |history| {
            history.log.remove(4);
        }),
        ("P1 no acknowledged event is lost", |history| history.log.truncate(2)),
        ("P1 every stored event was sent", |history| {
            history.requests.pop();
        }),
        ("P1 every stored event was sent", |history| history.log[3].event_id = uuid::Uuid::from_u128(7)),
        ("P1 every stored event was sent", |history| history.log[3].stream = "Invoice/2".to_owned()),
        ("P1 events are returned as they were sent", |history| history.log[0].altered_data = Some(json!({"last": 1}))),
        ("P1 an event is at its acknowledged place", |history| {
            history.requests[4].attempts[0].outcome = Outcome::Written(vec![(4, 6)]);
        }),
        ("P2 versions have no gap", |history| history.log[4].version = 5),
        ("P2 an expected version is met", |history| history.requests[4].appends[0].expected = Some(2)),
        ("P2 a conflict names the version of that time", |history| {
            // Version 4 was written after the conflict.
            history.requests[3].attempts[0].outcome = Outcome::Conflict(vec![("Order/1".to_owned(), 4)]);
        }),
        ("P2 a conflict names the version of that time", |history| {
            // The stream had passed version 1 before the request.
            history.requests[3].attempts[0].outcome = Outcome::Conflict(vec![("Order/1".to_owned(), 1)]);
        }),
        ("P2 a conflict names the version of that time", |history| {
            // The conflict reports the expected version.
            history.requests[3].appends[0].expected = Some(3);
        }),
        ("P3 positions have no gap", |history| history.log[4].global_position = 6),
        ("P3 the order of the log agrees with time", |history| {
            // The last request got its response before the first one was sent.
            history.requests[4].attempts[0] = Attempt { sent: 1, ended: 2, ..history.requests[4].attempts[0].clone() };
        }),
        ("P3 the order of the log agrees with time", |history| {
            // The second attempt is sent after a later event was acknowledged, so the refused attempt has written.
            history.requests[2].attempts[1] =
                Attempt { sent: 700, ended: 710, ..history.requests[2].attempts[1].clone() };
        }),
        ("P3 a read shows what was acknowledged", |history| {
            history.reads[2] = Read::Head { asked: 600, ended: 610, head: 4 };
        }),
        ("P3 a read shows what was acknowledged", |history| {
            history.reads[0] = Read::Head { asked: 200, ended: 210, head: 3 };
            history.reads[1] = Read::Head { asked: 215, ended: 230, head: 2 };
        }),
        ("P3 the event at a position never changes", |history| {
            history.readers[0].events[1].1 = history.log[2].event_id;
        }),
        ("P3 an event that was read is not lost", |history| {
            history.readers[0].events.push((7, uuid::Uuid::from_u128(7)));
        }),
        ("P4 every event is stored once", |history| history.log.push(logged(1, 0, "Order/1", 5, 7))),
        ("P4 a retry writes nothing", |history| {
            history.requests[1].attempts[0].outcome = Outcome::Written(vec![(2, 2)]);
            history.requests[1].attempts[1].outcome = Outcome::Written(vec![(2, 2)]);
        }),
        ("P4 a retry returns what the first attempt would have returned", |history| {
            history.requests[1].attempts[0].outcome = Outcome::Written(vec![(4, 9)]);
        }),
        ("P4 a retry returns what the first attempt would have returned", |history| {
            // The second attempt got a conflict, although the first one was written.
            history.requests[1].attempts[1].outcome = Outcome::Conflict(vec![("Order/1".to_owned(), 3)]);
        }),
        ("P6 subscribers miss nothing", |history| {
            history.readers[0].events.remove(1);
        }),
        ("P6 subscribers miss nothing", |history| {
            history.readers[1].events.pop();
        }),
        ("P6 subscribers get every event once, in order", |history| history.readers[0].events.swap(1, 2)),
        ("P6 subscribers get every event once, in order", |history| {
            let again = history.readers[0].events[2];
            history.readers[0].events.insert(3, again);
        }),
        ("P7 a state matches its events", |history| {
            let last = history.log[3].event_id;
            history.reads[3] = Read::State { asked: 600, ended: 610, stream: "Order/1".to_owned(), version: 3, last };
        }),
        ("P7 a state matches its events", |history| {
            let last = history.log[2].event_id;
            history.reads[3] = Read::State { asked: 600, ended: 610, stream: "Order/1".to_owned(), version: 4, last };
        }),
        ("P9 times never go backwards", |history| history.log[4].occurred_at = history.log[0].occurred_at.clone()),
        ("E1 acknowledged erasures are hidden", |history| history.log[3].is_erased = false),
        ("E6 an erasure is announced once in a stream", |history| {
            let again = history.log[5].clone();
            history.log.push(Logged { version: 3, global_position: 7, ..again });
        }),
        ("E6 each erased event is announced once", |history| {
            history.log[5].announcement = Some(Announcement { erasure: 1, versions: Vec::new() });
        }),
        ("E6 each erased event is announced once", |history| {
            history.log[5].announcement = Some(Announcement { erasure: 1, versions: vec![(1, 1), (1, 1)] });
        }),
        ("E8 nothing but an erasure changes an event", |history| history.erased.clear()),
        ("G1 every event is processed", |history| {
            history.processed[1].positions.clear();
        }),
        ("G2 the events of a stream are acknowledged in order", |history| history.processed[0].positions.swap(0, 1)),
        ("G3 an event is acknowledged once", |history| history.processed[2].positions.insert(0, 2)),
        ("G14 only events of the log are processed", |history| history.processed[1].positions.push(9)),
        ("P10 every request gets a response in time", |history| {
            history.requests[0].attempts[0].outcome = Outcome::Hung;
        }),
        ("P10 every request gets a response in time", |history| {
            history.requests[3].attempts[0].outcome = Outcome::Unknown("no response".to_owned());
        }),
        ("P10 errors are clear", |history| {
            history.requests[3].attempts[0].outcome = Outcome::Unexpected("500".to_owned());
        }),
        ("P10 the service continues and recovers", |history| {
            history.faults[0].harm = Some("it did not recover".to_owned());
        }),
    ];
    for (n, (rule, damage)) in cases.iter().enumerate() {
        let mut history = intact();
        damage(&mut history);
        let found = check(&history);
        assert!(found.iter().any(|violation| violation.rule == *rule), "case {n}, {rule}: {found:?}");
    }
    // Every rule of the checker has a case.
    let rules = include_str!("../torture/check.rs")
        .split('"')
        .filter(|text| text.starts_with(['P', 'E']) && text.contains(' '));
    for rule in rules {
        assert!(cases.iter().any(|(found_by, _)| *found_by == rule), "no damage for the rule {rule}");
    }
}
