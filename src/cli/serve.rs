//! `annals serve`: the database, the schema, the service, and an orderly end.

use std::process::ExitCode;

use super::Database;
use crate::app::App;
use crate::clock::Clock;
use crate::config::ServeArgs;
use crate::http;
use crate::shutdown::Shutdown;
use crate::store::database::place;
use crate::store::migrate;

pub async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let settings = args.settings()?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let database = Database::open(&args.database).await?;

    let served = serve(&args, settings, &database, &shutdown).await;
    database.close().await?;
    let orderly = served?;
    tracing::info!(orderly, "stopped");
    Ok(if orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves until shutdown; whether everything in flight was answered.
async fn serve(
    args: &ServeArgs,
    settings: crate::app::Settings,
    database: &Database,
    shutdown: &Shutdown,
) -> anyhow::Result<bool> {
    if args.annals_migrate {
        for migration in migrate::migrate(&database.config).await? {
            tracing::info!(migration, "applied a migration");
        }
    } else {
        migrate::check(&database.config).await?;
    }
    let replica = args.replica(&database.config)?;
    let app = App::start(settings, &database.config, replica.as_ref(), Clock::system(), shutdown.clone()).await?;
    let serving = http::serve(app.clone(), args.annals_listen).await.map_err(|error| {
        anyhow::anyhow!("ANNALS_LISTEN={}: the address cannot be listened on: {error}", args.annals_listen)
    })?;
    announce(database, &serving);
    let orderly = shutdown.finish(serving.run()).await;
    if orderly {
        app.reads.close().await;
        app.store.close().await;
    }
    Ok(orderly)
}

/// Says in plain words what runs where, and what to try first. The last line has the address.
fn announce(database: &Database, serving: &http::Serving) {
    let address = serving.address;
    match &database.own {
        Some(own) => tracing::info!(
            "the data lies in {}, in a PostgreSQL {} of Annals' own (for development; set DATABASE_URL for production)",
            own.data_dir().display(),
            own.major(),
        ),
        None => tracing::info!(
            "the data lies in the database {} {}",
            database.config.options.get_database().unwrap_or("of the user's name"),
            place(&database.config.options),
        ),
    }
    tracing::info!(
        "try it: curl -i http://{address}/streams/Order/ord-1 -H 'Content-Type: application/json' -d \
         '{{\"events\": [{{\"event_type\": \"OrderPlaced\", \"event_data\": {{\"total\": 42}}}}]}}'"
    );
    tracing::info!("listening on http://{address}");
}
