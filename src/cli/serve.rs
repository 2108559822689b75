//! `annals serve`: the database, the schema, the service, and the shutdown.

use std::process::ExitCode;

use crate::app::Settings;
use crate::cli::database::Database;
use crate::clock::Clock;
use crate::config::serve::ServeArgs;
use crate::http::server::Server;
use crate::shutdown::Shutdown;
use crate::startup;
use crate::store::admin::migrate;
use crate::store::connection::config::place;

/// Runs `annals serve` until shutdown.
pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = args.settings()?;
    raise_file_limit(settings.clients.connections);
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let database = Database::open(&args.database).await?;

    let served = serve(&args, settings, &database, &shutdown).await;
    database.close().await?;
    let orderly = served?;
    tracing::info!(orderly, "stopped");
    Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Raises the limit of open files to the highest one that this process may have. Every connection is an open file.
fn raise_file_limit(connections: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// Files besides the connections of clients: those of PostgreSQL, of workers and of the archive.
    const OTHER_FILES: u64 = 200;
    let needed = connections as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    match limit {
        Ok(limit) if limit < needed => tracing::warn!(
            limit,
            needed,
            "the limit of open files is below the limit of connections: raise it, for example with ulimit -Hn"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Serves until shutdown. Returns whether all requests in progress got a response.
async fn serve(args: &ServeArgs, settings: Settings, database: &Database, shutdown: &Shutdown) -> anyhow::Result<bool> {
    if args.annals_migrate {
        for applied in migrate::migrate(&database.config).await? {
            tracing::info!(applied, "updated the schema");
        }
    } else {
        migrate::check(&database.config).await?;
    }
    let replica = args.replica(&database.config)?;
    let app = startup::start(settings, &database.config, replica.as_ref(), Clock::system(), shutdown.clone()).await?;
    let server = Server::bind(app.clone(), args.annals_listen).await.map_err(|error| {
        anyhow::anyhow!("ANNALS_LISTEN={}: the server cannot listen on the address: {error}", args.annals_listen)
    })?;
    announce(database, &server);
    let orderly = shutdown.finish(server.run()).await;
    if orderly {
        app.reader.close().await;
        app.primary.close().await;
    }
    Ok(orderly)
}

/// Logs the place of the data, a first request to try, and the address, which is the last line.
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
    tracing::info!(
        "try it: curl -i http://{address}/streams/Order/ord-1 -H 'Content-Type: application/json' -d \
         '{{\"events\": [{{\"event_type\": \"OrderPlaced\", \"event_data\": {{\"total\": 42}}}}]}}'"
    );
    tracing::info!("listening on http://{address}");
}
