//! `annals serve`: the database, the schema, the service, and the shutdown.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::app::Settings;
use crate::cli::database::Database;
use crate::cli::file_limit::connections_within_limit;
use crate::clock::Clock;
use crate::config::serve::ServeArgs;
use crate::http::server::{ADMIN_CONNECTIONS, SPARE_CONNECTIONS, Server, bind};
use crate::http::starting::StartingServer;
use crate::shutdown::Shutdown;
use crate::startup::{self, PreparedDatabase};
use crate::store::admin::migrate::{self, SchemaError};
use crate::store::connection::config::DatabaseConfig;
use crate::store::error::StoreError;

/// The longest wait for connections that are still in use at the shutdown, for example because a host is gone.
const CLOSING_MAX: Duration = Duration::from_secs(5);
/// The pause between two attempts to reach the database at the start.
const START_PAUSE: Duration = Duration::from_millis(500);
/// The time limit of an attempt to begin the epoch, and to create and seal the partitions. What is not done by then
/// continues with the next attempt.
const PREPARE_MAX: Duration = Duration::from_secs(60);

/// Runs `annals serve` until shutdown.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let mut settings = args.settings()?;
    let connections = connections_within_limit(settings.clients.connections, reserved_connections(&args))?;
    settings.clients.connections = connections;
    settings.clients.requests_in_progress = connections;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    // An address that is in use is reported before a cluster and a schema are created.
    let sockets = Sockets::bind(&args)?;
    let starting = StartingServer::run(sockets.all(), &settings)?;
    let database = Database::open(&args.database).await?;

    let served = serve(&args, settings, &database, sockets, starting, &shutdown).await;
    database.close().await?;
    let orderly = served?;
    tracing::info!(orderly, "stopped");
    Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The sockets of the two addresses.
struct Sockets {
    service: TcpListener,
    admin: Option<TcpListener>,
}

impl Sockets {
    fn bind(args: &ServeArgs) -> anyhow::Result<Self> {
        let bind_to = |setting: &str, address: SocketAddr| {
            bind(address).map_err(|error| {
                anyhow::anyhow!("{setting}={address}: the server cannot listen on the address: {error}")
            })
        };
        let service = bind_to("ANNALS_LISTEN", args.annals_listen)?;
        let admin = args.annals_admin_listen.map(|address| bind_to("ANNALS_ADMIN_LISTEN", address)).transpose()?;
        Ok(Self { service, admin })
    }

    fn all(&self) -> impl Iterator<Item = &TcpListener> {
        std::iter::once(&self.service).chain(&self.admin)
    }
}

/// Returns the number of connections besides those of clients within their limit.
fn reserved_connections(args: &ServeArgs) -> usize {
    let databases = if args.database_read_url.is_some() { 2 } else { 1 };
    let admin = if args.annals_admin_listen.is_some() { ADMIN_CONNECTIONS } else { 0 };
    SPARE_CONNECTIONS + admin + databases * args.database.database_max_connections as usize
}

/// Serves until shutdown. Returns whether all requests in progress got a response.
async fn serve(
    args: &ServeArgs,
    settings: Settings,
    database: &Database,
    sockets: Sockets,
    starting: StartingServer,
    shutdown: &Shutdown,
) -> anyhow::Result<bool> {
    let replica = args.replica(&database.config)?;
    let start = async {
        let prepared = wait_for_database(args, &database.config, &starting).await?;
        Ok::<_, anyhow::Error>(startup::start(settings, prepared, replica.as_ref(), shutdown.clone()).await?)
    };
    let Some(app) = shutdown.soft().run_until_cancelled(start).await.transpose()? else { return Ok(true) };
    starting.stop().await;
    let mut server = Server::on(app.clone(), sockets.service)?;
    if let Some(socket) = sockets.admin {
        let address = server.serve_admin_on(socket)?;
        tracing::info!("probes and metrics are also on http://{address}, without API keys: do not expose this address");
    }
    app.workers.check_start().await;
    announce(database, &server);
    let orderly = shutdown.finish(server.run()).await;
    if orderly && tokio::time::timeout(CLOSING_MAX, app.readers.close()).await.is_err() {
        tracing::warn!("connections to PostgreSQL are still in use, and end with the process");
    }
    Ok(orderly)
}

/// Prepares the database once it is available. An outage at the start of a process must not become a loop of restarts.
async fn wait_for_database(
    args: &ServeArgs,
    config: &DatabaseConfig,
    starting: &StartingServer,
) -> anyhow::Result<PreparedDatabase> {
    let deadline = Instant::now() + args.database_start_timeout;
    let mut is_waiting = false;
    loop {
        let reason = match prepare_database(args.annals_migrate, config).await? {
            Preparation::Complete(prepared) => return Ok(prepared),
            Preparation::NotAvailable(reason) => reason,
        };
        anyhow::ensure!(Instant::now() < deadline, "{reason}");
        if !std::mem::replace(&mut is_waiting, true) {
            let longest = humantime::format_duration(args.database_start_timeout);
            tracing::warn!("{reason}. The service waits for it, {longest} at most (DATABASE_START_TIMEOUT)");
        }
        starting.set_reason(reason);
        tokio::time::sleep(START_PAUSE).await;
    }
}

/// The result of an attempt to prepare the database.
enum Preparation {
    Complete(PreparedDatabase),
    /// The database is not available at this time, for this reason.
    NotAvailable(String),
}

/// Brings the schema up to date, or checks it. Then begins the epoch, and creates and seals the partitions.
async fn prepare_database(migrates: bool, config: &DatabaseConfig) -> anyhow::Result<Preparation> {
    let migrated =
        if migrates { migrate::migrate(config).await } else { migrate::check(config).await.map(|()| vec![]) };
    match migrated {
        Ok(applied) if applied.is_empty() => {}
        Ok(applied) => {
            tracing::info!(files = applied.len(), applied = applied.join(", "), "updated the schema");
        }
        Err(SchemaError::NotAvailable(reason)) => return Ok(Preparation::NotAvailable(reason)),
        Err(error) => return Err(error.into()),
    }
    match tokio::time::timeout(PREPARE_MAX, startup::prepare(config, Clock::system())).await {
        Ok(Err(StoreError::Unavailable(reason))) => {
            Ok(Preparation::NotAvailable(format!("PostgreSQL {}: {reason}", config.place())))
        }
        Ok(prepared) => Ok(Preparation::Complete(prepared?)),
        Err(_) => Ok(Preparation::NotAvailable(format!(
            "PostgreSQL {} does not complete a commit in time: it may wait for a synchronous standby",
            config.place()
        ))),
    }
}

/// Logs the places of the data and of the archive, a first request to try on a stream that no lesson uses, and the
/// address, which is the last line.
fn announce(database: &Database, server: &Server) {
    let address = server.address;
    match &database.own {
        Some(own) => tracing::info!(
            "the data is in {}, in Annals' own PostgreSQL {} (for development; set DATABASE_URL for production)",
            own.data_dir().display(),
            own.major(),
        ),
        None => tracing::info!("the data is in {}", database.config.address()),
    }
    if let Some(archive) = &database.config.archive {
        tracing::info!("the archive is {}", archive.url());
        if !archive.is_tested() {
            tracing::warn!(
                "no test of Annals uses Google Cloud Storage: archive, verify and restore a copy of the database there \
                 before you rely on it"
            );
        }
    }
    tracing::info!(
        "try it: curl -i http://{address}/streams/Greeting/hello -H 'Content-Type: application/json' -d \
         '{{\"events\": [{{\"event_type\": \"Greeted\", \"event_data\": {{\"name\": \"world\"}}}}]}}'"
    );
    tracing::info!("listening on http://{address}");
}
