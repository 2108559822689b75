//! The attacks: clients of other keys that take as much of the service as it gives them.
//!
//! A client of an attack that is refused retries after a pause, because a client that does not pause attacks only the
//! processors.

use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::args::Attack;
use crate::fairness::connection::Connection;
use crate::fairness::event_stream::EventStream;
use crate::fairness::samples::Outcomes;
use crate::fairness::sizes::Sizes;
use crate::fairness::store::{Keys, SLOW_SNAPSHOT_TYPE, STOPPED_PROJECTION, slow_aggregate};
use crate::load;
use crate::load::RequestCounter;

/// The time from making snapshots due to making the next ones due.
const SNAPSHOTS_PAUSE: Duration = Duration::from_secs(5);
/// The outcome of a request that was in progress when the attack was stopped.
const IN_PROGRESS: &str = "in progress at the end";

/// An attack on a server.
pub struct AttackPlan {
    pub attack: Attack,
    pub sizes: Sizes,
    pub address: String,
    pub keys: Keys,
    /// The position of the last event of the log.
    pub head: u64,
    /// The pause of a client after a refused request.
    pub refused_pause: Duration,
    /// Numbers the new streams of all attacks.
    pub counter: RequestCounter,
}

/// An attack that runs on a thread of its own until it is stopped or dropped.
pub struct RunningAttack {
    guard: DropGuard,
    task: JoinHandle<anyhow::Result<Outcomes>>,
}

impl RunningAttack {
    /// Starts an attack. Returns when all its event streams are open, or all its clients are about to send a request.
    pub async fn start(plan: AttackPlan) -> anyhow::Result<Self> {
        let until = CancellationToken::new();
        let guard = until.clone().drop_guard();
        let (begun, has_begun) = oneshot::channel();
        let task = tokio::spawn(load::on_own_thread(plan.run(until, begun)));
        has_begun.await.context("an attack ended before it had begun")?;
        Ok(Self { guard, task })
    }

    /// Stops the attack. Returns the outcomes of its requests.
    pub async fn stop(self) -> anyhow::Result<Outcomes> {
        self.guard.disarm().cancel();
        self.task.await?
    }
}

impl AttackPlan {
    async fn run(self, until: CancellationToken, begun: oneshot::Sender<()>) -> anyhow::Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        let mut clients = JoinSet::new();
        match self.attack {
            Attack::Streams => outcomes = self.open_event_streams(&mut clients, &until).await,
            Attack::Snapshots => {
                clients.spawn(self.make_snapshots_due(until));
            }
            Attack::Reducers | Attack::Scans | Attack::Waiters | Attack::Appends => {
                for request in self.requests() {
                    clients.spawn(repeat(Connection::new(&self.address), request, self.refused_pause, until.clone()));
                }
            }
        }
        // Nothing waits for this message if the measurement was interrupted. Then the attack is cancelled as well.
        let _ = begun.send(());
        while let Some(of_client) = clients.join_next().await {
            outcomes.merge(of_client?);
        }
        Ok(outcomes)
    }

    /// Returns the request that each client repeats.
    fn requests(&self) -> Vec<String> {
        let Self { sizes, keys, head, .. } = self;
        match self.attack {
            Attack::Streams | Attack::Snapshots => Vec::new(),
            Attack::Reducers => {
                let state = |n: usize| keys.attacker.get(&format!("/aggregates/{}/state", slow_aggregate(n)));
                (0..sizes.folds).map(state).collect()
            }
            Attack::Scans => {
                let filters = ["", "&event_type=OrderPlaced"];
                let page =
                    |n: usize| keys.outsider.get(&format!("/events?after=0&limit=1000{}", filters[n % filters.len()]));
                (0..sizes.scans).map(page).collect()
            }
            Attack::Waiters => {
                let target = format!("/projections/{STOPPED_PROJECTION}?wait_for={head}&timeout=60");
                vec![keys.attacker.get(&target); sizes.waiters]
            }
            Attack::Appends => {
                let body = large_body();
                (0..sizes.large_appends).map(|n| keys.attacker.append(&format!("BadLarge/agg-{n}"), &body)).collect()
            }
        }
    }

    /// Opens event streams until the service refuses one. They stay open until the attack is stopped.
    async fn open_event_streams(&self, clients: &mut JoinSet<Outcomes>, until: &CancellationToken) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for _ in 0..self.sizes.event_streams {
            match EventStream::open(&self.address, &self.keys.attacker).await {
                Ok(event_stream) => {
                    outcomes.add("200".to_owned());
                    let until = until.clone();
                    clients.spawn(async move {
                        let mut ended = Outcomes::default();
                        if until.run_until_cancelled(event_stream.discard()).await.is_some() {
                            ended.add("event stream ended".to_owned());
                        }
                        ended
                    });
                }
                Err(refusal) => {
                    outcomes.add(refusal);
                    break;
                }
            }
        }
        outcomes
    }

    /// Appends to new streams of a type with a slow reducer, so that a snapshot of each is due.
    async fn make_snapshots_due(self, until: CancellationToken) -> Outcomes {
        let body = load::append_body(self.sizes.slow_events, "{}");
        let mut connection = Connection::new(&self.address);
        let mut outcomes = Outcomes::default();
        let attack = async {
            loop {
                for _ in 0..self.sizes.snapshots {
                    let stream = format!("{SLOW_SNAPSHOT_TYPE}/agg-{}", self.counter.next());
                    let reply = connection.exchange(&self.keys.attacker.append(&stream, &body)).await;
                    outcomes.add(reply.outcome);
                }
                tokio::time::sleep(SNAPSHOTS_PAUSE).await;
            }
        };
        // The attack has no end of its own.
        until.run_until_cancelled(attack).await;
        outcomes
    }
}

/// Sends a request again and again.
async fn repeat(
    mut connection: Connection,
    request: String,
    refused_pause: Duration,
    until: CancellationToken,
) -> Outcomes {
    let mut outcomes = Outcomes::default();
    while !until.is_cancelled() {
        let Some(reply) = until.run_until_cancelled(connection.exchange(&request)).await else {
            outcomes.add(IN_PROGRESS.to_owned());
            break;
        };
        let is_refusal = reply.is_refusal();
        outcomes.add(reply.outcome);
        if is_refusal {
            until.run_until_cancelled(tokio::time::sleep(refused_pause)).await;
        }
    }
    outcomes
}

/// Returns the body of an append of one event of about a megabyte, just below the largest body that the service accepts
/// by default. Its many small values are expensive for PostgreSQL.
fn large_body() -> String {
    const BYTES: usize = 1_000_000;
    let mut lines = Vec::new();
    let mut bytes = 0;
    while bytes < BYTES {
        let n = lines.len();
        let line = format!(r#"{{"sku":"A-{n:06}","quantity":{},"price":{}.99}}"#, n % 10, n % 1_000);
        bytes += line.len() + 1;
        lines.push(line);
    }
    load::append_body(1, &format!("[{}]", lines.join(",")))
}
