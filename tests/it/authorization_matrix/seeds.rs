//! No promise: the events, snapshots, reducers and projections that exist before the first case. Everything of a type
//! has the type's mark, which no request contains outside of the data that it stores. So a response with the mark shows
//! stored data of the type.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::{TestApp, id, pause_between_polls, within_a_minute};

/// The types that have events. Names of one are prefixes of others, or differ in case only.
pub const TYPES: [&str; 7] = ["A", "AB", "B", "A-B", "日本語", "a:b", "a"];
/// Types without seeds. Only cases of the matrix write to them.
pub const EMPTY_TYPES: [&str; 2] = ["AX", "Q"];
/// The types that have a reducer.
pub const REDUCED_TYPES: [&str; 2] = ["AB", "B"];

/// The stream of each type that requests read. No case changes it.
pub const KNOWN: &str = "a-known";
/// The stream of each type whose snapshot the cases write and delete.
pub const SCRATCH: &str = "a-scratch";
/// The stream of each type whose events the cases erase.
pub const ERASABLE: &str = "b-erasable";
/// A stream that no type has.
pub const ABSENT: &str = "a-absent";
/// A type of events that every seeded type has.
pub const EVENT_TYPE: &str = "Seeded";
/// The correlation of all seeded events.
pub const CORRELATION: &str = "a-correlation";

pub fn all_types() -> impl Iterator<Item = &'static str> {
    TYPES.into_iter().chain(EMPTY_TYPES)
}

fn number(aggregate_type: &str) -> usize {
    all_types().position(|known| known == aggregate_type).expect("a type of the matrix")
}

pub fn mark(aggregate_type: &str) -> String {
    format!("mark-{}-of-a-type", number(aggregate_type))
}

/// Returns the id of an event of a type.
pub fn event_id(aggregate_type: &str) -> String {
    id(u32::try_from(number(aggregate_type)).expect("a small number") + 1)
}

/// Percent-encodes a name, for a path or a query.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// Stores the seeds. `authorization` has a key for everything.
pub async fn store(app: &TestApp, authorization: &str) {
    let create = async |method: &str, path: String, body: Value| {
        let call = app.call(method, &path).json(&body).header("authorization", authorization);
        call.header("x-correlation-id", CORRELATION).send().await.expect_status(201);
    };
    for aggregate_type in TYPES {
        let (path, mark) = (segment(aggregate_type), mark(aggregate_type));
        let note = json!({"note": mark});
        let event = |event_type: &str| json!({"event_type": event_type, "event_data": note, "metadata": note});
        let mut first = event(&format!("Happened-{mark}"));
        first["event_id"] = json!(event_id(aggregate_type));
        let events = json!({"events": [first, event(EVENT_TYPE), event(EVENT_TYPE)]});
        create("POST", format!("/streams/{path}/{KNOWN}"), events).await;
        for aggregate_id in [format!("a-{mark}"), SCRATCH.to_owned()] {
            create("POST", format!("/streams/{path}/{aggregate_id}"), json!({"events": [event(EVENT_TYPE)]})).await;
        }
        let snapshot = json!({"version": 1, "state": note, "revision": mark});
        create("PUT", format!("/snapshots/{path}/{KNOWN}"), snapshot).await;
    }
    for aggregate_type in REDUCED_TYPES {
        let source = format!("/* {} */ ({{ $any: (state, event) => event.event_data }})", mark(aggregate_type));
        let reducer = json!({"language": "javascript", "source": source});
        create("PUT", format!("/reducers/{}", segment(aggregate_type)), reducer).await;
    }
    create("PUT", "/groups/pg".to_owned(), json!({"filter": {"aggregate_type": ["A"]}, "lease_seconds": 3600})).await;
    create("PUT", "/groups/pall".to_owned(), json!({"lease_seconds": 3600})).await;
    for aggregate_type in TYPES {
        let event = json!({"event_type": "Erasable", "event_data": {"note": mark(aggregate_type)}});
        let path = format!("/streams/{}/{ERASABLE}", segment(aggregate_type));
        create("POST", path, json!({"events": [event.clone(), event.clone(), event]})).await;
    }
    // The first erasure is one of the type A, the second one of the types A and B.
    for (version, types) in [(1, &["A"][..]), (2, &["A", "B"])] {
        let stream = |name| json!({"aggregate_type": name, "aggregate_id": ERASABLE, "from_version": version, "to_version": version});
        let streams: Vec<_> = types.iter().map(stream).collect();
        create("POST", "/erasures".to_owned(), json!({"reason": "a seed", "streams": streams})).await;
    }
    for name in ["p", "pq"] {
        create("PUT", format!("/projections/{name}"), json!({"last_processed_position": 1})).await;
    }
    // Otherwise a response could lack a type while another session counts.
    within_a_minute("the seeds are counted", async {
        while app.app.primary.count_events().await.expect("the events are counted") != Some(0) {
            pause_between_polls().await;
        }
    })
    .await;
}
