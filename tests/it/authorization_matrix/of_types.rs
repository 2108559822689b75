//! No promise: the requests that name an aggregate type.

use serde_json::{Value, json};

use super::request::{Request, Transport};
use super::rules::{Needs, Scope};
use super::seeds::{ABSENT, ERASABLE, KNOWN, REDUCED_TYPES, SCRATCH, TYPES, all_types, event_id, mark, segment};
use crate::support::id;

const STREAM: &str = "/streams/{aggregate_type}/{aggregate_id}";
const NDJSON: &str = "application/x-ndjson";
const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
/// A type that has no data, and that only grants on all types match.
const ABSENT_TYPE: &str = "Q";
/// The statuses of a method that the route does not have. The order of the checks decides between them.
const NO_METHOD: &[u16] = &[403, 405];

/// A type, and its spelling in paths and queries.
struct Target {
    name: &'static str,
    spelling: String,
    has_seeds: bool,
    has_reducer: bool,
}

impl Target {
    fn new(name: &'static str, spelling: String) -> Self {
        Self { name, spelling, has_seeds: TYPES.contains(&name), has_reducer: REDUCED_TYPES.contains(&name) }
    }

    fn needs(&self, scope: Scope) -> Needs {
        Needs::On(scope, vec![self.name.to_owned()])
    }

    /// Returns the statuses for a resource that each seeded type has.
    fn found(&self) -> &'static [u16] {
        if self.has_seeds { &[200] } else { &[404] }
    }

    /// Returns the type if responses show its seeds.
    fn shown(&self) -> Option<&'static str> {
        self.has_seeds.then_some(self.name)
    }

    /// Returns an event that a case appends to a stream of the type.
    fn event(&self) -> Value {
        appended_event(self.name)
    }

    /// Builds a request to a path with the type. Its twin has a type without data.
    fn request(&self, build: impl Fn(&str) -> Request) -> Request {
        let request = build(&self.spelling);
        if !self.has_seeds {
            return request;
        }
        request.with_twin(build(ABSENT_TYPE).path, format!("{:?}", self.name), format!("{ABSENT_TYPE:?}"))
    }
}

/// Returns an event that a case appends to a stream of a type. After the run, its number shows which case wrote it.
pub fn appended_event(aggregate_type: &str) -> Value {
    json!({"event_type": "Appended", "event_data": {"note": mark(aggregate_type), "case": "{case}"}})
}

/// Returns the requests of all types.
pub fn requests() -> Vec<Request> {
    let known = all_types().map(|name| Target::new(name, segment(name)));
    // A type in another spelling is the same type.
    let spelled = [("A", "%41"), ("B", "%42"), ("a:b", "a:b")];
    let spelled = spelled.map(|(name, spelling)| Target::new(name, spelling.to_owned()));
    let of_type = |target: Target| {
        let parts = [
            streams(&target),
            aggregates(&target),
            reducers(&target),
            log(&target),
            statistics(&target),
            erasures(&target),
        ];
        parts.into_iter().flatten()
    };
    known.chain(spelled).flat_map(of_type).collect()
}

/// Replaces the stream that every seeded type has by one that no type has.
fn with_absent_stream(request: Request, name: &str) -> Request {
    let path = request.path.replace(name, ABSENT);
    request.with_twin(path, name, ABSENT)
}

fn streams(target: &Target) -> Vec<Request> {
    let (spelling, found) = (&target.spelling, target.found());
    let path = format!("/streams/{spelling}/{KNOWN}");
    let read = |query: &str, outcomes| {
        let request = Request::new("GET", format!("{path}{query}"), target.needs(Scope::Read), outcomes);
        with_absent_stream(request.for_operation(STREAM).showing(target.shown()), KNOWN)
    };
    let mut requests = Vec::from(read("", found).with_head());
    requests.push(read("?from_version=2&limit=1", found));
    requests.push(read("", found).with_header("accept", NDJSON));
    requests.push(read("", found).with_header("accept", CLOUD_EVENTS));
    requests.push(read("", found).over(Transport::EventStream));
    let unchanged: &[u16] = if target.has_seeds { &[304] } else { &[404] };
    requests.push(read("", unchanged).with_header("if-none-match", "*"));

    let version = Request::new("GET", format!("{path}/1"), target.needs(Scope::Read), found)
        .for_operation("/streams/{aggregate_type}/{aggregate_id}/{version}")
        .showing(target.shown());
    requests.extend(with_absent_stream(version, KNOWN).with_head());
    let list = target.request(|name| {
        Request::new("GET", format!("/streams/{name}"), target.needs(Scope::Read), &[200])
            .for_operation("/streams/{aggregate_type}")
            .showing(target.shown())
    });
    requests.extend(list.with_head());
    let known_ids = target.request(|name| {
        Request::new("GET", format!("/streams/{name}?prefix=a-"), target.needs(Scope::Read), &[200])
            .for_operation("/streams/{aggregate_type}")
            .showing(target.shown())
    });
    requests.push(known_ids);

    let events = json!({"events": [target.event()]});
    let append = |path: String, outcomes| {
        Request::new("POST", path, target.needs(Scope::Append), outcomes).for_operation(STREAM).with_body(&events)
    };
    requests.push(append(format!("/streams/{spelling}/z-{{case}}"), &[201]));
    // A conflict contains the missed events, if the key may read them.
    let expected = if target.has_seeds { "\"0\"" } else { "\"7\"" };
    let conflict = append(path.clone(), &[412])
        .with_header("if-match", expected)
        .with_header("prefer", "return=representation")
        .showing(target.shown());
    requests.push(with_absent_stream(conflict, KNOWN));
    let in_appends = json!({"aggregate_type": target.name, "aggregate_id": "z-{case}", "events": [target.event()]});
    let appends = Request::new("POST", "/appends", target.needs(Scope::Append), &[201]);
    requests.push(appends.for_operation("/appends").with_body(&json!({"appends": [in_appends]})));

    for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
        requests.push(Request::new(method, path.as_str(), Needs::AnyKey, NO_METHOD));
    }
    requests.push(Request::new("POST", format!("/streams/{spelling}"), Needs::AnyKey, NO_METHOD).with_body(&events));
    requests
}

fn aggregates(target: &Target) -> Vec<Request> {
    let (spelling, found) = (&target.spelling, target.found());
    let path = format!("/aggregates/{spelling}/{KNOWN}");
    let read = |operation, path: String, outcomes| {
        let request = Request::new("GET", path, target.needs(Scope::Read), outcomes).for_operation(operation);
        with_absent_stream(request, KNOWN)
    };
    let load = |query: &str| {
        read("/aggregates/{aggregate_type}/{aggregate_id}", format!("{path}{query}"), found).showing(target.shown())
    };
    let mut requests = Vec::from(load("").with_head());
    requests.push(load("?snapshot=ignore"));
    let folded: &[u16] = match target {
        Target { has_reducer: true, .. } => &[200],
        Target { has_seeds: true, .. } => &[409],
        _ => &[404],
    };
    let state = read("/aggregates/{aggregate_type}/{aggregate_id}/state", format!("{path}/state"), folded);
    requests.extend(state.showing(target.has_reducer.then_some(target.name)).with_head());
    let operation = "/aggregates/{aggregate_type}/{aggregate_id}/states";
    let states = read(operation, format!("{path}/states?to_version=2"), folded);
    requests.extend(states.showing(target.has_reducer.then_some(target.name)).with_head());

    let operation = "/snapshots/{aggregate_type}/{aggregate_id}";
    let snapshot = read(operation, format!("/snapshots/{spelling}/{KNOWN}"), found).showing(target.shown());
    requests.extend(snapshot.with_head());
    let write = |method, outcomes| {
        let path = format!("/snapshots/{spelling}/{SCRATCH}");
        let request = Request::new(method, path, target.needs(Scope::Append), outcomes).for_operation(operation);
        with_absent_stream(request, SCRATCH)
    };
    let written: &[u16] = match target {
        Target { has_reducer: true, .. } => &[409],
        Target { has_seeds: true, .. } => &[200, 201],
        _ => &[404],
    };
    let body = json!({"version": 1, "state": {"note": mark(target.name)}});
    requests.push(write("PUT", written).with_body(&body));
    let deleted: &[u16] = if target.has_seeds { &[204, 404] } else { &[404] };
    requests.push(write("DELETE", deleted));
    requests
}

fn reducers(target: &Target) -> Vec<Request> {
    let of_type = |method, query: &str, scope, outcomes| {
        target.request(|name| {
            Request::new(method, format!("/reducers/{name}{query}"), target.needs(scope), outcomes)
                .for_operation("/reducers/{aggregate_type}")
        })
    };
    let read: &[u16] = match target {
        Target { has_reducer: true, .. } => &[200],
        Target { has_seeds: true, .. } => &[404],
        // Other cases write and delete the reducers of these types.
        _ => &[200, 404],
    };
    let read = of_type("GET", "", Scope::Read, read).showing(target.has_reducer.then_some(target.name));
    let mut requests = Vec::from(read.with_head());
    if target.has_seeds {
        // The requests are invalid, so that the responses of other cases stay the same.
        requests.push(of_type("PUT", "", Scope::Admin, &[400]).with_body(&json!({"language": "none"})));
        requests.push(of_type("DELETE", "?unknown=1", Scope::Admin, &[400]));
    } else {
        let reducer = json!({"language": "merge-patch"});
        requests.push(of_type("PUT", "", Scope::Admin, &[200, 201]).with_body(&reducer));
        requests.push(of_type("DELETE", "", Scope::Admin, &[204, 404]));
    }

    // A test stores nothing, and returns data of the type.
    let test = |body: Value, outcomes| {
        let path = format!("/reducers/{}/test", target.spelling);
        let request = Request::new("POST", path, target.needs(Scope::Read), outcomes);
        request.for_operation("/reducers/{aggregate_type}/test").with_body(&body)
    };
    let stored = json!({"language": "merge-patch", "aggregate_id": KNOWN});
    let stored = test(stored, target.found()).showing(target.shown());
    let path = stored.path.clone();
    requests.push(stored.with_twin(path, KNOWN, ABSENT));
    let event = json!({"event_type": "Tested", "event_data": {"n": 1}});
    requests.push(test(json!({"language": "merge-patch", "events": [event]}), &[200]));
    requests
}

fn log(target: &Target) -> Vec<Request> {
    let read = |query: &str| {
        target.request(|name| {
            let path = format!("/events?aggregate_type={name}{query}");
            Request::new("GET", path, target.needs(Scope::Read), &[200])
                .for_operation("/events")
                .showing(target.shown())
        })
    };
    let mut requests = Vec::from(read("").with_head());
    requests.push(read("&limit=50").with_header("accept", NDJSON));
    requests.push(read("").with_header("accept", CLOUD_EVENTS));
    requests.push(read("").over(Transport::EventStream));
    requests.push(read(&format!("&aggregate_id={KNOWN}")));
    requests.push(read(&format!("&aggregate_id={KNOWN}&direction=backward")));
    if target.has_seeds && target.spelling == segment(target.name) {
        let (known, unknown) = (event_id(target.name), id(999));
        let event = Request::new("GET", format!("/events/{known}"), Needs::ReadEvent(Some(target.name)), &[200])
            .for_operation("/events/{event_id}")
            .showing(target.shown())
            .with_twin(format!("/events/{unknown}"), known, unknown);
        requests.extend(event.with_head());
    }
    requests
}

fn statistics(target: &Target) -> Vec<Request> {
    let one = Request::new(
        "GET",
        format!("/stats/aggregates/{}/{KNOWN}", target.spelling),
        target.needs(Scope::Read),
        target.found(),
    );
    // The revision of the seeded snapshot has the mark. A reducer replaces the snapshot.
    let one = one
        .for_operation("/stats/aggregates/{aggregate_type}/{aggregate_id}")
        .showing(target.shown().filter(|_| !target.has_reducer));
    let largest = target.request(|name| {
        let path = format!("/stats/largest-aggregates?limit=100&aggregate_type={name}");
        Request::new("GET", path, target.needs(Scope::Read), &[200])
            .for_operation("/stats/largest-aggregates")
            .showing(target.shown())
    });
    [with_absent_stream(one, KNOWN).with_head(), largest.with_head()].concat()
}

fn erasures(target: &Target) -> Vec<Request> {
    let erase = |query: &str, body: Value, outcomes| {
        let request = Request::new("POST", format!("/erasures{query}"), target.needs(Scope::Admin), outcomes);
        request.for_operation("/erasures").with_body(&body)
    };
    let stream = |aggregate_id: &str| json!({"reason": "a case", "streams": [{"aggregate_type": target.name, "aggregate_id": aggregate_id}]});
    // The first case of a type erases the rest of the stream.
    let erased: &[u16] = if target.has_seeds { &[200, 201] } else { &[404] };
    let mut requests = vec![
        with_absent_stream(erase("?dry_run=true", stream(KNOWN), target.found()), KNOWN),
        with_absent_stream(erase("", stream(ERASABLE), erased), ERASABLE),
    ];
    if target.has_seeds {
        let ids = json!({"reason": "a case", "event_ids": [event_id(target.name)]});
        requests.push(erase("?dry_run=true", ids, &[200]));
    }
    requests
}
