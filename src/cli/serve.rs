//! `annals serve`: the database, the schema, the service, and the shutdown.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use crate::app::Settings;
use crate::cli::database::Database;
use crate::cli::file_limit::connections_within_limit;
use crate::clock::Clock;
use crate::config::serve::ServeArgs;
use crate::http::server::{ADMIN_CONNECTIONS, SPARE_CONNECTIONS, Server};
use crate::shutdown::Shutdown;
use crate::startup;
use crate::store::admin::migrate;
use crate::store::connection::config::place;

/// The longest wait for connections that are still in use at the shutdown, for example because a host is gone.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// Runs `annals serve` until shutdown.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let mut settings = args.settings()?;
    let connections = connections_within_limit(settings.clients.connections, reserved_connections(&args))?;
    settings.clients.connections = connections;
    settings.clients.requests_in_progress = connections;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    // An address that is in use is reported before a cluster and a schema are created.
    std::net::TcpListener::bind(args.annals_listen)
        .map_err(|error| cannot_listen("ANNALS_LISTEN", args.annals_listen, &error))?;
    let database = Database::open(&args.database).await?;

    let served = serve(&args, settings, &database, &shutdown).await;
    database.close().await?;
    let orderly = served?;
    tracing::info!(orderly, "stopped");
    Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the number of connections besides those of clients within their limit.
fn reserved_connections(args: &ServeArgs) -> usize {
    let databases = if args.database_read_url.is_some() { 2 } else { 1 };
    let admin = if args.annals_admin_listen.is_some() { ADMIN_CONNECTIONS } else { 0 };
    SPARE_CONNECTIONS + admin + databases * args.database.database_max_connections as usize
}

/// Serves until shutdown. Returns whether all requests in progress got a response.
async fn serve(args: &ServeArgs, settings: Settings, database: &Database, shutdown: &Shutdown) -> anyhow::Result<bool> {
    if args.annals_migrate {
        let applied = migrate::migrate(&database.config).await?;
        if !applied.is_empty() {
            tracing::info!(files = applied.len(), applied = applied.join(", "), "updated the schema");
        }
    } else {
        migrate::check(&database.config).await?;
    }
    let replica = args.replica(&database.config)?;
    let app = startup::start(settings, &database.config, replica.as_ref(), Clock::system(), shutdown.clone()).await?;
    let bound = Server::bind(app.clone(), args.annals_listen).await;
    let mut server = bound.map_err(|error| cannot_listen("ANNALS_LISTEN", args.annals_listen, &error))?;
    if let Some(address) = args.annals_admin_listen {
        let bound = server.bind_admin(address).await;
        let address = bound.map_err(|error| cannot_listen("ANNALS_ADMIN_LISTEN", address, &error))?;
        tracing::info!("probes and metrics are also on http://{address}, without API keys: do not expose this address");
    }
    app.workers.check_start().await;
    announce(database, &server);
    let orderly = shutdown.finish(server.run()).await;
    if orderly {
        if tokio::time::timeout(CLOSING_MAX, app.readers.close()).await.is_err() {
            tracing::warn!("connections to PostgreSQL are still in use, and end with the process");
        }
    }
    Ok(orderly)
}

fn cannot_listen(setting: &str, address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{setting}={address}: the server cannot listen on the address: {error}")
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
        None => tracing::info!(
            "the data is in the database {} {}",
            database.config.options.get_database().unwrap_or("named like the user"),
            place(&database.config.options),
        ),
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
