//! No promise: random operations of workers and operators of a consumer group, against a model. Two processes serve the
//! group. `tests/it/support/group_model.rs` has the rules.
//!
//!     ANNALS_TEST_GROUP_HISTORIES=1000 cargo test --test it -- group_model --nocapture

use crate::support::group_model::{Model, run_scenarios};
use crate::support::{TestApp, TestDatabase, TestOptions, http_client};

/// The number of operations of a history.
const OPERATIONS: u32 = 150;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_operators_break_no_rule() {
    let one = TestApp::start_on(TestDatabase::create().await, TestOptions::default()).await;
    let other = TestApp::start_on(one.database.clone(), TestOptions::default()).await;
    let mut session = one.database.session().await;
    let bases = [one.base.clone(), other.base.clone()];
    let client = http_client().build().expect("a client");
    let first = setting("ANNALS_TEST_GROUP_SEED", 1);
    for seed in first..first + setting("ANNALS_TEST_GROUP_HISTORIES", 12) {
        let model = Model::start(bases.clone(), client.clone(), &mut session.0, seed).await;
        let broken = model.expect("the group is created").run(OPERATIONS).await;
        let broken = broken.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
    }
    let broken = run_scenarios(&bases, &client, &mut session.0).await.expect("the scenarios run");
    assert!(broken.is_empty(), "{broken:#?}");
}
