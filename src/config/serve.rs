//! Settings of `annals serve`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::app::{ClientLimits, CorsOrigins, Settings};
use crate::config::database::{DatabaseArgs, options_from_url};
use crate::config::error::ConfigError;
use crate::config::parse::{address, duration, duration_or_zero, non_empty, whole_number};
use crate::config::program::this_program;
use crate::domain::append::BODY_BYTES_MAX;
use crate::store::append::queue::QueueLimits;
use crate::store::connection::config::DatabaseConfig;
use crate::subscriptions::feed::FeedLimits;
use crate::wire::path::BasePath;

/// The number of connections for clients that do not subscribe, in addition to the largest number of subscribers.
const OTHER_CONNECTIONS: usize = 1_000;

/// The longest `ARCHIVE_AFTER`.
const ARCHIVE_AFTER_MAX: Duration = Duration::from_secs(1_000 * 366 * 24 * 3_600);

/// How clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Every client that reaches the address may do everything.
    None,
    /// Clients need an API key.
    Keys,
}

/// Settings of `annals serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address of the HTTP server; port 0 takes any free port
    #[arg(long, env = "ANNALS_LISTEN", value_name = "ANNALS_LISTEN", default_value = "127.0.0.1:8080",
          value_parser = address)]
    pub annals_listen: SocketAddr,

    /// A second address that serves only /livez, /readyz and /metrics, without keys, for operators; port 0 takes any
    /// free port [default: none]
    #[arg(long, env = "ANNALS_ADMIN_LISTEN", value_name = "ANNALS_ADMIN_LISTEN", value_parser = address)]
    pub annals_admin_listen: Option<SocketAddr>,

    /// How clients authenticate: none (every client may do everything), or keys (API keys, see `annals keys create`)
    #[arg(long, env = "ANNALS_AUTH", value_name = "ANNALS_AUTH", default_value = "none", ignore_case = true)]
    pub annals_auth: Auth,

    /// Serve without API keys on an address that is not loopback
    #[arg(long, env = "ANNALS_ALLOW_ANONYMOUS", value_name = "ANNALS_ALLOW_ANONYMOUS", default_value = "false",
          action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true,
          value_parser = BoolishValueParser::new())]
    pub annals_allow_anonymous: bool,

    /// Names, separated by commas, that requests may have as their host if no API keys are required, besides localhost
    /// and IP addresses; like annals,annals.example.com [default: none]
    #[arg(long, env = "ANNALS_HOSTS", value_name = "ANNALS_HOSTS")]
    pub annals_hosts: Option<String>,

    /// Origins whose pages may call the service from a browser, like https://app.example.com, separated by commas; or *
    /// for all [default: none]
    #[arg(long, env = "ANNALS_CORS_ORIGINS", value_name = "ANNALS_CORS_ORIGINS")]
    pub annals_cors_origins: Option<String>,

    /// Path below which clients see the service, like /stores/shop: links in responses begin with it [default: none]
    #[arg(long, env = "ANNALS_BASE_PATH", value_name = "ANNALS_BASE_PATH", default_value = "", hide_default_value = true,
          value_parser = str::parse::<BasePath>)]
    pub annals_base_path: BasePath,

    /// Take the base path of a request from its header X-Forwarded-Prefix, which a proxy must set or remove
    #[arg(long, env = "ANNALS_TRUST_FORWARDED_PREFIX", value_name = "ANNALS_TRUST_FORWARDED_PREFIX",
          default_value = "false", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true",
          require_equals = true, value_parser = BoolishValueParser::new())]
    pub annals_trust_forwarded_prefix: bool,

    /// Serve the web console, /console/
    #[arg(long, env = "ANNALS_CONSOLE", value_name = "ANNALS_CONSOLE", default_value = "true",
          action = clap::ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub annals_console: bool,

    /// Bring the schema of the database up to date at the start
    #[arg(long, env = "ANNALS_MIGRATE", value_name = "ANNALS_MIGRATE", default_value = "true",
          action = clap::ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub annals_migrate: bool,

    /// Largest request body in bytes, 1024 to 16777216
    #[arg(long, env = "ANNALS_MAX_BODY_BYTES", value_name = "ANNALS_MAX_BODY_BYTES", default_value = "1048576",
          value_parser = whole_number(1_024..=BODY_BYTES_MAX))]
    pub annals_max_body_bytes: u32,

    /// Events between two snapshots of an aggregate, 1 to 10000; 50 to 100 suit most aggregates
    #[arg(long, env = "SNAPSHOT_EVERY", value_name = "SNAPSHOT_EVERY", default_value = "100",
          value_parser = whole_number(1..=10_000_u32))]
    pub snapshot_every: u32,

    /// Largest number of open event streams and long polls, 1 to 100000
    #[arg(long, env = "ANNALS_MAX_SUBSCRIBERS", value_name = "ANNALS_MAX_SUBSCRIBERS", default_value = "1000",
          value_parser = whole_number(1..=100_000_u32))]
    pub annals_max_subscribers: u32,

    /// A read replica for feeds and loads, postgres://user:password@host:port/name [default: none, the primary serves
    /// them]
    #[arg(long, env = "DATABASE_READ_URL", value_name = "DATABASE_READ_URL", hide_env_values = true)]
    pub database_read_url: Option<String>,

    /// How long to wait for PostgreSQL at the start, 0s to 1d
    #[arg(long, env = "DATABASE_START_TIMEOUT", value_name = "DATABASE_START_TIMEOUT", default_value = "5m",
          value_parser = start_timeout)]
    pub database_start_timeout: Duration,

    /// Archive the events of months that ended at least this long ago, like 365d, to ARCHIVE_URL [default: never]
    #[arg(long, env = "ARCHIVE_AFTER", value_name = "ARCHIVE_AFTER")]
    pub archive_after: Option<String>,

    /// Remove the bytes of erased content from the files of tables and of the archive when the oldest erasure has this
    /// age, at most 7d
    #[arg(long, env = "ERASE_REWRITE_EVERY", value_name = "ERASE_REWRITE_EVERY", default_value = "24h",
          value_parser = rewrite_every)]
    pub erase_rewrite_every: Duration,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Parses a time of at most a day, which may be 0.
fn start_timeout(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(24 * 3_600);
    let time = duration_or_zero(text)?;
    if time > LONGEST { Err("must be at most 1d".to_owned()) } else { Ok(time) }
}

/// Parses a time of at most 7 days.
fn rewrite_every(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);
    let time = duration(text)?;
    if time > LONGEST { Err("must be at most 7d".to_owned()) } else { Ok(time) }
}

impl ServeArgs {
    /// Checks the combination of settings.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let anonymous = self.annals_auth == Auth::None;
        if anonymous && !self.annals_listen.ip().is_loopback() && !self.annals_allow_anonymous {
            return Err(ConfigError(format!(
                "ANNALS_LISTEN={} is not a loopback address, and every client that reaches it could read and append. \
                 Set ANNALS_AUTH=keys and create keys with `annals keys create`; or set ANNALS_ALLOW_ANONYMOUS=true if \
                 a proxy or the network restricts access; or listen on 127.0.0.1",
                self.annals_listen
            )));
        }
        if let Some(admin) = self.annals_admin_listen.filter(|admin| *admin == self.annals_listen && admin.port() != 0)
        {
            let remedy = "choose another port for probes and metrics, or unset it";
            return Err(ConfigError(format!("ANNALS_ADMIN_LISTEN={admin} is the address of ANNALS_LISTEN: {remedy}")));
        }
        let archive_after = non_empty(&self.archive_after)
            .map(duration)
            .transpose()
            .map_err(|fault| ConfigError(format!("ARCHIVE_AFTER {fault}")))?;
        if archive_after.is_some_and(|after| after > ARCHIVE_AFTER_MAX) {
            return Err(ConfigError(
                "ARCHIVE_AFTER must be at most 1000 years; unset it to archive nothing".to_owned(),
            ));
        }
        if archive_after.is_some() && non_empty(&self.database.archive_url).is_none() {
            let remedy = "set ARCHIVE_URL to the place of the archive";
            return Err(ConfigError(format!("ARCHIVE_AFTER is set, and ARCHIVE_URL is not: {remedy}")));
        }
        let (subscribers, clients) = (self.annals_max_subscribers as usize, ClientLimits::default());
        Ok(Settings {
            max_body_bytes: self.annals_max_body_bytes as usize,
            snapshot_every: self.snapshot_every,
            queue: QueueLimits::default(),
            feed: FeedLimits { subscribers, ..FeedLimits::default() },
            clients: ClientLimits { connections: clients.connections.max(subscribers + OTHER_CONNECTIONS), ..clients },
            needs_keys: self.annals_auth == Auth::Keys,
            hosts: hosts(non_empty(&self.annals_hosts).unwrap_or_default())?,
            base_path: self.annals_base_path.clone(),
            trusts_forwarded_prefix: self.annals_trust_forwarded_prefix,
            has_console: self.annals_console,
            cors_origins: cors_origins(non_empty(&self.annals_cors_origins).unwrap_or_default())?,
            archive_after,
            erase_rewrite_every: self.erase_rewrite_every,
            program: this_program()?,
        })
    }
}

/// Parses a list of names of hosts. Returns them as requests have them: in lower case and without a dot at the end.
fn hosts(list: &str) -> Result<Vec<String>, ConfigError> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| check_host(name).map(str::to_ascii_lowercase)).collect()
}

/// Returns a name of a host without the dot at its end. Names are exact: a pattern could also match the name of a page
/// that attacks the service.
fn check_host(entry: &str) -> Result<&str, ConfigError> {
    let name = entry.strip_suffix('.').unwrap_or(entry);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.split('.').all(is_label) {
        return Ok(name);
    }
    let example = "write it like annals.example.com, in ASCII, without a scheme, a port or a pattern";
    let remedy = "IP addresses need no entry, and with ANNALS_AUTH=keys every host is allowed";
    Err(ConfigError(format!("ANNALS_HOSTS: {entry:?} is not the name of a host: {example}; {remedy}")))
}

/// Parses a list of origins. An origin is a scheme, a host and perhaps a port (RFC 6454, section 6.2).
fn cors_origins(list: &str) -> Result<CorsOrigins, ConfigError> {
    let origins: Vec<_> = list.split(',').map(str::trim).filter(|origin| !origin.is_empty()).collect();
    match origins.as_slice() {
        [] => Ok(CorsOrigins::None),
        ["*"] => Ok(CorsOrigins::Any),
        origins => origins.iter().map(|origin| check_origin(origin)).collect::<Result<_, _>>().map(CorsOrigins::List),
    }
}

/// Returns an origin as browsers send it: in lower case.
fn check_origin(origin: &str) -> Result<String, ConfigError> {
    let invalid = |what: &str| {
        let example = "write it like https://app.example.com or http://localhost:5173";
        Err(ConfigError(format!("ANNALS_CORS_ORIGINS: {origin:?} {what}: {example}")))
    };
    let Some((scheme, host)) = origin.split_once("://") else { return invalid("has no scheme") };
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return invalid("has no valid scheme");
    }
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte)) {
        return invalid("must be a scheme, a host and perhaps a port, without a path");
    }
    Ok(origin.to_ascii_lowercase())
}

impl ServeArgs {
    /// Returns the configuration of the read replica, if one is configured.
    pub fn replica(&self, database: &DatabaseConfig) -> Result<Option<DatabaseConfig>, ConfigError> {
        let Some(url) = non_empty(&self.database_read_url) else { return Ok(None) };
        let servers = options_from_url("DATABASE_READ_URL", url)?;
        if servers.len() > 1 {
            let advice = "has several hosts: name one, like the address of a proxy that distributes connections";
            return Err(ConfigError(format!("DATABASE_READ_URL {advice}")));
        }
        Ok(Some(DatabaseConfig { servers, ..database.clone() }))
    }
}
