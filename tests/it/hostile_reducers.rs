//! Promise P7: a reducer cannot make a state depend on snapshots, even if its values print as different JSON each time.

use annals::domain::name::StreamId;
use annals::reducers::error::FoldError;
use annals::reducers::fold::{AsOf, replay};
use serde_json::{Value, json};

use crate::support::{TestApp, pause_between_polls, within_a_minute};

const EVENTS: i32 = 4;

/// A reducer that tries to make its states depend on the number of times that they are printed.
struct Hostile {
    name: &'static str,
    /// Code before the object of functions.
    prelude: &'static str,
    /// The body of the handler of all events.
    handler: &'static str,
    /// A part of the error with which the reducer fails; `None`: it does not fail.
    error: Option<&'static str>,
}

const HOSTILE: [Hostile; 14] = [
    Hostile {
        name: "a toJSON of all objects that wraps them",
        prelude: "Object.prototype.toJSON = function () { return { wrapped: { ...this } } };",
        handler: "state.n++;",
        error: Some("toJSON"),
    },
    Hostile {
        name: "a toJSON of all objects that a handler defines",
        prelude: "",
        handler: "state.n++;
            if (event.version === 2) Object.prototype.toJSON = function () { return { wrapped: { ...this } } };",
        error: Some("toJSON"),
    },
    Hostile {
        name: "a toJSON of all objects that counts in the object and returns it",
        prelude: "Object.prototype.toJSON = function () { if ('n' in this) this.n += 100; return this };",
        handler: "state.n++;",
        error: Some("toJSON"),
    },
    Hostile {
        name: "a toJSON of all objects that counts in the object and removes itself",
        prelude: "Object.prototype.toJSON = function () {
            delete Object.prototype.toJSON; this.n += 100; return this };",
        handler: "state.n++;",
        error: None,
    },
    Hostile {
        name: "a toJSON of all arrays",
        prelude: "Array.prototype.toJSON = function () { return [...this, 'printed'] };",
        handler: "state.list.push(state.list.length);",
        error: Some("toJSON"),
    },
    Hostile {
        name: "a toJSON of all strings, numbers and booleans, which JSON does not call",
        prelude: "for (const { prototype } of [String, Number, Boolean]) prototype.toJSON = () => ({ wrapped: 1 });",
        handler: "state.n++; state.text = `${state.text ?? ''}x`; state.flag = true;",
        error: None,
    },
    Hostile {
        name: "a toJSON of all bigints",
        prelude: "BigInt.prototype.toJSON = function () { return `${this}0` };",
        handler: "state.n = BigInt(state.n);",
        error: Some("toJSON"),
    },
    Hostile {
        name: "a toJSON of a class that counts its calls",
        prelude: "let calls = 0; class Total { toJSON() { return ++calls } };",
        handler: "state.n = new Total();",
        error: Some("toJSON"),
    },
    Hostile {
        name: "a getter that counts its calls",
        prelude: "let calls = 0;",
        handler: "Object.defineProperty(state, 'n', { get: () => ++calls, enumerable: true, configurable: true });",
        error: Some("getter"),
    },
    Hostile {
        name: "a getter that changes another member",
        prelude: "",
        handler: "const seen = state.seen ?? 0;
            Object.defineProperty(state, 'n',
                { get() { this.seen = seen + 1; return 7 }, enumerable: true, configurable: true });",
        error: None,
    },
    Hostile {
        name: "a Proxy that counts the reads of a member",
        prelude: "let reads = 0;",
        handler: "return new Proxy({ n: 0 }, { get: (target, name) => name === 'n' ? ++reads : target[name] });",
        error: Some("getter"),
    },
    Hostile {
        name: "an array with a member besides its elements",
        prelude: "",
        handler: "state.list.push(state.list.extra ?? 'none'); state.list.extra = (state.list.extra ?? 0) + 1;",
        error: None,
    },
    Hostile {
        name: "a number object that counts its conversions",
        prelude: "let calls = 0;",
        handler: "state.before = typeof state.n;
            state.n = Object.assign(new Number(1), { [Symbol.toPrimitive]: () => ++calls });",
        error: None,
    },
    Hostile {
        name: "a number that only JSON.rawJSON prints",
        prelude: "",
        handler: "state.before = `${1 / state.n}`; state.n = JSON.rawJSON?.('-0') ?? 0; state.last = event.version;",
        error: None,
    },
];

impl Hostile {
    fn source(&self) -> String {
        let Self { prelude, handler, .. } = self;
        format!("{prelude} ({{ init: () => ({{ n: 0, list: [] }}), $any(state, event) {{ {handler} return state }} }})")
    }
}

/// Folds an aggregate from its first event to a version, without a snapshot. Returns the state, or why the reducer
/// failed.
async fn replayed(app: &TestApp, aggregate_type: &str, version: i32) -> Result<Value, String> {
    let reducer = app.app.primary.reducer(aggregate_type).await.expect("a read").expect("a reducer");
    let stream = StreamId::parse(aggregate_type.to_owned(), "1".to_owned()).expect("a stream");
    match replay(&app.app.reader(), &app.app.workers, &reducer, &stream, AsOf::Version(version)).await {
        Ok(folded) => Ok(serde_json::from_str(&folded.state).expect("JSON")),
        Err(FoldError::Failed(failure)) => Err(failure.reason),
        Err(error) => panic!("{aggregate_type} at version {version}: {error}"),
    }
}

/// Waits until a snapshot of this version is stored.
async fn wait_for_snapshot(app: &TestApp, aggregate_type: &str, version: i32) {
    within_a_minute(&format!("a snapshot of {aggregate_type} at version {version} is stored"), async {
        loop {
            let reply = app.get(&format!("/snapshots/{aggregate_type}/1")).send().await;
            if reply.status == 200 && reply.json()["version"] == version {
                return;
            }
            pause_between_polls().await;
        }
    })
    .await;
}

/// Appends events one by one. Before the next event, the snapshot that became due is stored, and the state that uses it
/// must equal a replay. Returns the errors with which the reducer failed.
async fn compare_every_version(app: &TestApp, aggregate_type: &str, every: i32, name: &str) -> Vec<String> {
    let (mut errors, mut snapshot) = (Vec::new(), Value::Null);
    for version in 1..=EVENTS {
        app.append(&format!("/streams/{aggregate_type}/1"), &["E"]).await;
        let expected = replayed(app, aggregate_type, version).await;
        if version % every == 0 && expected.is_ok() {
            wait_for_snapshot(app, aggregate_type, version).await;
            snapshot = json!(version);
        }
        let what = format!("{name}, interval {every}, version {version}");
        let folded = app.get(&format!("/aggregates/{aggregate_type}/1/state")).send().await;
        match expected {
            Ok(state) => {
                let folded = folded.expect_status(200).json();
                assert_eq!((&folded["state"], &folded["snapshot_version"]), (&state, &snapshot), "{what}");
            }
            Err(error) => {
                let failed = folded.expect_problem(422, "reducer_failed").to_string();
                assert!(failed.contains("the state: "), "{what}: {failed}");
                errors.push(error);
            }
        }
    }
    errors
}

#[tokio::test]
async fn a_state_that_prints_differently_each_time_is_refused_or_equals_a_replay_at_every_interval() {
    let app = TestApp::start().await;
    for (number, hostile) in HOSTILE.iter().enumerate() {
        for every in [1, 2, 3, 100] {
            let (name, aggregate_type) = (hostile.name, format!("Hostile-{number}-{every}"));
            let put = json!({"language": "javascript", "source": hostile.source(), "snapshot_every": every});
            let put = app.call("PUT", &format!("/reducers/{aggregate_type}")).json(&put).send().await;
            if put.status == 422 {
                // The state that `init` returns is refused already.
                let refused = put.expect_problem(422, "invalid_reducer").to_string();
                assert!(hostile.error.is_some_and(|error| refused.contains(error)), "{name}: {refused}");
                continue;
            }
            put.expect_status(201);
            let errors = compare_every_version(&app, &aggregate_type, every, name).await;
            match hostile.error {
                None => assert!(errors.is_empty(), "{name}, interval {every}: {errors:?}"),
                Some(part) => {
                    assert!(!errors.is_empty(), "{name}, interval {every}: the reducer must fail");
                    assert!(errors.iter().all(|error| error.contains(part)), "{name}, interval {every}: {errors:?}");
                }
            }
        }
    }
}

/// The engine that reaches a multiple of the interval prints the state there, and nothing prints it again. A second
/// print would add 100.
#[tokio::test]
async fn the_state_at_a_multiple_of_the_interval_is_printed_once() {
    let app = TestApp::start().await;
    let source = "Object.prototype.toJSON = function () { delete Object.prototype.toJSON; this.n += 100; return this };
        ({ init: () => ({ n: 0 }), $any(state) { state.n++; return state } })";
    let put = json!({"language": "javascript", "source": source, "snapshot_every": 2});
    app.call("PUT", "/reducers/Order").json(&put).send().await.expect_status(201);
    app.append("/streams/Order/1", &["E"; 5]).await;
    wait_for_snapshot(&app, "Order", 4).await;
    for (version, n) in [(1, 101), (2, 102), (3, 203), (4, 204), (5, 305)] {
        assert_eq!(replayed(&app, "Order", version).await.expect("a state"), json!({ "n": n }), "version {version}");
    }
    let state = app.get("/aggregates/Order/1/state").send().await.expect_status(200).json();
    assert_eq!((&state["state"], &state["snapshot_version"]), (&json!({"n": 305}), &json!(4)));
    let snapshot = app.get("/snapshots/Order/1").send().await.expect_status(200).json();
    assert_eq!(snapshot["state"], json!({"n": 204}));
}
