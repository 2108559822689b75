//! Annals' own PostgreSQL, as a command uses it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::own_postgres::cluster::{Cluster, PORT, SUPERUSER};
use crate::own_postgres::data_dir::{default_data_dir, prepare_data_dir};
use crate::own_postgres::error::OwnPostgresError;
use crate::own_postgres::private_file::open_private_file;
use crate::own_postgres::user::unprivileged_user;
use crate::store::connection::config::{ConnectOptions, create_if_missing};

/// The name of the database.
const DATABASE: &str = "eventstore";

/// The server, in use by this process.
pub struct OwnPostgres {
    data_dir: PathBuf,
    cluster: Cluster,
    /// Holds the lock that all processes share that use the server. Closing the file releases it.
    in_use: File,
}

impl OwnPostgres {
    /// Uses the running server, or starts it, after creating the cluster if there is no data. `data_dir` and `bin`
    /// default to the platform's folder for state, and to the binaries found on the system.
    pub async fn start(data_dir: Option<PathBuf>, bin: Option<PathBuf>) -> Result<Self, OwnPostgresError> {
        Self::start_in(data_dir.unwrap_or_else(default_data_dir), bin, &[]).await
    }

    /// Like [`OwnPostgres::start`], in a given folder and with extra settings (`name=value`).
    pub async fn start_in(
        data_dir: PathBuf,
        bin: Option<PathBuf>,
        settings: &[&str],
    ) -> Result<Self, OwnPostgresError> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let own = tokio::task::spawn_blocking(move || Self::start_blocking(&data_dir, bin, &settings))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        create_if_missing(&own.options_for("postgres"), DATABASE).await?;
        Ok(own)
    }

    fn start_blocking(data_dir: &Path, bin: Option<PathBuf>, settings: &[String]) -> Result<Self, OwnPostgresError> {
        let user = unprivileged_user()?;
        let data_dir = prepare_data_dir(data_dir, user)?;
        let starting = open_private_file(&data_dir.join("start.lock"))?;
        starting.lock().map_err(OwnPostgresError::io(&data_dir))?;
        let in_use = open_private_file(&data_dir.join("use.lock"))?;
        in_use.lock_shared().map_err(OwnPostgresError::io(&data_dir))?;
        let cluster = Cluster::run(&data_dir, bin, user, settings)?;
        Ok(Self { data_dir, cluster, in_use })
    }

    /// Returns the options to connect to the database of Annals.
    pub fn options(&self) -> ConnectOptions {
        self.options_for(DATABASE)
    }

    /// Returns the options to connect to another database of the server.
    pub fn options_for(&self, database: &str) -> ConnectOptions {
        ConnectOptions::new_without_pgpass()
            .socket(self.cluster.directory())
            .port(PORT)
            .username(SUPERUSER)
            .database(database)
    }

    /// Returns the folder that contains the data, the log and the locks.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Returns the major version of the server.
    pub fn major(&self) -> u32 {
        self.cluster.major()
    }

    /// Returns the process id of the server.
    pub fn pid(&self) -> i32 {
        self.cluster.pid()
    }

    /// Releases the server, and stops it if no other process uses it.
    pub async fn stop(self) -> Result<(), OwnPostgresError> {
        tokio::task::spawn_blocking(move || {
            let starting = open_private_file(&self.data_dir.join("start.lock"))?;
            starting.lock().map_err(OwnPostgresError::io(&self.data_dir))?;
            self.in_use.unlock().map_err(OwnPostgresError::io(&self.data_dir))?;
            match self.in_use.try_lock() {
                Ok(()) => self.cluster.stop(),
                Err(TryLockError::WouldBlock) => {
                    tracing::info!("another command still uses Annals' own PostgreSQL, which continues to run");
                    Ok(())
                }
                Err(TryLockError::Error(error)) => Err(OwnPostgresError::Io { path: self.data_dir, error }),
            }
        })
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}
