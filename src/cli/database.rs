//! The database of a command.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::database::{DatabaseArgs, DatabaseSource};
use crate::metrics::Metrics;
use crate::own_postgres::server::OwnPostgres;
use crate::store::admin::migrate;
use crate::store::connection::config::DatabaseConfig;
use crate::store::primary::Primary;

/// Runs the work of a command until Ctrl-C or SIGTERM, so that the command can stop what it has started.
pub async fn until_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("interrupted"),
    }
}

/// The database of a command: the configured one, or Annals' own PostgreSQL, which [`Database::close`] stops if no
/// other command uses it.
pub struct Database {
    /// How to connect to it.
    pub config: DatabaseConfig,
    /// Annals' own PostgreSQL; `None` if a database is configured.
    pub own: Option<OwnPostgres>,
}

/// Runs the work of a command on its database, until it is done or interrupted.
pub async fn with_database<T>(
    args: &DatabaseArgs,
    work: impl AsyncFnOnce(&Database) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let database = Database::open(args).await?;
    let done = until_interrupted(work(&database)).await;
    database.close().await?;
    done
}

impl Database {
    /// Connects to the primary. Its schema must be the one that this program needs.
    pub async fn primary(&self) -> anyhow::Result<Arc<Primary>> {
        migrate::check(&self.config).await?;
        Ok(Primary::connect(&self.config, Clock::system(), Arc::new(Metrics::new())).await?)
    }

    /// Opens the configured database, or starts Annals' own PostgreSQL.
    pub async fn open(args: &DatabaseArgs) -> anyhow::Result<Self> {
        Ok(match args.source()? {
            DatabaseSource::Configured(config) => Self { config: *config, own: None },
            DatabaseSource::Own => {
                let archive = args.archive()?;
                let own = OwnPostgres::start(args.own_postgres.data_dir(), args.own_postgres.bin()).await?;
                Self { config: args.with_servers(vec![own.options()], archive), own: Some(own) }
            }
        })
    }

    /// Stops Annals' own PostgreSQL if no other command uses it.
    pub async fn close(self) -> anyhow::Result<()> {
        match self.own {
            Some(own) => Ok(own.stop().await?),
            None => Ok(()),
        }
    }
}
