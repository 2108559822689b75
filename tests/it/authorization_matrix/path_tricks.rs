//! No promise: requests whose paths, queries or headers hide the type that they mean. The service decodes a segment
//! once, and does not change it otherwise. So the rules apply to the decoded name, however strange it is.

use serde_json::json;

use super::request::{Request, Transport};
use super::rules::{Needs, Scope};

/// Paths in which the name of the type is what a segment says, decoded once; the type, and the status.
const READS: &[(&str, &str, &[u16])] = &[
    // An id that climbs to another type.
    ("/streams/A/..%2FB", "A", &[400]),
    ("/streams/A/..%2F..%2FB%2Fa-known", "A", &[400]),
    ("/streams/A/%2e%2e%2fB%2fa-known", "A", &[400]),
    ("/aggregates/A/..%2FB%2Fa-known", "A", &[400]),
    ("/aggregates/A/..%2FB%2Fa-known/state", "A", &[400]),
    ("/aggregates/A/..%2FB%2Fa-known/states", "A", &[400]),
    ("/snapshots/A/..%2F..%2Fsnapshots%2FB%2Fa-known", "A", &[400]),
    ("/stats/aggregates/A/..%2FB%2Fa-known", "A", &[400]),
    // A type that climbs.
    ("/streams/A%2F..%2FB/a-known", "A/../B", &[400]),
    ("/streams/A%2f..%2fB", "A/../B", &[400]),
    ("/reducers/A%2F..%2FB", "A/../B", &[400]),
    ("/aggregates/%2E%2E%2Fstreams%2FB/a-known", "../streams/B", &[400]),
    ("/streams/%2e%2e/B", "..", &[400]),
    ("/streams/./B", ".", &[400]),
    // Parts that other servers ignore.
    ("/streams/A;B/a-known", "A;B", &[404]),
    ("/streams/B;x=y/a-known", "B;x=y", &[404]),
    ("/streams/B%3F/a-known", "B?", &[404]),
    ("/streams/A%23B/a-known", "A#B", &[404]),
    ("/streams/A,B/a-known", "A,B", &[404]),
    ("/streams/A%26B/a-known", "A&B", &[404]),
    ("/streams/B+/a-known", "B+", &[404]),
    ("/streams/A%5CB/a-known", "A\\B", &[404]),
    // Patterns of grants are no names.
    ("/streams/A*/a-known", "A*", &[404]),
    ("/streams/*/a-known", "*", &[404]),
    ("/streams/%2A/a-known", "*", &[404]),
    // Characters that other programs remove or change.
    ("/streams/A%00/a-known", "A\0", &[400]),
    ("/streams/B%00A/a-known", "B\0A", &[400]),
    ("/streams/B%0A/a-known", "B\n", &[400]),
    ("/streams/B%20/a-known", "B ", &[400]),
    ("/streams/%20B/a-known", " B", &[400]),
    ("/streams/B%E2%80%8B/a-known", "B\u{200b}", &[404]),
    ("/streams/%EF%BC%A2/a-known", "Ｂ", &[404]),
    ("/streams/b/a-known", "b", &[404]),
    // Decoded twice, it would be B.
    ("/streams/%2542/a-known", "%42", &[404]),
    // In the query.
    ("/events?aggregate_type=A,B", "A,B", &[200]),
    ("/events?aggregate_type=*", "*", &[200]),
    ("/events?aggregate_type=A*", "A*", &[200]),
    ("/events?aggregate_type=A%26aggregate_type%3DB", "A&aggregate_type=B", &[200]),
    ("/events?aggregate_type=%2542", "%42", &[200]),
    ("/stats/largest-aggregates?aggregate_type=A%25", "A%", &[200]),
];

/// Paths of B in another form.
const READS_OF_B: &[&str] = &[
    "/streams/%42/%61-known",
    "http://localhost/streams/B/a-known",
    "/streams/B/a-known?",
    "/aggregates/%42/a%2Dknown",
    "/stats/largest-aggregates?aggregate_type=%42",
    "/events?aggregate_type=%42",
    "/events?%61ggregate_type=B",
];

/// Paths for which no route decides: a valid key receives an error, whatever its grants are.
const REFUSED: &[&str] = &[
    "/streams/B/../A/a-known",
    "/streams/A/%2e%2e/B/a-known",
    "/streams/A/a-known/../../B/a-known",
    "/./streams/B/a-known",
    "//streams/B/a-known",
    "/streams//B/a-known",
    "/streams/B//a-known",
    "/streams/B/a-known//1",
    "/streams%2FB%2Fa-known",
    "/%73treams/B/a-known",
    "/events;aggregate_type=B",
    "/events/../streams/B/a-known",
    "/livez/../streams/B/a-known",
    "/livez;/streams/B/a-known",
    "/livez%2F..%2Fstreams%2FB%2Fa-known",
    "/stats//aggregates/B/a-known",
    "/stats/../streams/B/a-known",
    "/reducers/A/../B",
    "/projections/p/../q",
    // Not UTF-8: an overlong B, and half a character.
    "/streams/%C1%82/a-known",
    "/streams/%E6%97/a-known",
];

/// Queries that are invalid for every key that may read any type.
const INVALID_QUERIES: &[&str] = &[
    "/events?aggregate_type[]=B",
    "/events?Aggregate_Type=B",
    "/events?aggregate_type=",
    "/events?aggregate_type=A%00",
    "/events?aggregate_type=A%2F..%2FB",
    "/events?aggregate_type=%C1%82",
    "/events?type=B",
    "/stats/largest-aggregates?aggregate_type=A&aggregate_type=B",
];

/// Paths below public pages.
const BELOW_PAGES: &[&str] = &[
    "/docs/..%2Fstreams%2FB%2Fa-known",
    "/console/..%2Fstreams%2FB%2Fa-known",
    "/assets/..%2Fstreams%2FB%2Fa-known",
    "/problems/..%2Fstreams%2FB%2Fa-known",
];

/// Writes to names that climb or have a suffix: the method, the path, what it needs, and the status.
fn writes() -> [(&'static str, &'static str, Needs, &'static [u16]); 10] {
    let on = |scope, name: &str| Needs::On(scope, vec![name.to_owned()]);
    let projection = |name: &str| Needs::Projection(name.to_owned());
    [
        ("POST", "/streams/A/..%2FB", on(Scope::Append, "A"), &[400]),
        ("POST", "/streams/A%2F..%2FB/z", on(Scope::Append, "A/../B"), &[400]),
        ("POST", "/streams/B;x/z", on(Scope::Append, "B;x"), &[412]),
        ("POST", "/streams/%2542/z", on(Scope::Append, "%42"), &[412]),
        ("DELETE", "/snapshots/A%2F..%2FB/a-scratch", on(Scope::Append, "A/../B"), &[400]),
        ("DELETE", "/reducers/A%2F..%2FB", on(Scope::Admin, "A/../B"), &[400]),
        ("DELETE", "/projections/p%2F..%2Fq", projection("p/../q"), &[400]),
        ("DELETE", "/projections/q;p", projection("q;p"), &[404]),
        ("DELETE", "/projections/%2570", projection("%70"), &[404]),
        ("DELETE", "/projections/p%00", projection("p\0"), &[400]),
    ]
}

/// Returns all of them. No HTTP client changes their paths.
pub fn requests() -> Vec<Request> {
    let on = |name: &str| Needs::On(Scope::Read, vec![name.to_owned()]);
    let mut requests = Vec::new();
    for (path, name, outcomes) in READS {
        requests.push(Request::new("GET", *path, on(name), outcomes));
    }
    for path in READS_OF_B {
        requests.push(Request::new("GET", *path, on("B"), &[200]).showing(["B"]));
    }
    for path in REFUSED {
        requests.push(Request::new("GET", *path, Needs::AnyKey, &[400, 403, 404]));
    }
    for path in INVALID_QUERIES {
        requests.push(Request::new("GET", *path, Needs::OnAnyType(Scope::Read), &[400]));
    }
    for path in BELOW_PAGES {
        requests.push(Request::new("GET", *path, Needs::Nothing, &[404]));
    }
    let events = json!({"events": [{"event_type": "Tricked", "event_data": 1}]});
    for (method, path, needs, outcomes) in writes() {
        let request = Request::new(method, path, needs, outcomes);
        // No stream has version 7, so that nothing is written.
        requests.push(match method {
            "POST" => request.with_header("if-match", "\"7\"").with_body(&events),
            _ => request,
        });
    }
    // Headers by which other servers replace the path or the method.
    for header in ["x-original-url", "x-rewrite-url", "x-forwarded-uri"] {
        let page = Request::new("GET", "/livez", Needs::Nothing, &[200]);
        requests.push(page.with_header(header, "/streams/B/a-known"));
    }
    for header in ["x-http-method-override", "x-method-override"] {
        let read = Request::new("GET", "/projections/p", Needs::OnAnyType(Scope::Read), &[200, 404]);
        requests.push(read.with_header(header, "DELETE"));
    }
    requests.into_iter().map(|request| request.over(Transport::Raw)).collect()
}
