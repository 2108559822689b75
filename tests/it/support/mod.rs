//! The harness: a PostgreSQL for the whole run, a database and a service for each test, and a client that holds every
//! answer against the rules that all answers keep.

mod client;
mod postgres;
mod proxy;
mod sse;

pub use client::{Call, Reply};
pub use postgres::{Alone, Pair, Session, TestDatabase, copy};
pub use proxy::Proxy;
pub use sse::EventStream;

use std::sync::Arc;

use annals::app::{App, ClientLimits, Settings};
use annals::clock::Clock;
use annals::http;
use annals::shutdown::Shutdown;
use annals::store::database::DatabaseConfig;
use annals::store::migrate;
use annals::store::writer::QueueLimits;
use annals::subscriptions::FeedLimits;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// A service in this process, on a port of its own.
pub struct TestApp {
    pub app: Arc<App>,
    pub base: String,
    pub database: TestDatabase,
    client: reqwest::Client,
    served: JoinHandle<bool>,
}

/// What a test wants to be different.
#[derive(Clone)]
pub struct Wanted {
    pub clock: Clock,
    /// Where feeds and loads are read.
    pub replica: Option<DatabaseConfig>,
    pub settings: Settings,
}

impl Default for Wanted {
    fn default() -> Self {
        let settings = Settings {
            max_body_bytes: 1024 * 1024,
            snapshot_every: 100,
            queue: QueueLimits::default(),
            feed: FeedLimits::default(),
            clients: ClientLimits { stalled: std::time::Duration::from_secs(600), ..ClientLimits::default() },
            needs_keys: false,
            archive_after: None,
            program: env!("CARGO_BIN_EXE_annals").into(),
        };
        Self { clock: Clock::system(), replica: None, settings }
    }
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_as(Wanted::default()).await
    }

    pub async fn start_as(wanted: Wanted) -> Self {
        Self::start_on(TestDatabase::create().await, wanted).await
    }

    /// A service whose database time begins at `time` and stands still until the clock is set.
    pub async fn start_at(time: &str) -> (Self, Clock) {
        let clock = Clock::fixed(at(time));
        (Self::start_as(Wanted { clock: clock.clone(), ..Wanted::default() }).await, clock)
    }

    /// A service on a database that is there already: a second replica.
    pub async fn start_on(database: TestDatabase, wanted: Wanted) -> Self {
        Self::start_with(database.config(), database, wanted).await
    }

    /// A service that reaches its database in its own way, through a proxy for example.
    pub async fn start_with(config: DatabaseConfig, database: TestDatabase, wanted: Wanted) -> Self {
        let shutdown = Shutdown::new();
        let app = App::start(wanted.settings, &config, wanted.replica.as_ref(), wanted.clock, shutdown.clone())
            .await
            .expect("the service starts");
        let address = ([127, 0, 0, 1], 0).into();
        let serving = http::serve(app.clone(), address).await.expect("a free port");
        let base = format!("http://{}", serving.address);
        let served = tokio::spawn(async move { shutdown.finish(serving.run()).await });
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { app, base, database, client, served }
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        let method = method.parse().expect("a method");
        Call::new(self.client.request(method, format!("{}{path}", self.base)), path)
    }

    pub fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    /// Follows as an event stream.
    pub async fn follow(&self, path: &str) -> EventStream {
        EventStream::open(self.get(path)).await
    }

    pub fn post(&self, path: &str, body: &Value) -> Call {
        self.call("POST", path).json(body)
    }

    /// Appends events of these types to a stream at any version; the version that it has then.
    pub async fn append(&self, path: &str, event_types: &[&str]) -> u64 {
        let reply = self.post(path, &events(event_types)).send().await.expect_status(201);
        reply.json()["version"].as_u64().expect("a version")
    }

    /// The value of a metric's series, as `/metrics` shows it.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").send().await.expect_status(200).text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}")).parse().expect("a number")
    }

    /// Makes requests meet in one batch: a first append waits for the append lock, which somebody else holds; then the
    /// requests are sent. When `count` of them are in the queue, `meanwhile` happens, and the lock is given back.
    pub async fn meet<T, U>(
        &self,
        requests: impl Future<Output = T>,
        count: usize,
        meanwhile: impl Future<Output = U>,
    ) -> (T, U) {
        let (mut holder, mut watcher) = (self.database.session().await, self.database.session().await);
        holder.hold_append_lock().await;
        let blocked = tokio::sync::Notify::new();
        let first = self.post("/streams/Order/first", &events(&["A"])).send();
        let queued = async {
            blocked.notified().await;
            requests.await
        };
        let release = async {
            watcher.wait_for_appends_to_queue(1).await;
            blocked.notify_one();
            self.wait_for_queue_length(count).await;
            let happened = meanwhile.await;
            holder.end().await;
            happened
        };
        let (first, answers, happened) = tokio::join!(first, queued, release);
        first.expect_status(201);
        (answers, happened)
    }

    /// Waits until so many requests are in the append queue.
    async fn wait_for_queue_length(&self, length: usize) {
        let queued = async {
            while self.app.writer.queue_length() < length {
                tokio::task::yield_now().await;
            }
        };
        within_a_minute("requests queue", queued).await;
    }

    /// Begins a shutdown and waits for its end; whether it was orderly.
    pub async fn stop(self) -> bool {
        self.app.shutdown.begin();
        self.served.await.expect("the server ends")
    }
}

/// Fails a test whose condition never comes, instead of letting it hang; nothing depends on how fast it comes.
pub async fn within_a_minute<T>(what: &str, condition: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, condition).await.unwrap_or_else(|_| panic!("not within a minute: {what}"))
}

/// A request body with events of these types.
pub fn events(event_types: &[&str]) -> Value {
    let events: Vec<_> =
        event_types.iter().map(|event_type| json!({"event_type": event_type, "event_data": {"n": 1}})).collect();
    json!({ "events": events })
}

/// A request body with one event that has an id.
pub fn event_with_id(event_id: &str) -> Value {
    json!({"events": [{"event_id": event_id, "event_type": "Happened", "event_data": {"n": 1}}]})
}

pub fn at(time: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(time).expect("a time").to_utc()
}

/// A UUID that a reader of a failed test recognises.
pub fn id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// The schema that every test's database begins with.
pub async fn migrated(config: &DatabaseConfig) {
    migrate::migrate(config).await.expect("the schema is made");
}
