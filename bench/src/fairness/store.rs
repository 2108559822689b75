//! The store that the clients share: a filled log, keys, reducers, the aggregates of slow reducers, and a projection.

use annals::clock::Clock;
use annals::store::connection::config::ConnectOptions;
use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::args::BenchArgs;
use crate::fairness::connection::{Key, split_response};
use crate::fairness::sizes::Sizes;
use crate::import::import_events;
use crate::instance::{SERVICE_DATABASE, Server, ServerDatabase};
use crate::load;
use crate::load::{Client, EVENT_DATA};
use crate::scratch::Scratch;

/// The type of the events that fill the log, and of the events that the good client appends.
pub const GOOD_TYPE: &str = "GoodOrder";
/// A type with a fast reducer, whose states the good client reads.
pub const GOOD_STATE_TYPE: &str = "GoodState";
/// The number of aggregates of [`GOOD_STATE_TYPE`]: `agg-0` and so on, each with [`GOOD_SNAPSHOT_EVERY`] events.
pub const GOOD_STATES: u64 = 10;
/// A type with a fast reducer, which makes a snapshot every [`GOOD_SNAPSHOT_EVERY`] events.
pub const GOOD_SNAPSHOT_TYPE: &str = "GoodSnapshot";
/// The number of events between two snapshots of [`GOOD_SNAPSHOT_TYPE`].
pub const GOOD_SNAPSHOT_EVERY: usize = 10;
/// Two types with slow reducers. Each has half of the aggregates that the attack folds: `agg-0` and so on.
pub const SLOW_TYPES: [&str; 2] = ["BadSlow", "BadSlower"];
/// A type with a slow reducer, whose snapshots the attack makes due.
pub const SLOW_SNAPSHOT_TYPE: &str = "BadSnapshot";
/// A projection that never moves.
pub const STOPPED_PROJECTION: &str = "bad-stopped";

/// A reducer that counts events.
const FAST_SOURCE: &str = "({ init: () => ({ count: 0 }), $any(state) { state.count += 1; return state } })";
/// A reducer that needs about 20 ms of a processor for each event. A reducer fails at 100 ms, and a reducer that fails
/// would end the attack. So a processor of a fifth of the speed must still be fast enough.
const SLOW_SOURCE: &str = "({ init: () => ({ sum: 0 }), $any(state) { \
    for (let i = 0; i < 300000; i++) state.sum = (state.sum + i) % 1000003; return state } })";
/// More events than an aggregate of [`SLOW_TYPES`] has: a fold never begins with a snapshot.
const NO_SNAPSHOTS: usize = 10_000;

/// The keys of the clients.
#[derive(Clone)]
pub struct Keys {
    /// Reads and appends the types `Good*`.
    pub good: Key,
    /// Reads and appends the types `Bad*`.
    pub attacker: Key,
    /// Reads only a type that has no events.
    pub outsider: Key,
    pub admin: Key,
}

/// A database with everything that the clients need.
pub struct Store {
    scratch: Scratch,
    pub keys: Keys,
}

impl Store {
    /// Creates and fills the database.
    pub async fn create(args: &BenchArgs, other: &ConnectOptions, sizes: &Sizes) -> anyhow::Result<Self> {
        let scratch = Scratch::create(other.clone(), SERVICE_DATABASE).await?;
        let now = Clock::system().now();
        import_events(args, &scratch, GOOD_TYPE, args.events, |_| now).await?;
        let keys = create_keys(args, &scratch).await?;
        let store = Self { scratch, keys };
        let server = store.start_server(args).await?;
        store.prepare(args, &server.address, sizes).await?;
        server.stop()?;
        // Without this statement, autovacuum would run while requests are measured.
        store.scratch.run("VACUUM (ANALYZE)").await?;
        Ok(store)
    }

    /// Starts a server that requires keys.
    pub async fn start_server(&self, args: &BenchArgs) -> anyhow::Result<Server> {
        let options = self.scratch.options();
        Server::start_with(args, ServerDatabase::Url(&options), &[("ANNALS_AUTH", "keys")]).await
    }

    /// Drops the database.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.scratch.remove().await
    }

    /// Registers the reducers, and creates the aggregates and the projection.
    async fn prepare(&self, args: &BenchArgs, address: &str, sizes: &Sizes) -> anyhow::Result<()> {
        let Keys { good, attacker, admin, .. } = &self.keys;
        let mut client = Client::connect(address).await?;
        for (aggregate_type, source, snapshot_every) in [
            (GOOD_STATE_TYPE, FAST_SOURCE, NO_SNAPSHOTS),
            (GOOD_SNAPSHOT_TYPE, FAST_SOURCE, GOOD_SNAPSHOT_EVERY),
            (SLOW_TYPES[0], SLOW_SOURCE, NO_SNAPSHOTS),
            (SLOW_TYPES[1], SLOW_SOURCE, NO_SNAPSHOTS),
            (SLOW_SNAPSHOT_TYPE, SLOW_SOURCE, sizes.slow_events),
        ] {
            let reducer = json!({ "language": "javascript", "source": source, "snapshot_every": snapshot_every });
            client.expect(&admin.put(&format!("/reducers/{aggregate_type}"), &reducer.to_string()), 201).await?;
        }
        let events = load::append_body(GOOD_SNAPSHOT_EVERY, EVENT_DATA);
        for n in 0..GOOD_STATES {
            client.expect(&good.append(&format!("{GOOD_STATE_TYPE}/agg-{n}"), &events), 201).await?;
        }
        let events = load::append_body(sizes.slow_events, "{}");
        for n in 0..sizes.folds {
            client.expect(&attacker.append(&slow_aggregate(n), &events), 201).await?;
        }
        let projections = if args.without_project_scope { admin } else { attacker };
        let position = r#"{"last_processed_position":0}"#;
        client.expect(&projections.put(&format!("/projections/{STOPPED_PROJECTION}"), position), 201).await
    }

    /// Returns the position of the last event of the log.
    pub async fn head(&self, address: &str) -> anyhow::Result<u64> {
        let mut client = Client::connect(address).await?;
        let (status, response) = client.response(&self.keys.admin.get("/events?after=head&limit=1")).await?;
        anyhow::ensure!(status == 200, "GET /events has status {status}");
        let page: Value = serde_json::from_slice(split_response(response).1)?;
        page["head"].as_u64().context("a page of the log has no head")
    }
}

/// Returns the stream with number `n` of the aggregates with slow reducers.
pub fn slow_aggregate(n: usize) -> String {
    format!("{}/agg-{}", SLOW_TYPES[n % SLOW_TYPES.len()], n / SLOW_TYPES.len())
}

async fn create_keys(args: &BenchArgs, database: &Scratch) -> anyhow::Result<Keys> {
    let (mut good, mut attacker) = (vec!["read:Good*", "append:Good*"], vec!["read:Bad*", "append:Bad*"]);
    if !args.without_project_scope {
        good.push("project:good*");
        attacker.push("project:bad*");
    }
    Ok(Keys {
        good: create_key(args, database, "good", &good).await?,
        attacker: create_key(args, database, "attacker", &attacker).await?,
        outsider: create_key(args, database, "outsider", &["read:Nothing"]).await?,
        admin: create_key(args, database, "admin", &["admin:*"]).await?,
    })
}

/// Runs `annals keys create`.
async fn create_key(args: &BenchArgs, database: &Scratch, name: &str, grants: &[&str]) -> anyhow::Result<Key> {
    let mut command = ServerDatabase::Url(&database.options()).command(args, "keys")?;
    command.args(["create", "--name", name]);
    command.args(grants.iter().flat_map(|grant| ["--grant", *grant]));
    let output = tokio::process::Command::from(command).output().await?;
    if !output.status.success() {
        bail!(
            "annals keys create failed: {}. Use --without-project-scope if the program has no scope project",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(Key::new(String::from_utf8(output.stdout)?.trim_end().to_owned()))
}
