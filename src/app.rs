//! What a running process is made of; built in one place, by `serve` and by the tests alike.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::{NoContext, Timestamp, Uuid};

use crate::clock::Clock;
use crate::http::wire::write_event;
use crate::jobs;
use crate::keyring::Keyring;
use crate::reducers::javascript::Workers;
use crate::reducers::snapshotter::Snapshotter;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::store::database::DatabaseConfig;
use crate::store::error::StoreError;
use crate::store::writer::{QueueLimits, Writer};
use crate::subscriptions::{Feed, FeedLimits, tailer};
use crate::telemetry::metrics::Metrics;

/// Settings of the service that requests meet.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Events between two snapshots.
    pub snapshot_every: u32,
    pub queue: QueueLimits,
    pub feed: FeedLimits,
    pub clients: ClientLimits,
    /// Whether requests need API keys.
    pub needs_keys: bool,
    /// Months that are over for so long are archived; `None`: none is.
    pub archive_after: Option<Duration>,
    /// The annals binary, which folds in JavaScript as a process of its own.
    pub program: PathBuf,
}

/// How long clients may take, and how many there may be. Each time is shorter than the soft stage of a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// Time for the head of a request; a connection rests so long between two, too.
    pub head: Duration,
    /// Time for the body of a request.
    pub body: Duration,
    /// A client that takes nothing of its answer for so long is given up.
    pub stalled: Duration,
    /// Connections at the same time.
    pub connections: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            body: Duration::from_secs(15),
            stalled: Duration::from_secs(15),
            connections: 10_000,
        }
    }
}

/// Everything that handlers and jobs share.
pub struct App {
    pub settings: Settings,
    pub store: Arc<Store>,
    /// Where feeds and loads are read: a read replica, or the same.
    pub reads: Arc<Store>,
    pub writer: Writer,
    pub feed: Arc<Feed>,
    pub workers: Arc<Workers>,
    pub snapshotter: Arc<Snapshotter>,
    pub keyring: Keyring,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub shutdown: Shutdown,
}

impl App {
    /// Opens the database, whose schema is up to date, and starts the writer, the tailer and the other tasks.
    pub async fn start(
        settings: Settings,
        database: &DatabaseConfig,
        replica: Option<&DatabaseConfig>,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, StoreError> {
        let metrics = Arc::new(Metrics::new());
        let store = Store::open(database, clock.clone(), metrics.clone()).await?;
        store.keep_months().await?;
        store.check_archive().await?;
        let reads = match replica {
            Some(replica) => Store::open_replica(replica, clock.clone(), metrics.clone()).await?,
            None => store.clone(),
        };
        let (writer, writing) = Writer::start(store.clone(), settings.queue, shutdown.soft());
        shutdown.track(writing);
        let feed = Feed::new(store.clone(), reads.clone(), settings.feed, write_event, shutdown.soft());
        shutdown.track(tailer::run(feed.clone()));
        let workers = Workers::new(settings.program.clone(), write_event);
        let (snapshotter, snapshotting) =
            Snapshotter::start(store.clone(), workers.clone(), metrics.clone(), shutdown.soft()).await?;
        shutdown.track(snapshotting);
        let keyring = Keyring::default();
        let app = Arc::new(Self {
            settings,
            store,
            reads,
            writer,
            feed,
            workers,
            snapshotter,
            keyring,
            metrics,
            clock,
            shutdown,
        });
        app.shutdown.track(jobs::maintenance::run(app.clone()));
        app.shutdown.track(jobs::refresh::run(app.clone()));
        if app.settings.needs_keys {
            app.shutdown.track(jobs::refresh::keys(app.clone()));
        }
        app.shutdown.track(jobs::statistics::run(app.clone()));
        Ok(app)
    }

    /// For an event that came without one.
    pub fn new_event_id(&self) -> Uuid {
        event_id_at(self.clock.now())
    }
}

/// A new event id: UUIDv7, which sorts by time and so keeps index pages warm.
pub fn event_id_at(time: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, time.timestamp_subsec_nanos()))
}
