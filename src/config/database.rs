//! Settings of the database, for every command that uses it.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::archive::place::Archive;
use crate::config::error::ConfigError;
use crate::config::own_postgres::OwnPostgresArgs;
use crate::config::parse::{duration, non_empty, whole_number};
use crate::store::connection::address::{Address, parse_port};
use crate::store::connection::config::{ConnectOptions, DatabaseConfig};

/// Settings of every command that needs the database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// URL of PostgreSQL, postgres://user:password@host:port/name, instead of the five variables that follow
    #[arg(long, env = "DATABASE_URL", value_name = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// Host name of PostgreSQL
    #[arg(long, env = "DATABASE_HOST", value_name = "DATABASE_HOST")]
    pub database_host: Option<String>,

    /// Port of PostgreSQL, 1 to 65535 [default: 5432]
    #[arg(long, env = "DATABASE_PORT", value_name = "DATABASE_PORT")]
    pub database_port: Option<String>,

    /// Name of the database
    #[arg(long, env = "DATABASE_NAME", value_name = "DATABASE_NAME")]
    pub database_name: Option<String>,

    /// User to log in as
    #[arg(long, env = "DATABASE_USER", value_name = "DATABASE_USER")]
    pub database_user: Option<String>,

    /// Password of the user
    #[arg(long, env = "DATABASE_PASSWORD", value_name = "DATABASE_PASSWORD", hide_env_values = true)]
    pub database_password: Option<String>,

    /// Limit of all connections to PostgreSQL, 4 to 1000: one appends, one follows the log, one is for maintenance, the
    /// rest read
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", value_name = "DATABASE_MAX_CONNECTIONS", default_value = "10",
          value_parser = whole_number(4..=1_000_u32))]
    pub database_max_connections: u32,

    /// An idle connection is closed after this time
    #[arg(long, env = "DATABASE_IDLE_TIMEOUT", value_name = "DATABASE_IDLE_TIMEOUT", default_value = "30s",
          value_parser = duration)]
    pub database_idle_timeout: Duration,

    /// How long to wait for a connection
    #[arg(long, env = "DATABASE_CONNECT_TIMEOUT", value_name = "DATABASE_CONNECT_TIMEOUT", default_value = "5s",
          value_parser = duration)]
    pub database_connect_timeout: Duration,

    /// Place of the archive: a folder, or s3://bucket/prefix, gs://… or az://… [default: none, nothing is archived]
    #[arg(long, env = "ARCHIVE_URL", value_name = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    #[command(flatten)]
    pub own_postgres: OwnPostgresArgs,
}

/// The database of a command.
pub enum DatabaseSource {
    /// The configured one.
    Configured(Box<DatabaseConfig>),
    /// No database is configured, so Annals runs a PostgreSQL of its own.
    Own,
}

impl DatabaseArgs {
    /// Checks the settings together. An empty variable counts as not set.
    pub fn source(&self) -> Result<DatabaseSource, ConfigError> {
        let set = |value: &Option<String>| non_empty(value).map(str::to_owned);
        let url = set(&self.database_url);
        let mut parts = [
            ("DATABASE_HOST", set(&self.database_host)),
            ("DATABASE_NAME", set(&self.database_name)),
            ("DATABASE_USER", set(&self.database_user)),
            ("DATABASE_PORT", set(&self.database_port)),
            ("DATABASE_PASSWORD", set(&self.database_password)),
        ];
        let port = &mut parts[3].1;
        if url.is_some() && port.as_deref().is_some_and(is_service_link) {
            tracing::warn!("DATABASE_PORT is ignored: Kubernetes has set it for a Service, and DATABASE_URL is set");
            *port = None;
        }
        let given = parts.iter().find(|(_, value)| value.is_some()).map(|(name, _)| *name);
        let options = match (url, given) {
            (Some(_), Some(name)) => {
                return Err(ConfigError(format!("DATABASE_URL and {name} are both set: unset one of them")));
            }
            (Some(url), None) => options_from_url("DATABASE_URL", &url)?,
            (None, Some(_)) => vec![options_from_parts(&parts)?],
            (None, None) => return Ok(DatabaseSource::Own),
        };
        Ok(DatabaseSource::Configured(Box::new(self.with_servers(options, self.archive()?))))
    }

    /// Opens the archive, if one is configured.
    pub fn archive(&self) -> Result<Option<Arc<Archive>>, ConfigError> {
        non_empty(&self.archive_url).map(Archive::open).transpose().map_err(|error| ConfigError(error.to_string()))
    }

    /// Returns the configuration of a database on these servers, of which one is the primary.
    pub fn with_servers(&self, servers: Vec<ConnectOptions>, archive: Option<Arc<Archive>>) -> DatabaseConfig {
        DatabaseConfig {
            servers,
            max_connections: self.database_max_connections,
            idle_timeout: self.database_idle_timeout,
            connect_timeout: self.database_connect_timeout,
            archive,
        }
    }
}

/// Parses the URL in a variable. The error does not contain the URL, which has a password.
pub fn options_from_url(variable: &str, url: &str) -> Result<Vec<ConnectOptions>, ConfigError> {
    let options = Address::parse(url).and_then(|address| address.to_options());
    options.map_err(|fault| ConfigError(format!("{variable} {fault}")))
}

fn options_from_parts(parts: &[(&'static str, Option<String>); 5]) -> Result<ConnectOptions, ConfigError> {
    let [host, name, user, port, password] = parts;
    let given: Vec<_> = parts.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    let required = |(variable, value): &(&str, Option<String>)| {
        value.clone().ok_or_else(|| {
            ConfigError(format!(
                "{variable} is not set: set DATABASE_HOST, DATABASE_NAME and DATABASE_USER together (set already: {})",
                given.join(", ")
            ))
        })
    };
    let port = port.1.as_deref().map(parse_port_variable).transpose()?;
    let mut address = Address::default();
    address.set_port(port);
    address.name = Some(required(name)?);
    address.user = Some(required(user)?);
    address.password.clone_from(&password.1);
    let host = required(host)?;
    if host.contains(',') {
        let advice = "has several hosts: use DATABASE_URL with target_session_attrs=read-write instead";
        return Err(ConfigError(format!("DATABASE_HOST {advice}")));
    }
    address.set_hosts(&host);
    let mut servers = address.to_options().map_err(|fault| ConfigError(format!("DATABASE_HOST {fault}")))?;
    Ok(servers.remove(0))
}

fn parse_port_variable(port: &str) -> Result<u16, ConfigError> {
    let advice = if is_service_link(port) {
        "Kubernetes has set it for a Service with the name database: set enableServiceLinks: false in the Pod, or use \
         DATABASE_URL instead of the five variables"
    } else {
        "use a number from 1 to 65535"
    };
    parse_port(port).ok_or_else(|| ConfigError(format!("DATABASE_PORT={port} is not a port: {advice}")))
}

/// Returns whether Kubernetes has set `DATABASE_PORT`, for a Service with the name `database`: `tcp://10.0.0.1:5432`.
fn is_service_link(port: &str) -> bool {
    port.contains("://")
}
