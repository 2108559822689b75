//! Other systems whose workers share the events of many streams and keep the order of each stream: NATS JetStream, pgmq
//! and message-db. They process the same events as the workers of a group, one after the other in the same round.
//!
//! `scripts/get-rivals` fetches their programs. The benchmark uses each system as its documentation says, in the fastest
//! way that preserves the order of each stream:
//!
//! - NATS JetStream: 16 subjects, each with a consumer that has at most one unacknowledged message. A worker for each
//!   consumer acknowledges a message and requests the next one at once (`+NXT`). Files are synced every two minutes, which
//!   is the default.
//! - pgmq: `read_grouped_head` returns the first message of up to 100 streams, and the worker deletes them.
//! - message-db: a consumer group with 16 members. A worker reads the messages of two members in turn, and records the
//!   position of a member after each batch.

mod nats;
mod sql;

use std::path::Path;
use std::time::{Duration, Instant};

use annals::store::connection::config::ConnectOptions;

use crate::args::BenchArgs;
use crate::rivals::nats::NatsServer;
use crate::rivals::sql::{MessageDb, Pgmq};

/// The systems, each with all events.
pub struct Rivals {
    nats: NatsServer,
    pgmq: Pgmq,
    message_db: MessageDb,
    time: Duration,
}

/// The rates of each system, one for each round.
#[derive(Default)]
pub struct Rates {
    pub nats: Vec<f64>,
    pub pgmq: Vec<f64>,
    pub message_db: Vec<f64>,
}

impl Rivals {
    /// Starts the systems, and fills them. `folder` is that of `scripts/get-rivals`.
    pub async fn start(args: &BenchArgs, folder: &Path, other: &ConnectOptions) -> anyhow::Result<Self> {
        Ok(Self {
            nats: NatsServer::start(&folder.join("nats-server"), args.events).await?,
            pgmq: Pgmq::create(other, &folder.join("pgmq.sql"), args.events).await?,
            message_db: MessageDb::create(other, &folder.join("message-db.sql"), args.events).await?,
            time: Duration::from_secs(args.seconds),
        })
    }

    /// Measures each system once, until nothing is left or the time is up.
    pub async fn measure(&mut self, workers: usize, rates: &mut Rates) -> anyhow::Result<()> {
        rates.nats.push(self.nats.catch_up(self.time).await?);
        rates.pgmq.push(self.pgmq.catch_up(workers, self.time).await?);
        rates.message_db.push(self.message_db.catch_up(workers, self.time).await?);
        Ok(())
    }

    /// Removes the databases, and stops the server.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.pgmq.remove().await?;
        self.message_db.remove().await
    }
}

/// Returns the number of events per second since `started`.
fn per_second(events: u64, started: Instant) -> f64 {
    events as f64 / started.elapsed().as_secs_f64()
}
