//! No promise: the harness. One PostgreSQL serves the whole run, each test has a database and a service of its own, and
//! a client checks the rules that every response obeys.

mod append_call;
mod client;
pub mod erasure_model;
pub mod group_model;
mod http_client;
pub mod imports;
mod logged_service;
pub mod markdown;
mod postgres;
mod proxy;
mod raw;
pub mod sources;
mod sse;

pub use append_call::{AppendCall, Cache, Procedure, sqlstate};
pub use client::{Call, Reply};
pub use http_client::http_client;
pub use logged_service::LoggedService;
pub use postgres::{DedicatedServer, ReplicationPair, Session, TestDatabase, copy_files};
pub use proxy::Proxy;
pub use raw::{connect, parse_response, send_raw};
pub use sse::EventStream;

use std::sync::Arc;

use annals::app::{App, ClientLimits, CorsOrigins, Settings};
use annals::clock::Clock;
use annals::http::server::{Server, bind};
use annals::shutdown::Shutdown;
use annals::startup;
use annals::store::admin::migrate;
use annals::store::append::queue::QueueLimits;
use annals::store::connection::config::DatabaseConfig;
use annals::store::partitions::archiver::{Archiver, ArchivingError};
use annals::subscriptions::feed::FeedLimits;
use annals::wire::path::BasePath;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Executor};
use tokio::task::JoinHandle;

/// A service in this process, on a free port.
pub struct TestApp {
    pub app: Arc<App>,
    pub base: String,
    /// The URL of the admin address, if the service has one.
    pub admin_base: Option<String>,
    pub database: TestDatabase,
    client: reqwest::Client,
    served: JoinHandle<bool>,
}

/// The options of a service that a test starts.
#[derive(Clone)]
pub struct TestOptions {
    pub clock: Clock,
    /// The read replica; `None`: the primary serves all reads.
    pub replica: Option<DatabaseConfig>,
    pub settings: Settings,
    pub has_admin_address: bool,
}

impl Default for TestOptions {
    fn default() -> Self {
        let settings = Settings {
            max_body_bytes: 1024 * 1024,
            snapshot_every: 100,
            queue: QueueLimits::default(),
            feed: FeedLimits::default(),
            clients: ClientLimits { stalled: std::time::Duration::from_secs(600), ..ClientLimits::default() },
            needs_keys: false,
            hosts: Vec::new(),
            base_path: BasePath::default(),
            trusts_forwarded_prefix: false,
            has_console: true,
            cors_origins: CorsOrigins::None,
            archive_after: None,
            erase_rewrite_every: std::time::Duration::from_secs(24 * 3600),
            program: env!("CARGO_BIN_EXE_annals").into(),
        };
        Self { clock: Clock::system(), replica: None, settings, has_admin_address: false }
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_with(TestOptions::default()).await
    }

    pub async fn start_with(options: TestOptions) -> Self {
        Self::start_on(TestDatabase::create().await, options).await
    }

    /// Starts a service whose clock shows `time` until the test sets the clock.
    pub async fn start_at(time: &str) -> (Self, Clock) {
        let clock = Clock::fixed(at(time));
        (Self::start_with(TestOptions { clock: clock.clone(), ..TestOptions::default() }).await, clock)
    }

    /// Starts a service on an existing database, as another replica of the service.
    pub async fn start_on(database: TestDatabase, options: TestOptions) -> Self {
        Self::start_with_config(database.config(), database, options).await
    }

    /// Starts a service that connects to its database with `config`, for example through a proxy.
    pub async fn start_with_config(config: DatabaseConfig, database: TestDatabase, options: TestOptions) -> Self {
        let shutdown = Shutdown::new();
        let prepared = startup::prepare(&config, options.clock).await.expect("the database is prepared");
        let app = startup::start(options.settings, prepared, options.replica.as_ref(), shutdown.clone())
            .await
            .expect("the service starts");
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Server::on(app.clone(), bind(address).expect("a free port")).expect("a server");
        let base = format!("http://{}", server.address);
        let admin_base = if options.has_admin_address {
            Some(format!("http://{}", server.serve_admin_on(bind(address).expect("a free port")).expect("a server")))
        } else {
            None
        };
        let served = tokio::spawn(async move { shutdown.finish(server.run()).await });
        let client = http_client().build().expect("a client");
        Self { app, base, admin_base, database, client, served }
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        let method = method.parse().expect("a method");
        Call::new(self.client.request(method, format!("{}{path}", self.base)), path)
    }

    pub fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    /// Calls the admin address.
    pub fn call_admin(&self, method: &str, path: &str) -> Call {
        let method = method.parse().expect("a method");
        let base = self.admin_base.as_ref().expect("the service has an admin address");
        Call::new(self.client.request(method, format!("{base}{path}")), path)
    }

    /// Opens an event stream.
    pub async fn subscribe(&self, path: &str) -> EventStream {
        EventStream::open(self.get(path)).await
    }

    pub fn post(&self, path: &str, body: &Value) -> Call {
        self.call("POST", path).json(body)
    }

    /// Appends events of these types to a stream, at any version. Returns the new version of the stream.
    pub async fn append(&self, path: &str, event_types: &[&str]) -> u64 {
        let reply = self.post(path, &events(event_types)).send().await.expect_status(201);
        reply.json()["version"].as_u64().expect("a version")
    }

    /// Returns an archiver, as soon as no background task of a service archives.
    pub async fn archiver(&self) -> Archiver {
        let archiver = async {
            loop {
                match self.app.primary.archiver().await {
                    Err(ArchivingError::Busy) => pause_between_polls().await,
                    archiver => return archiver.expect("an archiver"),
                }
            }
        };
        within_a_minute("no other archiver runs", archiver).await
    }

    /// Returns the value of a metric's series in `/metrics`.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").send().await.expect_status(200).text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().expect("a number")
    }

    /// Queues requests in the writer, so that one batch contains all of them. A session holds the append lock, and a
    /// first append waits for it. Then the requests are sent. When `count` of them are in the queue, `meanwhile` runs,
    /// and the lock is released.
    pub async fn queue_behind_append_lock<T, U>(
        &self,
        requests: impl Future<Output = T>,
        count: usize,
        meanwhile: impl Future<Output = U>,
    ) -> (T, U) {
        let (mut holder, mut observer) = (self.database.session().await, self.database.session().await);
        holder.hold_append_lock().await;
        let blocked = tokio::sync::Notify::new();
        let first = self.post("/streams/Order/first", &events(&["A"])).send();
        let queued = async {
            blocked.notified().await;
            requests.await
        };
        let release = async {
            observer.wait_for_blocked_appends(1).await;
            blocked.notify_one();
            self.wait_for_queue_length(count).await;
            let returned = meanwhile.await;
            holder.rollback().await;
            returned
        };
        let (first, replies, returned) = tokio::join!(first, queued, release);
        first.expect_status(201);
        (replies, returned)
    }

    /// Waits until the append queue has at least `length` requests.
    pub async fn wait_for_queue_length(&self, length: usize) {
        let queued = async {
            while self.app.append_queue.length() < length {
                pause_between_polls().await;
            }
        };
        within_a_minute(&format!("the queue has {length} requests"), queued).await;
    }

    /// Waits until `event_streams` event streams and `long_polls` long polls are open.
    pub async fn wait_for_subscribers(&self, event_streams: usize, long_polls: usize) {
        let opened = async {
            while self.app.feed.subscribers() != (event_streams, long_polls) {
                pause_between_polls().await;
            }
        };
        within_a_minute(&format!("{event_streams} event streams and {long_polls} long polls are open"), opened).await;
    }

    /// Begins a shutdown, and waits until the server has ended. Returns whether the shutdown was orderly.
    pub async fn stop(self) -> bool {
        self.app.shutdown.begin();
        self.served.await.expect("the server ends")
    }
}

/// Pauses before a test polls again. Without it, the test would take the processor from the task that it waits for. No
/// test depends on the length of the pause.
pub async fn pause_between_polls() {
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
}

/// Waits for a condition. Fails the test if the condition is not met within a minute, so that no test hangs. No test
/// depends on the time until then.
pub async fn within_a_minute<T>(what: &str, condition: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, condition)
        .await
        .unwrap_or_else(|_| panic!("this did not happen within a minute: {what}"))
}

/// Returns a request body with events of these types.
pub fn events(event_types: &[&str]) -> Value {
    let events: Vec<_> =
        event_types.iter().map(|event_type| json!({"event_type": event_type, "event_data": {"n": 1}})).collect();
    json!({ "events": events })
}

/// Returns a request body with one event that has an id.
pub fn event_with_id(event_id: &str) -> Value {
    json!({"events": [{"event_id": event_id, "event_type": "Happened", "event_data": {"n": 1}}]})
}

pub fn at(time: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(time).expect("a time").to_utc()
}

/// Returns a UUID that is easy to recognise in the message of a failed test.
pub fn id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// Creates the schema. The first epoch is 1, and not a number of its own, so that tests can write cursors down.
pub async fn migrate_schema(config: &DatabaseConfig) {
    migrate::migrate(config).await.expect("the schema is created");
    let mut connection = config.servers[0].connect().await.expect("a connection");
    connection.execute("UPDATE epochs SET epoch = 1").await.expect("the epoch is set");
}
