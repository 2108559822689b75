//! Promise P1, P10: what parses foreign bytes, with the checks of `fuzz/`: the inputs of each corpus, and random changes
//! of them. `scripts/fuzz` runs the same checks for longer, with inputs that libFuzzer finds by the code that they reach.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use fastrand::Rng;
use futures_util::FutureExt;
use sqlx::ConnectOptions;

use crate::support::TestApp;

#[path = "../../fuzz/checks/cursor.rs"]
mod cursor;
#[path = "../../fuzz/checks/headers.rs"]
mod headers;
#[path = "../../fuzz/checks/json.rs"]
mod json;
#[path = "../../fuzz/checks/json_in_postgres.rs"]
mod json_in_postgres;
#[path = "../../fuzz/checks/path.rs"]
mod path;
#[path = "../../fuzz/checks/request.rs"]
mod request;

/// The largest size of a changed input.
const INPUT_BYTES_MAX: usize = 4_096;

/// Returns the inputs of a corpus, and a number of random changes of them, always the same ones.
fn inputs(corpus: &str, changes: usize) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut inputs: Vec<_> = files.iter().map(|file| std::fs::read(file).expect("an input")).collect();
    assert!(!inputs.is_empty(), "{corpus} has no inputs");
    let mut random = Rng::with_seed(1);
    for _ in 0..changes {
        // A change may be changed again.
        let other = &inputs[random.usize(..inputs.len())];
        let changed = change(&inputs[random.usize(..inputs.len())], other, &mut random);
        inputs.push(changed);
    }
    inputs
}

/// Changes an input in one place, or joins its beginning to the end of another one.
fn change(input: &[u8], other: &[u8], random: &mut Rng) -> Vec<u8> {
    const SPECIAL: &[u8] = b"\0\t\n\r\"%&'*+,-./0123456789:;=?@[\\]{}~\x7f\x80\xc3\xff";
    let mut changed = input.to_vec();
    let at = random.usize(..=changed.len());
    match random.u8(..5) {
        0 => changed.insert(at, random.u8(..)),
        1 => changed.insert(at, SPECIAL[random.usize(..SPECIAL.len())]),
        2 => {
            let end = random.usize(at..=changed.len());
            changed.drain(at..end);
        }
        3 => {
            changed.truncate(at);
            changed.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        _ => {
            let end = random.usize(at..=changed.len());
            changed.extend_from_within(at..end);
        }
    }
    changed.truncate(INPUT_BYTES_MAX);
    changed
}

/// Runs a check on each input. If one fails, the test fails with the input.
fn check_all(corpus: &str, check: impl Fn(&[u8])) {
    for input in inputs(corpus, 20_000) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            eprintln!("the input is b\"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    }
}

#[test]
fn cursors_names_headers_and_json_hold_for_changed_inputs() {
    check_all("cursor", cursor::check);
    check_all("path", path::check);
    check_all("headers", headers::check);
    check_all("json", json::check);
}

#[tokio::test]
async fn the_validator_of_json_agrees_with_postgresql_on_changed_inputs() {
    let app = TestApp::start().await;
    let mut session = app.database.config().servers[0].connect().await.expect("a connection");
    for input in inputs("json_in_postgres", 3_000) {
        let checked = AssertUnwindSafe(json_in_postgres::check(&input, &mut session)).catch_unwind().await;
        if let Err(panic) = checked {
            eprintln!("the input is b\"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    }
}

#[tokio::test]
async fn the_service_answers_changed_requests() {
    let app = TestApp::start().await;
    let address: SocketAddr = app.base.trim_start_matches("http://").parse().expect("an address");
    // The check waits for the service, which this thread serves.
    let sending = tokio::task::spawn_blocking(move || {
        for input in inputs("request", 1_000) {
            if let Err(panic) = catch_unwind(|| request::check(&input, address)) {
                eprintln!("the input is b\"{}\"", input.escape_ascii());
                resume_unwind(panic);
            }
        }
    });
    sending.await.expect("every request gets an answer");
}
