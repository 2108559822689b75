//! No promise: the requests about the whole store: the log, several types at once, projections, statistics and pages.

use serde_json::{Value, json};

use super::of_types::appended_event;
use super::request::{Request, Transport};
use super::rules::{Needs, Scope};
use super::seeds::{CORRELATION, EVENT_TYPE, KNOWN, REDUCED_TYPES, TYPES, segment};
use crate::support::id;

/// Two types of one request. A key may have a grant on one of them only.
const PAIRS: [[&str; 2]; 8] =
    [["A", "B"], ["B", "A"], ["A", "AB"], ["A", "A-B"], ["AB", "日本語"], ["B", "a:b"], ["a", "A"], ["A", "Q"]];

/// The names of projections. Grants match some of them, and some have the names of types.
const PROJECTIONS: [&str; 6] = ["p", "pq", "q", "P", "A", "日本"];

/// The statuses of a PUT. It is 404 if another case deletes the projection before the service has read it for the
/// response.
const SET: &[u16] = &[200, 201, 404];

/// Returns all of them.
pub fn requests() -> Vec<Request> {
    let parts =
        [log(), several_types(), lists(), statistics(), projections(), groups(), erasures(), pages(), absent_routes()];
    parts.into_iter().flatten().collect()
}

fn log() -> Vec<Request> {
    let read = |query: &str, outcomes| {
        Request::new("GET", format!("/events{query}"), Needs::OnAnyType(Scope::Read), outcomes).for_operation("/events")
    };
    let all = |query: &str| read(query, &[200]).showing(TYPES);
    let unknown = Request::new("GET", format!("/events/{}", id(999)), Needs::ReadEvent(None), &[]);
    let mut requests = vec![
        all("?limit=50").with_header("accept", "application/x-ndjson"),
        all("").with_header("accept", "application/cloudevents-batch+json"),
        all("").over(Transport::EventStream),
        all(&format!("?event_type={EVENT_TYPE}")),
        all(&format!("?correlation_id={CORRELATION}")),
        all("?occurred_from=2020-01-01T00:00:00Z"),
        // The seeds have the first 35 positions. Cases append more events after them.
        all("?direction=backward&before=35"),
        all(&format!("?direction=backward&before=35&event_type={EVENT_TYPE}")),
        read("?direction=backward&after=1", &[400]),
        read("?after=head", &[200]),
        read(&format!("?aggregate_id={KNOWN}"), &[400]),
        read("/not-a-uuid", &[400]).for_operation("/events/{event_id}"),
    ];
    requests.extend(all("").with_head());
    requests.extend(unknown.for_operation("/events/{event_id}").with_head());
    requests
}

/// Returns requests that need a grant on each of two types.
fn several_types() -> Vec<Request> {
    let mut requests = Vec::new();
    let needs = |scope, types: [&str; 2]| Needs::On(scope, Vec::from(types.map(str::to_owned)));
    let append = |aggregate_type: &str, aggregate_id: &str| {
        let events = [appended_event(aggregate_type)];
        json!({"aggregate_type": aggregate_type, "aggregate_id": aggregate_id, "events": events})
    };
    let append_all = |needs, appends: &[Value], outcomes| {
        let request = Request::new("POST", "/appends", needs, outcomes).for_operation("/appends");
        request.with_body(&json!({"appends": appends}))
    };
    for [first, second] in PAIRS {
        let path = format!("/events?aggregate_type={}&aggregate_type={}", segment(first), segment(second));
        let filtered = Request::new("GET", path, needs(Scope::Read, [first, second]), &[200])
            .for_operation("/events")
            .showing([first, second].into_iter().filter(|name| TYPES.contains(name)));
        requests.push(filtered.clone().with_header("accept", "application/x-ndjson"));
        requests.push(filtered);
        let appends = [append(first, "z-{case}-first"), append(second, "z-{case}-second")];
        requests.push(append_all(needs(Scope::Append, [first, second]), &appends, &[201]));
    }
    let conflicts = ["A", "B"].map(|aggregate_type| {
        let mut append = append(aggregate_type, KNOWN);
        append["expected_version"] = json!(7);
        append
    });
    requests.push(append_all(needs(Scope::Append, ["A", "B"]), &conflicts, &[409]));
    requests.push(append_all(Needs::OnAnyType(Scope::Append), &[], &[400]));
    requests
}

fn lists() -> Vec<Request> {
    let list =
        |path: &'static str| Request::new("GET", path, Needs::OnAnyType(Scope::Read), &[200]).for_operation(path);
    let reducers = list("/reducers").showing(REDUCED_TYPES);
    let streams = |query: &str, outcomes| {
        let path = format!("/streams{query}");
        Request::new("GET", path, Needs::OnAnyType(Scope::Read), outcomes).for_operation("/streams")
    };
    let mut requests: Vec<_> =
        [reducers, list("/projections"), streams("?prefix=a-&limit=1000", &[200]).showing(TYPES)]
            .into_iter()
            .flat_map(Request::with_head)
            .collect();
    requests.extend(Request::new("GET", "/keys/self", Needs::AnyKey, &[200]).for_operation("/keys/self").with_head());
    requests.push(streams("?limit=1", &[200]));
    // The place after which the list begins may be a stream that the key may not read.
    requests.push(streams(&format!("?after=A/{KNOWN}"), &[200]));
    requests.push(streams("?prefix=nothing", &[200]));
    requests.push(streams("?prefix=", &[400]));
    requests.push(streams("?aggregate_type=A", &[400]));
    requests
}

fn statistics() -> Vec<Request> {
    let read = |path: &'static str, needs| Request::new("GET", path, needs, &[200]).for_operation(path);
    let largest = Request::new("GET", "/stats/largest-aggregates?limit=1000", Needs::OnAnyType(Scope::Read), &[200]);
    let requests = [
        read("/stats", Needs::OnAnyType(Scope::Read)),
        read("/stats/tables", Needs::OnAllTypes(Scope::Read)),
        read("/stats/aggregate-types", Needs::OnAnyType(Scope::Read)).showing(TYPES),
        read("/stats/snapshot-coverage", Needs::OnAnyType(Scope::Read)),
        read("/stats/rates", Needs::OnAnyType(Scope::Read)),
        largest.for_operation("/stats/largest-aggregates").showing(TYPES),
    ];
    requests.into_iter().flat_map(Request::with_head).collect()
}

fn projections() -> Vec<Request> {
    let spellings = PROJECTIONS.map(|name| (name, segment(name))).into_iter();
    spellings.chain([("p", "%70".to_owned())]).flat_map(|(name, spelling)| projection(name, &spelling)).collect()
}

/// Returns the requests of one projection. Cases create and delete it, and its position is always 1.
fn projection(name: &str, spelling: &str) -> Vec<Request> {
    let request = |method, query: &str, needs, outcomes| {
        let path = format!("/projections/{spelling}{query}");
        Request::new(method, path, needs, outcomes).for_operation("/projections/{projection_name}")
    };
    let read = |query: &str| request("GET", query, Needs::OnAnyType(Scope::Read), &[200, 404]);
    let write = |method, query: &str, outcomes| {
        let request = request(method, query, Needs::Projection(name.to_owned()), outcomes);
        let absent = format!("/projections/zz-absent{query}");
        let request = request.with_twin(absent, format!("{name:?}"), "\"zz-absent\"");
        if method == "PUT" { request.with_body(&json!({"last_processed_position": 1})) } else { request }
    };
    let mut requests = vec![
        read("?wait_for=1"),
        write("PUT", "", SET),
        write("PUT", "?reset=true", SET),
        write("PUT", "?reset=false", SET),
        write("PUT", "?reset=maybe", &[400]),
        write("PUT", "", &[412]).with_header("if-match", "\"999\""),
        write("DELETE", "", &[204, 404]),
        write("DELETE", "?reset=true", &[400]),
    ];
    requests.extend(read("").with_head());
    let history =
        Request::new("GET", format!("/projections/{spelling}/history"), Needs::OnAnyType(Scope::Read), &[200, 404]);
    requests.extend(history.for_operation("/projections/{projection_name}/history").with_head());
    requests
}

/// Returns the requests of two groups: of one type, and of all types.
fn groups() -> Vec<Request> {
    let list = Request::new("GET", "/groups", Needs::OnAnyType(Scope::Read), &[200]).for_operation("/groups");
    let of_group = |(name, types): (&'static str, Vec<&'static str>)| group(name, &types);
    let groups = [("pg", vec!["A"]), ("pall", vec![])].into_iter().flat_map(of_group);
    let absent = Request::new("DELETE", "/groups/zz-absent", Needs::Projection("zz-absent".to_owned()), &[404]);
    let absent = absent.for_operation("/groups/{group_name}");
    let unknown = Request::new("POST", "/groups/pp/claims", Needs::Projection("pp".to_owned()), &[404]);
    let unknown = unknown.for_operation("/groups/{group_name}/claims");
    list.with_head().into_iter().chain(groups).chain([absent, unknown]).collect()
}

fn group(name: &'static str, types: &[&'static str]) -> Vec<Request> {
    let request = |method, operation: &'static str, rest: &str, needs, outcomes| {
        Request::new(method, format!("/groups/{name}{rest}"), needs, outcomes).for_operation(operation)
    };
    let any = || Needs::OnAnyType(Scope::Read);
    let read = || Needs::GroupEvents(Scope::Read, types.to_vec());
    let with = |scope| Needs::Group(name, scope, types.to_vec());
    let (group, claims, claim) =
        ("/groups/{group_name}", "/groups/{group_name}/claims", "/groups/{group_name}/claims/{claim_id}");
    let (parked, one) = ("/groups/{group_name}/parked", "/groups/{group_name}/parked/{aggregate_type}/{aggregate_id}");
    let position = json!({"last_processed_position": 1});
    let shown: Vec<&'static str> = if types.is_empty() { TYPES.to_vec() } else { types.to_vec() };
    let reads = [
        request("GET", group, "", any(), &[200]),
        request("GET", "/groups/{group_name}/history", "/history", any(), &[200]),
        request("GET", claims, "/claims", read(), &[200]),
        request("GET", claim, "/claims/1.0.1", read(), &[404]),
        request("GET", parked, "/parked", read(), &[200]),
        request("GET", one, "/parked/A/nothing", read(), &[404]),
    ];
    let writes = [
        request("PUT", group, "", with(Scope::Admin), &[200]).with_body(&json!({})),
        request("POST", claims, "/claims?limit=1", with(Scope::Read), &[201, 204]).showing(shown),
        request("PUT", claim, "/claims/1.0.1", with(Scope::Read), &[409]).with_body(&position),
        request("DELETE", claim, "/claims/1.0.1", with(Scope::Read), &[204]),
        request("PUT", one, "/parked/A/nothing", with(Scope::Admin), &[404]).with_body(&position),
        request("POST", "/groups/{group_name}/retries", "/retries", with(Scope::Admin), &[200]).with_body(&json!({})),
    ];
    reads.into_iter().flat_map(Request::with_head).chain(writes).collect()
}

fn erasures() -> Vec<Request> {
    let list = |query: &str| {
        Request::new("GET", format!("/erasures{query}"), Needs::OnAnyType(Scope::Admin), &[200])
            .for_operation("/erasures")
    };
    let read = |erasure: u32, types: &[&str], outcomes| {
        let needs = Needs::On(Scope::Admin, types.iter().map(|name| (*name).to_owned()).collect());
        Request::new("GET", format!("/erasures/{erasure}"), needs, outcomes).for_operation("/erasures/{erasure}")
    };
    let mut requests = Vec::from(list("").with_head());
    requests.push(list("?after=1&limit=1"));
    requests.extend(read(1, &["A"], &[200]).with_head());
    requests.push(read(2, &["A", "B"], &[200]));
    requests.push(Request::new("GET", "/erasures/999", Needs::OnAnyType(Scope::Admin), &[404]));
    let erase = |types: [&str; 2]| {
        let streams = types.map(|name| json!({"aggregate_type": name, "aggregate_id": KNOWN}));
        let needs = Needs::On(Scope::Admin, types.iter().map(|name| (*name).to_owned()).collect());
        let request = Request::new("POST", "/erasures?dry_run=true", needs, &[200]).for_operation("/erasures");
        request.with_body(&json!({"reason": "a case", "streams": streams}))
    };
    requests.extend(PAIRS.into_iter().filter(|pair| pair.iter().all(|name| TYPES.contains(name))).map(erase));
    let nothing = Request::new("POST", "/erasures", Needs::OnAnyType(Scope::Admin), &[400]);
    requests.push(nothing.for_operation("/erasures").with_body(&json!({"reason": "a case"})));
    requests
}

/// Returns the requests that need no key.
fn pages() -> Vec<Request> {
    let page = |path: &'static str, outcomes| Request::new("GET", path, Needs::Nothing, outcomes);
    let documented = |path: &'static str, operation, outcomes| page(path, outcomes).for_operation(operation);
    let pages = [
        documented("/livez", "/livez", &[200]),
        // A check that takes longer than a second fails.
        documented("/readyz", "/readyz", &[200, 503]),
        documented("/readyz?verbose", "/readyz", &[200, 503]),
        documented("/metrics", "/metrics", &[200]),
        documented("/problems/forbidden", "/problems/{code}", &[200]),
        documented("/problems/nothing", "/problems/{code}", &[404]),
        page("/", &[200]),
        page("/openapi.json", &[200]),
        page("/docs/", &[200]),
        page("/console/", &[200]),
        page("/console/streams/B/a-known", &[200]),
        page("/console/app.js", &[200]),
        page("/console/nothing", &[404]),
        page("/assets/annals.css", &[200]),
        page("/assets/nothing", &[404]),
    ];
    let posted = pages.clone().map(|page| Request::new("POST", page.path, Needs::Nothing, &[405]));
    pages.into_iter().flat_map(Request::with_head).chain(posted).collect()
}

/// Returns requests whose route or method does not exist.
fn absent_routes() -> Vec<Request> {
    let paths = [
        "/nowhere",
        "/aggregates/B",
        "/snapshots/B",
        "/events/",
        "/streams/B/a-known/",
        "/streams/B/a-known/1/2",
        "/Streams/B/a-known",
        "/STREAMS/B/a-known",
        "/keys",
        "/admin",
        "/.env",
    ];
    let absent = paths.into_iter().flat_map(|path| Request::new("GET", path, Needs::AnyKey, &[404]).with_head());
    let methods = [
        ("GET", "/appends"),
        ("POST", "/streams"),
        ("POST", "/events"),
        ("DELETE", "/events"),
        ("POST", "/projections/p"),
        ("PATCH", "/projections/p"),
        ("POST", "/reducers/B"),
        ("GET", "/reducers/B/test"),
        ("POST", "/stats"),
        ("OPTIONS", "/events"),
        ("OPTIONS", "/stats"),
    ];
    let methods = methods.map(|(method, path)| Request::new(method, path, Needs::AnyKey, &[403, 405]));
    absent.chain(methods).collect()
}
