//! Settings: every one is a flag and an environment variable, declared once, here.
//!
//! A flag shows the name of its variable as its value, so that an error about a wrong value names the variable.
//! `.env.example` lists them all; a test compares.

mod database;

pub use database::{DatabaseArgs, DatabaseSource, duration};

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::{ParseError, Targets};

use crate::app::{ClientLimits, Settings};
use crate::store::database::DatabaseConfig;
use crate::store::writer::QueueLimits;
use crate::subscriptions::FeedLimits;

/// However many subscribers there may be, so many other clients find a connection beside them.
const CONNECTIONS_OF_OTHERS: usize = 1_000;

/// A combination of settings that cannot work; names the variables and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Anybody who reaches the address.
    None,
    /// Whoever has an API key.
    Keys,
}

/// Settings of `annals serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address of the HTTP server; port 0 takes any free port
    #[arg(long, env = "ANNALS_LISTEN", value_name = "ANNALS_LISTEN", default_value = "127.0.0.1:8080")]
    pub annals_listen: SocketAddr,

    /// Who may come in: none (anybody), or keys (who has an API key, made by `annals keys create`)
    #[arg(long, env = "ANNALS_AUTH", value_name = "ANNALS_AUTH", default_value = "none")]
    pub annals_auth: Auth,

    /// Serve without API keys on an address that is not loopback
    #[arg(long, env = "ANNALS_ALLOW_ANONYMOUS", value_name = "ANNALS_ALLOW_ANONYMOUS", default_value = "false",
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub annals_allow_anonymous: bool,

    /// Bring the database's schema up to date at the start
    #[arg(long, env = "ANNALS_MIGRATE", value_name = "ANNALS_MIGRATE", default_value = "true",
          action = clap::ArgAction::Set)]
    pub annals_migrate: bool,

    /// Largest request body, in bytes
    #[arg(long, env = "ANNALS_MAX_BODY_BYTES", value_name = "ANNALS_MAX_BODY_BYTES", default_value = "1048576",
          value_parser = clap::value_parser!(u32).range(1_024..=16_777_216))]
    pub annals_max_body_bytes: u32,

    /// Events between two snapshots of an aggregate, 1 to 10000; 50 to 100 suits most
    #[arg(long, env = "SNAPSHOT_EVERY", value_name = "SNAPSHOT_EVERY", default_value = "100",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub snapshot_every: u32,

    /// Event streams and long polls that may be open at the same time
    #[arg(long, env = "ANNALS_MAX_SUBSCRIBERS", value_name = "ANNALS_MAX_SUBSCRIBERS", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub annals_max_subscribers: u32,

    /// A read replica for feeds and loads, postgres://user:password@host:port/name [default: none, the database itself]
    #[arg(long, env = "DATABASE_READ_URL", value_name = "DATABASE_READ_URL", hide_env_values = true)]
    pub database_read_url: Option<String>,

    /// Archives months that have been over for so long, like 365d, to ARCHIVE_URL [default: never]
    #[arg(long, env = "ARCHIVE_AFTER", value_name = "ARCHIVE_AFTER")]
    pub archive_after: Option<String>,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

impl ServeArgs {
    /// Checks what one value alone cannot tell.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let anonymous = self.annals_auth == Auth::None;
        if anonymous && !self.annals_listen.ip().is_loopback() && !self.annals_allow_anonymous {
            return Err(ConfigError(format!(
                "ANNALS_LISTEN={} is not a loopback address, and anybody who reaches it may read and append. Set \
                 ANNALS_AUTH=keys and make keys with `annals keys create`, or ANNALS_ALLOW_ANONYMOUS=true if a proxy or \
                 the network keeps strangers out, or listen on 127.0.0.1",
                self.annals_listen
            )));
        }
        let archive_after = database::given(&self.archive_after)
            .map(duration)
            .transpose()
            .map_err(|fault| ConfigError(format!("ARCHIVE_AFTER is not a length of time: {fault}")))?;
        if archive_after.is_some() && database::given(&self.database.archive_url).is_none() {
            return Err(ConfigError("ARCHIVE_AFTER is set, and ARCHIVE_URL is not: say where to".to_owned()));
        }
        let (subscribers, clients) = (self.annals_max_subscribers as usize, ClientLimits::default());
        Ok(Settings {
            max_body_bytes: self.annals_max_body_bytes as usize,
            snapshot_every: self.snapshot_every,
            queue: QueueLimits::default(),
            feed: FeedLimits { subscribers, ..FeedLimits::default() },
            clients: ClientLimits {
                connections: clients.connections.max(subscribers + CONNECTIONS_OF_OTHERS),
                ..clients
            },
            needs_keys: self.annals_auth == Auth::Keys,
            archive_after,
            program: this_program()?,
        })
    }
}

impl ServeArgs {
    /// The read replica, if there is one.
    pub fn replica(&self, database: &DatabaseConfig) -> Result<Option<DatabaseConfig>, ConfigError> {
        let Some(url) = database::given(&self.database_read_url) else { return Ok(None) };
        let options = database::from_url("DATABASE_READ_URL", url)?;
        Ok(Some(DatabaseConfig { options, ..database.clone() }))
    }
}

/// The program that runs, even when its file was replaced or removed since.
pub fn this_program() -> Result<PathBuf, ConfigError> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe().map_err(|error| ConfigError(format!("the program cannot find itself: {error}")))
}

/// Settings of every command's log.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Form of the log: human on a terminal, else json
    #[arg(long, env = "ANNALS_LOG", value_name = "ANNALS_LOG", global = true)]
    pub annals_log: Option<LogFormat>,

    /// What is logged: error, warn, info, debug, or directives like info,hyper=debug
    #[arg(long, env = "ANNALS_LOG_LEVEL", value_name = "ANNALS_LOG_LEVEL", default_value = "info", global = true,
          value_parser = log_level)]
    pub annals_log_level: Targets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    pub format: LogFormat,
    pub level: Targets,
}

impl LogArgs {
    pub fn resolve(&self) -> LogConfig {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let usual = if terminal { LogFormat::Human } else { LogFormat::Json };
        LogConfig { format: self.annals_log.unwrap_or(usual), level: self.annals_log_level.clone() }
    }
}

fn log_level(value: &str) -> Result<Targets, String> {
    // A word that is no level would be read as the name of a module, and silence everything else.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let unknown = value.split(',').map(str::trim).find(|part| !part.contains('=') && !levels.contains(part));
    if let Some(unknown) = unknown {
        return Err(format!("{unknown:?} is no level: {}", levels.join(", ")));
    }
    value.parse().map_err(|error: ParseError| error.to_string())
}

/// Where the PostgreSQL that Annals runs by itself lives.
#[derive(Debug, Clone, Args)]
pub struct DevDbArgs {
    /// Folder for the data of the PostgreSQL that Annals runs where none is configured [default: the platform's state
    /// folder, /var/lib/annals for root]
    #[arg(long, env = "ANNALS_DATA_DIR", value_name = "ANNALS_DATA_DIR")]
    pub annals_data_dir: Option<PathBuf>,

    /// Folder of `postgres` and `initdb` for it [default: looked for on the system]
    #[arg(long, env = "ANNALS_PG_BIN", value_name = "ANNALS_PG_BIN")]
    pub annals_pg_bin: Option<PathBuf>,
}
