//! No promise: authorization. Every operation of the API, with every kind of key and many names, is compared with an
//! independent model of the rules. The responses contain no data that the key may not read, and a refusal does not show
//! whether a resource exists. The short run has some cases of every request:
//!
//!     ANNALS_TEST_AUTHORIZATIONS=1000000 cargo test --release --test it authorization_matrix:: -- --nocapture

mod credentials;
mod of_store;
mod of_types;
mod path_tricks;
mod request;
mod rules;
mod seeds;

use std::collections::{BTreeSet, HashSet};

use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::support::{Reply, TestApp, TestOptions};
use credentials::{Credentials, EVERYTHING};
use request::Request;
use rules::{Decision, Needs};
use seeds::{all_types, mark};

/// The number of cases must not be lower, so that the matrix does not shrink by mistake.
const CASES_MIN: usize = 40_000;
/// The number of cases of a short run.
const CASES_SHORT: usize = 2_500;
/// The number of requests that are sent at the same time.
const CONCURRENT_REQUESTS: usize = 16;
/// The number of wrong cases that a failure lists.
const LISTED_MAX: usize = 20;
/// The length of a response in the list.
const EXCERPT_CHARS: usize = 600;

/// One request with one key.
struct Case<'m> {
    number: usize,
    request: &'m Request,
    credentials: &'m Credentials,
    decision: Decision,
}

fn requests() -> Vec<Request> {
    [of_types::requests(), of_store::requests(), path_tricks::requests()].concat()
}

/// Returns the number of cases to run. Fewer cases than in a short run do not show anything.
fn cases_to_run() -> usize {
    let number = std::env::var("ANNALS_TEST_AUTHORIZATIONS").ok().map(|value| value.parse().expect("a number"));
    number.map_or(CASES_SHORT, |number: usize| number.max(CASES_SHORT))
}

/// Returns all cases, in the same order in every run. They are in rounds, and each round has one case of every request.
/// In the first three rounds, a request is admitted, refused for its grants, and refused for its key.
fn all_cases<'m>(requests: &'m [Request], credentials: &'m [Credentials]) -> Vec<Case<'m>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut rounds: Vec<Vec<(&Request, &Credentials, Decision)>> = Vec::new();
    for request in requests {
        let (mut admitted, mut forbidden, mut without_key) = (Vec::new(), Vec::new(), Vec::new());
        for credentials in credentials {
            let decision = Decision::new(&credentials.identity, &request.needs);
            let group = match decision {
                Decision::Admitted => &mut admitted,
                Decision::Forbidden | Decision::Hidden => &mut forbidden,
                Decision::Unauthenticated | Decision::Ambiguous => &mut without_key,
            };
            group.push((request, credentials, decision));
        }
        let mut groups = [admitted, forbidden, without_key];
        groups.iter_mut().for_each(|group| random.shuffle(group));
        let mut round = 0;
        while groups.iter().any(|group| !group.is_empty()) {
            for case in groups.iter_mut().filter_map(Vec::pop) {
                if rounds.len() == round {
                    rounds.push(Vec::new());
                }
                rounds[round].push(case);
                round += 1;
            }
        }
    }
    rounds.iter_mut().for_each(|round| random.shuffle(round));
    let cases = rounds.into_iter().flatten().enumerate();
    cases.map(|(number, (request, credentials, decision))| Case { number, request, credentials, decision }).collect()
}

/// Sends the request of a case. Returns what is wrong with the response; `None` if nothing is.
async fn run(app: &TestApp, case: &Case<'_>) -> Option<String> {
    let Case { number, request, credentials, decision } = case;
    let reply = request.send(app, &credentials.authorization, *number).await;
    let mut wrong = fault(case, &reply);
    let is_refused = matches!(decision, Decision::Forbidden | Decision::Hidden);
    if wrong.is_none()
        && is_refused
        && let Some((twin, [name, missing])) = request.twin()
    {
        let other = twin.send(app, &credentials.authorization, *number).await;
        let (expected, got) = (comparable(&other, missing), comparable(&reply, name));
        if expected != got {
            wrong = Some(format!("expected the response for a missing resource, {expected:?}, got {got:?}"));
        }
    }
    let (method, path, name) = (request.method, &request.path, &credentials.name);
    wrong.map(|wrong| format!("[{name}] {method} {path}: {wrong}"))
}

/// Returns what is wrong with a response.
fn fault(case: &Case<'_>, reply: &Reply) -> Option<String> {
    let Case { request, credentials, decision, .. } = case;
    let expected = decision.statuses(request.outcomes);
    let text = text(reply);
    let got = || format!("got {} {}", reply.status, text.chars().take(EXCERPT_CHARS).collect::<String>());
    if !expected.contains(&reply.status) {
        return Some(format!("expected {decision:?} {expected:?}, {}", got()));
    }
    // Metrics are for operators, and have the names of types.
    if request.operation == Some("/metrics") {
        return None;
    }
    let may_read = |aggregate_type: &str| credentials.identity.may_read(aggregate_type);
    let foreign = all_types().find(|aggregate_type| !may_read(aggregate_type) && text.contains(&mark(aggregate_type)));
    if let Some(aggregate_type) = foreign {
        return Some(format!("expected no data of {aggregate_type}, {}", got()));
    }
    let named = types_in(&text).find(|name| !may_read(name) && !request.needs.names(name));
    if let Some(name) = named.filter(|_| request.needs != Needs::Nothing) {
        return Some(format!("expected no mention of {name}, {}", got()));
    }
    // Without this check, an empty response to every request would be right.
    let has_data = *decision == Decision::Admitted && request.method != "HEAD" && matches!(reply.status, 200 | 412);
    let shown = request.shows.iter().filter(|name| has_data && may_read(name));
    let lacking = shown.copied().find(|name| !text.contains(&mark(name)));
    lacking.map(|name| format!("expected data of {name}, {}", got()))
}

/// Returns the headers and the body as one text.
fn text(reply: &Reply) -> String {
    let headers =
        reply.headers.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    let headers: String = headers.collect();
    format!("{headers}{}", String::from_utf8_lossy(&reply.body))
}

/// Returns the aggregate types that a text in JSON names.
fn types_in(text: &str) -> impl Iterator<Item = &str> {
    text.split("\"aggregate_type\":\"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// Returns the parts of a refusal that must be the same for every resource: the status, the headers and the body. The
/// name of the resource, which the request contains, is replaced in the detail.
fn comparable(reply: &Reply, name: &str) -> (u16, Vec<String>, Value) {
    let differs = |header: &str| matches!(header, "date" | "x-request-id" | "content-length");
    let headers = reply.headers.iter().filter(|(header, _)| !differs(header.as_str()));
    let mut headers: Vec<_> = headers.map(|(header, value)| format!("{header}: {value:?}")).collect();
    headers.sort();
    let mut body = if reply.body.is_empty() { Value::Null } else { reply.json() };
    if let Some(problem) = body.as_object_mut() {
        problem.remove("instance");
        let detail = problem.get("detail").and_then(Value::as_str).unwrap_or_default().replace(name, "…");
        problem.insert("detail".to_owned(), Value::String(detail));
    }
    (reply.status, headers, body)
}

/// Returns the numbers of the cases that have appended an event.
async fn cases_in_log(app: &TestApp, authorization: &str) -> HashSet<usize> {
    let log = app.get("/events?event_type=Appended").header("accept", "application/x-ndjson");
    let lines = log.header("authorization", authorization).send().await.expect_status(200).lines();
    let (end, events) = lines.split_last().expect("an end line");
    assert_eq!(end["end"]["count"], events.len());
    let number = |event: &Value| event["event_data"]["case"].as_str().and_then(|number| number.parse().ok());
    events.iter().map(|event| number(event).expect("the number of a case")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_admitted_exactly_by_the_rules_and_shows_only_what_the_key_may_read() {
    let mut options = TestOptions::default();
    options.settings.needs_keys = true;
    let app = TestApp::start_with(options).await;
    let credentials = credentials::create(&app).await;
    let everything =
        credentials.iter().find(|credentials| credentials.name == EVERYTHING).expect("a key for everything");
    let everything = &everything.authorization[0];
    seeds::store(&app, everything).await;

    let requests = requests();
    let mut cases = all_cases(&requests, &credentials);
    let all = cases.len();
    assert!(all >= CASES_MIN, "the matrix has only {all} cases");
    cases.truncate(cases_to_run());
    let results = stream::iter(&cases).map(|case| run(&app, case)).buffered(CONCURRENT_REQUESTS);
    let results: Vec<Option<String>> = results.collect().await;
    assert_eq!(results.len(), all.min(cases_to_run()), "the run has ended early");
    let wrong: Vec<String> = results.into_iter().flatten().collect();
    let listed = wrong.iter().take(LISTED_MAX).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} cases are wrong. The first of them:\n{listed}", wrong.len(), cases.len());

    let admitted = cases.iter().filter(|case| case.decision == Decision::Admitted);
    let admitted: HashSet<usize> = admitted.map(|case| case.number).collect();
    let in_log = cases_in_log(&app, everything).await;
    let refused: Vec<_> = in_log.difference(&admitted).collect();
    assert!(refused.is_empty(), "refused requests have written events, those of the cases {refused:?}");

    let count = |is_counted: fn(Decision) -> bool| cases.iter().filter(|case| is_counted(case.decision)).count();
    let forbidden = count(|decision| matches!(decision, Decision::Forbidden | Decision::Hidden));
    let without_key = count(|decision| matches!(decision, Decision::Unauthenticated | Decision::Ambiguous));
    println!(
        "{} of {all} cases: {} admitted, {forbidden} forbidden, {without_key} without a valid key; {} events appended",
        cases.len(),
        admitted.len(),
        in_log.len()
    );
    for of_one_kind in [admitted.len(), forbidden, without_key] {
        assert!(of_one_kind * 20 >= cases.len(), "only {of_one_kind} of {} cases are of one kind", cases.len());
    }
    assert!(!in_log.is_empty(), "no case has appended an event");
}

#[test]
fn the_requests_have_exactly_the_operations_of_the_api() {
    let document = serde_json::to_value(annals::http::router::openapi_document()).expect("a document");
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    let tried =
        requests().into_iter().filter_map(|request| Some((request.method.to_owned(), request.operation?.to_owned())));
    let mut tried: BTreeSet<(String, String)> = tried.collect();
    // Every GET route supports HEAD, and the document describes HEAD for one of them.
    let heads: Vec<_> = tried.iter().filter(|(method, _)| method == "HEAD").cloned().collect();
    for (head, path) in heads {
        assert!(tried.contains(&("GET".to_owned(), path.clone())), "{path} has HEAD without GET");
        if !documented.contains(&(head.clone(), path.clone())) {
            tried.remove(&(head, path));
        }
    }
    assert_eq!(tried, documented);
}
