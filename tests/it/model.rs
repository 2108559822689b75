//! Promise P1, P2, P4, P7: random sequences of requests against a model of the whole API in memory. The responses and
//! the final log of the service must equal those of the model. A failed sequence is shortened before it is reported.
//!
//!     ANNALS_TEST_SEQUENCES=5000 cargo test model -- --nocapture

mod memory;

use std::collections::BTreeSet;
use std::sync::Mutex;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::{Call, Reply, TestApp, id};
use memory::{Append, Expected, Model, STREAMS, stream};

/// One request. The numbers are small, so that requests conflict with each other.
#[derive(Debug, Clone)]
pub enum Command {
    Append(Append),
    AppendMany(Vec<Append>),
    /// Repeats an earlier append, like a client that has received no response.
    Repeat(usize),
    ReadStream {
        stream: u8,
        from: i64,
        to: Option<i64>,
        limit: usize,
        backward: bool,
    },
    ReadVersion {
        stream: u8,
        version: i64,
    },
    ReadEvent {
        event: u8,
    },
    ReadLog {
        after: i64,
        limit: usize,
        aggregate_type: Option<u8>,
        event_type: Option<u8>,
    },
    ListStreams {
        aggregate_type: u8,
        after: Option<u8>,
    },
    PutProjection {
        name: u8,
        position: i64,
        expected: Option<i64>,
        reset: bool,
    },
    ReadProjection {
        name: u8,
    },
    DeleteProjection {
        name: u8,
    },
    PutSnapshot {
        stream: u8,
        version: i64,
        revision: Option<u8>,
    },
    ReadSnapshot {
        stream: u8,
    },
    DeleteSnapshot {
        stream: u8,
    },
    Load {
        stream: u8,
        ignore: bool,
        revision: Option<u8>,
    },
}

fn appends() -> impl Strategy<Value = Append> {
    let expected = prop_oneof![
        4 => Just(Expected::Any),
        2 => Just(Expected::None),
        1 => Just(Expected::Exists),
        4 => (0..8i64).prop_map(Expected::Exactly),
        // The version that a client expects after it has read the stream.
        6 => Just(Expected::Current),
    ];
    // With few ids and two contents, some events are new, some are known, and some are known with another content.
    let event = (0..100u8, 0..8u8).prop_map(|(event, content)| (event, content == 0));
    (0..STREAMS, expected, prop::collection::vec(event, 1..4)).prop_map(|(stream, expected, events)| Append {
        stream,
        expected,
        events,
    })
}

fn commands() -> impl Strategy<Value = Command> {
    let stream = || 0..STREAMS;
    prop_oneof![
        14 => appends().prop_map(Command::Append),
        3 => prop::collection::vec(appends(), 1..4).prop_map(Command::AppendMany),
        4 => (0..20usize).prop_map(Command::Repeat),
        3 => (stream(), 0..8i64, prop::option::of(1..8i64), 1..5usize, any::<bool>())
            .prop_map(|(stream, from, to, limit, backward)| Command::ReadStream { stream, from, to, limit, backward }),
        1 => (stream(), 0..8i64).prop_map(|(stream, version)| Command::ReadVersion { stream, version }),
        1 => (0..100u8).prop_map(|event| Command::ReadEvent { event }),
        3 => (0..20i64, 1..8usize, prop::option::of(0..2u8), prop::option::of(0..2u8))
            .prop_map(|(after, limit, aggregate_type, event_type)| Command::ReadLog { after, limit, aggregate_type, event_type }),
        1 => (0..2u8, prop::option::of(stream())).prop_map(|(aggregate_type, after)| Command::ListStreams { aggregate_type, after }),
        6 => (0..2u8, 0..8i64, prop::option::weighted(0.3, 0..8i64), prop::bool::weighted(0.3))
            .prop_map(|(name, position, expected, reset)| Command::PutProjection { name, position, expected, reset }),
        1 => (0..2u8).prop_map(|name| Command::ReadProjection { name }),
        1 => (0..2u8).prop_map(|name| Command::DeleteProjection { name }),
        7 => (stream(), 0..5i64, prop::option::weighted(0.3, 0..2u8))
            .prop_map(|(stream, version, revision)| Command::PutSnapshot { stream, version, revision }),
        1 => stream().prop_map(|stream| Command::ReadSnapshot { stream }),
        1 => stream().prop_map(|stream| Command::DeleteSnapshot { stream }),
        3 => (stream(), any::<bool>(), prop::option::of(0..2u8))
            .prop_map(|(stream, ignore, revision)| Command::Load { stream, ignore, revision }),
    ]
}

fn append_call(app: &TestApp, model: &Model, append: &Append) -> Call {
    let call = app.post(&format!("/streams/{}", stream(append.stream)), &json!({ "events": append.events() }));
    match append.expected {
        Expected::Any => call,
        Expected::None => call.header("if-none-match", "*"),
        Expected::Exists => call.header("if-match", "*"),
        Expected::Exactly(version) => call.if_match(version as u64),
        Expected::Current => call.if_match(model.head(append.stream) as u64),
    }
}

fn append_many_call(app: &TestApp, model: &Model, appends: &[Append]) -> Call {
    let append = |append: &Append| {
        let (aggregate_type, aggregate_id) = stream(append.stream).split_once('/').expect("type/id");
        let mut body =
            json!({"aggregate_type": aggregate_type, "aggregate_id": aggregate_id, "events": append.events()});
        let expected = match append.expected {
            Expected::Any => Value::Null,
            Expected::None => json!("none"),
            Expected::Exists => json!("exists"),
            Expected::Exactly(version) => json!(version),
            Expected::Current => json!(model.head(append.stream)),
        };
        body["expected_version"] = expected;
        body
    };
    app.post("/appends", &json!({"appends": appends.iter().map(append).collect::<Vec<_>>()}))
}

fn call(app: &TestApp, model: &Model, command: &Command) -> Call {
    let optional = |name: &str, value: Option<String>| value.map_or(String::new(), |value| format!("&{name}={value}"));
    match command {
        Command::Append(append) => append_call(app, model, append),
        Command::AppendMany(appends) => append_many_call(app, model, appends),
        Command::Repeat(_) => unreachable!("a repetition is replaced by the command that it repeats"),
        Command::ReadStream { stream: of, from, to, limit, backward } => {
            let direction = if *backward { "backward" } else { "forward" };
            let to = optional("to_version", to.map(|to| to.to_string()));
            app.get(&format!("/streams/{}?from_version={from}&limit={limit}&direction={direction}{to}", stream(*of)))
        }
        Command::ReadVersion { stream: of, version } => app.get(&format!("/streams/{}/{version}", stream(*of))),
        Command::ReadEvent { event } => app.get(&format!("/events/{}", id(u32::from(*event)))),
        Command::ReadLog { after, limit, aggregate_type, event_type } => {
            let aggregate_type =
                optional("aggregate_type", aggregate_type.map(|t| memory::TYPES[usize::from(t)].to_owned()));
            let event_type = optional("event_type", event_type.map(|t| memory::EVENT_TYPES[usize::from(t)].to_owned()));
            app.get(&format!("/events?after={after}&limit={limit}{aggregate_type}{event_type}"))
        }
        Command::ListStreams { aggregate_type, after } => {
            let after = optional("after", after.map(|of| stream(of).split_once('/').expect("type/id").1.to_owned()));
            app.get(&format!("/streams/{}?limit=1000{after}", memory::TYPES[usize::from(*aggregate_type)]))
        }
        Command::PutProjection { name, position, expected, reset } => {
            let body = json!({"last_processed_position": position});
            let call = app.call("PUT", &format!("/projections/p{name}?reset={reset}")).json(&body);
            match expected {
                Some(expected) => call.if_match(*expected as u64),
                None => call,
            }
        }
        Command::ReadProjection { name } => app.get(&format!("/projections/p{name}")),
        Command::DeleteProjection { name } => app.call("DELETE", &format!("/projections/p{name}")),
        Command::PutSnapshot { stream: of, version, revision } => {
            let mut body = json!({"version": version, "state": {"of": version}});
            if let Some(revision) = revision {
                body["revision"] = json!(format!("r{revision}"));
            }
            app.call("PUT", &format!("/snapshots/{}", stream(*of))).json(&body)
        }
        Command::ReadSnapshot { stream: of } => app.get(&format!("/snapshots/{}", stream(*of))),
        Command::DeleteSnapshot { stream: of } => app.call("DELETE", &format!("/snapshots/{}", stream(*of))),
        Command::Load { stream: of, ignore, revision } => {
            let snapshot = if *ignore { "&snapshot=ignore" } else { "" };
            let revision = optional("revision", revision.map(|revision| format!("r{revision}")));
            app.get(&format!("/aggregates/{}?min_position=0{snapshot}{revision}", stream(*of)))
        }
    }
}

/// Whether a response contains everything that the model returns. It may contain more.
fn contains(response: &Value, expected: &Value) -> bool {
    match (response, expected) {
        (Value::Object(response), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| response.get(name).is_some_and(|response| contains(response, value)))
        }
        (Value::Array(response), Value::Array(expected)) => {
            response.len() == expected.len()
                && response.iter().zip(expected).all(|(response, expected)| contains(response, expected))
        }
        (response, expected) => response == expected,
    }
}

fn compare(reply: &Reply, (status, body): (u16, Value), command: &Command) -> Result<(), TestCaseError> {
    let response = if reply.body.is_empty() { Value::Null } else { reply.json() };
    let same = reply.status == status && contains(&response, &body);
    prop_assert!(same, "{command:?}\nmodel: {status} {body}\nservice: {} {response}", reply.status);
    Ok(())
}

/// Runs one sequence. `observed` collects the kinds of responses.
async fn run(commands: Vec<Command>, observed: &Mutex<BTreeSet<String>>) -> Result<(), TestCaseError> {
    let app = TestApp::start().await;
    let mut model = Model::default();
    let mut appends: Vec<Command> = Vec::new();
    for command in &commands {
        let command = match command {
            Command::Repeat(_) if appends.is_empty() => continue,
            Command::Repeat(back) => &appends[back % appends.len()].clone(),
            command => command,
        };
        // The expected version is determined before the first attempt, so that a repetition is the same request.
        let command = &model.with_exact_versions(command);
        let reply = call(&app, &model, command).send().await;
        let (status, body) = model.respond(command);
        observed.lock().expect("the lock").insert(format!("{status} {}", body["code"].as_str().unwrap_or("")));
        compare(&reply, (status, body), command)?;
        if matches!(command, Command::Append(_) | Command::AppendMany(_)) {
            appends.push(command.clone());
        }
    }
    let lines = app.get("/events").header("accept", "application/x-ndjson").send().await.lines();
    let (end, lines) = lines.split_last().expect("an end line");
    prop_assert_eq!(&end["end"]["count"], lines.len());
    let log = Value::Array(lines.to_vec());
    prop_assert!(contains(&log, &model.log()), "model: {}\nlog: {log}", model.log());
    Ok(())
}

#[test]
fn the_service_returns_what_the_model_returns() {
    let cases = std::env::var("ANNALS_TEST_SEQUENCES").map_or(40, |value| value.parse().expect("a number"));
    // The sequences are the same in every run, so that a failure can be repeated. A longer run adds further sequences.
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sequences = prop::collection::vec(commands(), 30..60);
    let observed = Mutex::default();
    let ran = runner.run(&sequences, |commands| runtime.block_on(run(commands, &observed)));
    ran.unwrap_or_else(|error| panic!("{error}"));
    // A kind of response that no sequence has received was never compared.
    for kind in [
        "200 ",
        "201 ",
        "204 ",
        "400 invalid_request",
        "404 stream_not_found",
        "404 event_not_found",
        "404 projection_not_found",
        "404 snapshot_not_found",
        "409 event_id_reused",
        "409 event_partly_known",
        "409 version_conflict",
        "409 position_regressed",
        "409 snapshot_stale",
        "412 version_conflict",
        "412 position_conflict",
        "422 position_beyond_head",
        "422 version_beyond_head",
    ] {
        assert!(observed.lock().expect("the lock").contains(kind), "no request received the response {kind}");
    }
}
