//! A PostgreSQL of Annals' own, for the first five minutes, for development and for tests.
//!
//! Used only where no database is configured. It is a real one: fsync is on, and the data stays between runs. It listens
//! on a Unix socket in a folder that only its user can enter, which is why it may trust every connection.
//!
//! Several commands may use it at once (`serve` and `import`): each holds a shared lock while it does, and the last one
//! stops the server. A process that was killed leaves the server running; the next one finds it and takes it over.
//!
//! ```text
//! <data dir>/pg            the cluster, mode 0700, owned by the unprivileged user where we are root
//! <data dir>/postgres.log  what the server says
//! <data dir>/start.lock    held while somebody starts or stops it
//! <data dir>/use.lock      held, shared, by everyone who uses it
//! ```

mod cluster;
mod find;
mod user;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::DevDbArgs;
use crate::store::database::{self, ConnectOptions};
use crate::store::error::StoreError;
use cluster::Cluster;
pub use find::Installation;

/// Name of the database in it.
const DATABASE: &str = "eventstore";
/// Its superuser.
const SUPERUSER: &str = "annals";

#[derive(Debug, thiserror::Error)]
pub enum DevDbError {
    #[error(
        "no database is configured, and no PostgreSQL (15 or newer) was found to run one. Either set DATABASE_URL; or run \
         scripts/get-postgres, which fetches one; or install it (apt install postgresql, brew install postgresql) and, if it \
         is in an unusual place, name the folder of `postgres` and `initdb` in ANNALS_PG_BIN"
    )]
    NotFound,
    #[error("ANNALS_PG_BIN={}: {problem}", path.display())]
    BadBin { path: PathBuf, problem: String },
    #[error(
        "the data in {} was written by PostgreSQL {found}, and no PostgreSQL {found} was found. Install it, or name its \
         folder in ANNALS_PG_BIN; or move the data with pg_dump or pg_upgrade; or choose another ANNALS_DATA_DIR",
        path.display()
    )]
    OtherMajor { path: PathBuf, found: u32 },
    #[error("ANNALS_DATA_DIR={}: the path is too long for a Unix socket; choose one of at most 90 bytes", .0.display())]
    PathTooLong(PathBuf),
    #[error("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as")]
    NoUser,
    #[error("{what}: {output}")]
    Failed { what: &'static str, output: String },
    #[error("ANNALS_DATA_DIR={}: the folder cannot be made: {error}", path.display())]
    DataDir { path: PathBuf, error: io::Error },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("the PostgreSQL that was started cannot be used")]
    Database(#[from] StoreError),
}

impl DevDbError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Io { path: path.to_owned(), error }
    }
}

/// The server while this process uses it.
pub struct OwnPostgres {
    data_dir: PathBuf,
    cluster: Cluster,
    /// Shared by everyone who uses the server; released by closing.
    in_use: File,
}

impl OwnPostgres {
    /// Finds it running, or starts it, or makes it.
    pub async fn start(args: &DevDbArgs) -> Result<Self, DevDbError> {
        let data_dir = match &args.annals_data_dir {
            Some(dir) if !dir.as_os_str().is_empty() => dir.clone(),
            _ => default_data_dir(),
        };
        let bin = args.annals_pg_bin.clone().filter(|bin| !bin.as_os_str().is_empty());
        Self::start_in(data_dir, bin, &[]).await
    }

    /// The same with a folder, binaries and extra settings (`name=value`) given.
    pub async fn start_in(data_dir: PathBuf, bin: Option<PathBuf>, settings: &[&str]) -> Result<Self, DevDbError> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let own = tokio::task::spawn_blocking(move || Self::start_blocking(&data_dir, bin, &settings))
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        database::create_if_missing(&own.options_for("postgres"), DATABASE).await?;
        Ok(own)
    }

    fn start_blocking(data_dir: &Path, bin: Option<PathBuf>, settings: &[String]) -> Result<Self, DevDbError> {
        fs::create_dir_all(data_dir).map_err(|error| DevDbError::DataDir { path: data_dir.to_owned(), error })?;
        let data_dir = fs::canonicalize(data_dir).map_err(DevDbError::io(data_dir))?;
        let user = user::to_run_as()?;
        if user.is_some() {
            // The unprivileged user has to get through to its cluster.
            let mode = fs::metadata(&data_dir).map_err(DevDbError::io(&data_dir))?.permissions().mode();
            fs::set_permissions(&data_dir, fs::Permissions::from_mode(mode | 0o711))
                .map_err(DevDbError::io(&data_dir))?;
        }
        let starting = lock_file(&data_dir.join("start.lock"))?;
        starting.lock().map_err(DevDbError::io(&data_dir))?;
        let in_use = lock_file(&data_dir.join("use.lock"))?;
        in_use.lock_shared().map_err(DevDbError::io(&data_dir))?;
        let cluster = Cluster::run(&data_dir, bin, user, settings)?;
        Ok(Self { data_dir, cluster, in_use })
    }

    /// How to connect to it.
    pub fn options(&self) -> ConnectOptions {
        self.options_for(DATABASE)
    }

    pub fn options_for(&self, database: &str) -> ConnectOptions {
        ConnectOptions::new_without_pgpass()
            .socket(self.cluster.directory())
            .port(cluster::PORT)
            .username(SUPERUSER)
            .database(database)
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn major(&self) -> u32 {
        self.cluster.major()
    }

    /// Process id of the server.
    pub fn pid(&self) -> i32 {
        self.cluster.pid()
    }

    /// Lets go of the server, and stops it if nobody else uses it.
    pub async fn stop(self) -> Result<(), DevDbError> {
        tokio::task::spawn_blocking(move || {
            let starting = lock_file(&self.data_dir.join("start.lock"))?;
            starting.lock().map_err(DevDbError::io(&self.data_dir))?;
            self.in_use.unlock().map_err(DevDbError::io(&self.data_dir))?;
            match self.in_use.try_lock() {
                Ok(()) => self.cluster.stop(),
                Err(fs::TryLockError::WouldBlock) => {
                    tracing::info!("another command still uses the PostgreSQL of Annals' own; it goes on");
                    Ok(())
                }
                Err(fs::TryLockError::Error(error)) => Err(DevDbError::Io { path: self.data_dir, error }),
            }
        })
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

fn lock_file(path: &Path) -> Result<File, DevDbError> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(DevDbError::io(path))
}

/// The platform's folder for state that is not configuration.
fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/annals");
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME").unwrap_or_else(|| PathBuf::from("."));
    if cfg!(target_os = "macos") {
        return home.join("Library/Application Support/annals");
    }
    set("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("annals")
}
