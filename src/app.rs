//! The parts of a running process, which handlers share. [`crate::startup`] builds them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::{NoContext, Timestamp, Uuid};

use crate::append::service::AppendParts;
use crate::clock::Clock;
use crate::domain::derived_id::DerivedIds;
use crate::erasures::service::Erasures;
use crate::groups::service::Groups;
use crate::jobs::projection_history::ProjectionHistory;
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::reducers::javascript::workers::Workers;
use crate::reducers::snapshotter::Snapshotter;
use crate::shares::limit::FairLimit;
use crate::shutdown::Shutdown;
use crate::store::append::queue::{AppendQueue, QueueLimits};
use crate::store::primary::Primary;
use crate::store::reader::Reader;
use crate::store::readers::Readers;
use crate::subscriptions::feed::{Feed, FeedLimits};
use crate::subscriptions::projection_wait::AwaitedProjections;
use crate::wire::path::BasePath;

/// Runtime settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The number of events between two snapshots.
    pub snapshot_every: u32,
    pub queue: QueueLimits,
    pub feed: FeedLimits,
    pub clients: ClientLimits,
    /// Whether requests need API keys.
    pub needs_keys: bool,
    /// The names, in lower case, that a request may have as its host if requests need no API keys. `localhost` and IP
    /// addresses are allowed in any case.
    pub hosts: Vec<String>,
    /// The path below which clients see the service.
    pub base_path: BasePath,
    /// Whether the header `X-Forwarded-Prefix` of a request replaces the base path.
    pub trusts_forwarded_prefix: bool,
    /// Whether the service has the web console, `/console/`.
    pub has_console: bool,
    /// The origins whose pages may call the service from a browser.
    pub cors_origins: CorsOrigins,
    /// The time after the end of its month at which a partition is archived; `None`: never.
    pub archive_after: Option<Duration>,
    /// The time after an erasure at which its content is removed from the files of tables and of the archive.
    pub erase_rewrite_every: Duration,
    /// The annals binary. It is started again as a worker process, which runs the reducers in JavaScript.
    pub program: PathBuf,
}

impl Settings {
    /// Returns the value of `ANNALS_AUTH`: `keys` or `none`.
    pub fn auth_name(&self) -> &'static str {
        if self.needs_keys { "keys" } else { "none" }
    }
}

/// Origins (RFC 6454) whose pages may call the service from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    /// None: browsers refuse the responses to pages of other origins.
    #[default]
    None,
    Any,
    /// Like `https://app.example.com`, without a path.
    List(Vec<String>),
}

/// Time limits for clients, and the limit of their number. Each time is shorter than the soft stage of a shutdown.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// The time for the head of a request, and the longest idle time of a connection between two requests.
    pub head: Duration,
    /// The time for the body of a request.
    pub body: Duration,
    /// A connection is closed when its client reads nothing of a response for this time.
    pub stalled: Duration,
    /// The largest number of open connections.
    pub connections: usize,
    /// The largest number of requests in progress, which clients share: one client leaves as many for the others.
    pub requests_in_progress: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(15),
            body: Duration::from_secs(15),
            stalled: Duration::from_secs(15),
            connections: 10_000,
            requests_in_progress: 10_000,
        }
    }
}

/// The parts of a running process.
pub struct App {
    pub settings: Settings,
    pub primary: Arc<Primary>,
    /// The databases for feeds and loads.
    pub readers: Arc<Readers>,
    /// The requests that are handled at the same time, which clients share.
    pub requests_in_progress: Arc<FairLimit>,
    pub append_queue: AppendQueue,
    pub feed: Arc<Feed>,
    pub awaited_projections: Arc<AwaitedProjections>,
    pub groups: Arc<Groups>,
    pub erasures: Arc<Erasures>,
    pub projection_history: Arc<ProjectionHistory>,
    pub workers: Arc<Workers>,
    pub snapshotter: Arc<Snapshotter>,
    pub keyring: Arc<Keyring>,
    pub derived_ids: DerivedIds,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub started_at: DateTime<Utc>,
    pub shutdown: Shutdown,
}

impl App {
    /// Returns the database for feeds and loads: the read replica while it is available, and else the primary.
    pub fn reader(&self) -> Arc<Reader> {
        self.readers.current()
    }

    /// Returns the parts that an append uses.
    pub fn append(&self) -> AppendParts<'_> {
        AppendParts {
            queue: &self.append_queue,
            metrics: &self.metrics,
            snapshotter: &self.snapshotter,
            snapshot_every: self.settings.snapshot_every,
        }
    }

    /// Generates the id of an event that was sent without one.
    pub fn new_event_id(&self) -> Uuid {
        event_id_at(self.clock.now())
    }
}

/// Generates an event id, a UUIDv7. It sorts by time, so that inserts touch the index pages that are already in memory.
pub fn event_id_at(time: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, time.timestamp_subsec_nanos()))
}
