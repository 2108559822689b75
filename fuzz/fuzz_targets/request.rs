//! See `checks/request.rs`.
#![no_main]

#[path = "../checks/request.rs"]
mod check;

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use annals::wire::path::BasePath;
use annals::app::{ClientLimits, CorsOrigins, Settings};
use annals::clock::Clock;
use annals::http::server::Server;
use annals::shutdown::Shutdown;
use annals::startup;
use annals::store::admin::migrate;
use annals::store::append::queue::QueueLimits;
use annals::store::connection::config::{ConnectOptions, DatabaseConfig};
use annals::subscriptions::feed::FeedLimits;
use annals_fuzz::RUNTIME;
use libfuzzer_sys::fuzz_target;

static SERVICE: LazyLock<SocketAddr> = LazyLock::new(|| {
    // PostgreSQL is started first: its start uses the same runtime, and `block_on` cannot be nested.
    let options = annals_fuzz::postgres().options();
    RUNTIME.block_on(start(options))
});

async fn start(options: ConnectOptions) -> SocketAddr {
    let database = DatabaseConfig {
        servers: vec![options],
        max_connections: 10,
        idle_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        archive: None,
    };
    let settings = Settings {
        max_body_bytes: 1024 * 1024,
        snapshot_every: 5,
        queue: QueueLimits::default(),
        feed: FeedLimits::default(),
        clients: ClientLimits::default(),
        needs_keys: false,
        hosts: Vec::new(),
        cors_origins: CorsOrigins::None,
        archive_after: None,
        erase_rewrite_every: Duration::from_secs(24 * 3600),
        base_path: BasePath::default(),
        trusts_forwarded_prefix: false,
        has_console: true,
        program: "annals".into(),
    };
    migrate::migrate(&database).await.expect("the schema is created");
    let shutdown = Shutdown::new();
    let prepared = startup::prepare(&database, Clock::system()).await.expect("the database is prepared");
    let app = startup::start(settings, prepared, None, shutdown.clone()).await;
    let app = app.expect("the service starts");
    let server = Server::bind(app, ([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let address = server.address;
    tokio::spawn(async move { shutdown.finish(server.run()).await });
    address
}

fuzz_target!(|data: &[u8]| check::check(data, *SERVICE));
