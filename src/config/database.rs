//! Which database, and how many connections to it.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{ConfigError, DevDbArgs};
use crate::archive::Archive;
use crate::store::database::{ConnectOptions, DatabaseConfig, parse_url};

/// Settings of every command that needs the database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// postgres://user:password@host:port/name; instead of the five that follow
    #[arg(long, env = "DATABASE_URL", value_name = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// Host name of PostgreSQL
    #[arg(long, env = "DATABASE_HOST", value_name = "DATABASE_HOST")]
    pub database_host: Option<String>,

    /// Its port [default: 5432]
    #[arg(long, env = "DATABASE_PORT", value_name = "DATABASE_PORT")]
    pub database_port: Option<String>,

    /// Name of the database
    #[arg(long, env = "DATABASE_NAME", value_name = "DATABASE_NAME")]
    pub database_name: Option<String>,

    /// User to log in as
    #[arg(long, env = "DATABASE_USER", value_name = "DATABASE_USER")]
    pub database_user: Option<String>,

    /// Password of that user
    #[arg(long, env = "DATABASE_PASSWORD", value_name = "DATABASE_PASSWORD", hide_env_values = true)]
    pub database_password: Option<String>,

    /// Connections to PostgreSQL, all of them: one appends, one follows the log, one is for maintenance, the rest read
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", value_name = "DATABASE_MAX_CONNECTIONS", default_value = "10",
          value_parser = clap::value_parser!(u32).range(4..=1_000))]
    pub database_max_connections: u32,

    /// After this time of rest a connection is closed
    #[arg(long, env = "DATABASE_IDLE_TIMEOUT", value_name = "DATABASE_IDLE_TIMEOUT", default_value = "30s",
          value_parser = duration)]
    pub database_idle_timeout: Duration,

    /// How long to wait for a connection
    #[arg(long, env = "DATABASE_CONNECT_TIMEOUT", value_name = "DATABASE_CONNECT_TIMEOUT", default_value = "5s",
          value_parser = duration)]
    pub database_connect_timeout: Duration,

    /// Where archived months are: a folder, or s3://bucket/prefix, gs://… or az://… [default: none, nothing is archived]
    #[arg(long, env = "ARCHIVE_URL", value_name = "ARCHIVE_URL")]
    pub archive_url: Option<String>,

    #[command(flatten)]
    pub devdb: DevDbArgs,
}

/// Where the database comes from.
pub enum DatabaseSource {
    /// It is configured.
    Configured(Box<DatabaseConfig>),
    /// Nothing is: Annals runs one of its own.
    Own,
}

impl DatabaseArgs {
    /// Reads the settings together; an empty variable counts as not set.
    pub fn source(&self) -> Result<DatabaseSource, ConfigError> {
        let set = |value: &Option<String>| given(value).map(str::to_owned);
        let url = set(&self.database_url);
        let parts = [
            ("DATABASE_HOST", set(&self.database_host)),
            ("DATABASE_NAME", set(&self.database_name)),
            ("DATABASE_USER", set(&self.database_user)),
            ("DATABASE_PORT", set(&self.database_port)),
            ("DATABASE_PASSWORD", set(&self.database_password)),
        ];
        let given = parts.iter().find(|(_, value)| value.is_some()).map(|(name, _)| *name);
        let options = match (url, given) {
            (Some(_), Some(name)) => {
                return Err(ConfigError(format!("DATABASE_URL and {name} are both set: unset one of them")));
            }
            (Some(url), None) => from_url("DATABASE_URL", &url)?,
            (None, Some(_)) => from_parts(&parts)?,
            (None, None) => return Ok(DatabaseSource::Own),
        };
        Ok(DatabaseSource::Configured(Box::new(self.with_options(options, self.archive()?))))
    }

    /// Where archived months are, if that is configured.
    pub fn archive(&self) -> Result<Option<Arc<Archive>>, ConfigError> {
        given(&self.archive_url).map(Archive::open).transpose().map_err(|error| ConfigError(error.to_string()))
    }

    pub fn with_options(&self, options: ConnectOptions, archive: Option<Arc<Archive>>) -> DatabaseConfig {
        DatabaseConfig {
            options,
            max_connections: self.database_max_connections,
            idle_timeout: self.database_idle_timeout,
            connect_timeout: self.database_connect_timeout,
            archive,
        }
    }
}

/// A setting, if it is given: an empty variable counts as not set.
pub fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

/// Reads the URL that a variable has; an error does not repeat it, since it has a password.
pub fn from_url(variable: &str, url: &str) -> Result<ConnectOptions, ConfigError> {
    let expected = "is not understood: postgres://user:password@host:port/name is what it should look like";
    parse_url(url).ok_or_else(|| ConfigError(format!("{variable} {expected}")))
}

fn from_parts(parts: &[(&'static str, Option<String>); 5]) -> Result<ConnectOptions, ConfigError> {
    let [host, name, user, port, password] = parts;
    let given: Vec<_> = parts.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    let required = |(variable, value): &(&str, Option<String>)| {
        value.clone().ok_or_else(|| {
            ConfigError(format!(
                "{} is set, and {variable} is not: DATABASE_HOST, DATABASE_NAME and DATABASE_USER go together",
                given.join(", ")
            ))
        })
    };
    let port = match &port.1 {
        None => 5432,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port: &u16| *port > 0)
            .ok_or_else(|| ConfigError(format!("DATABASE_PORT={port} is not a port: 1 to 65535 is expected")))?,
    };
    let options = ConnectOptions::new_without_pgpass()
        .host(&required(host)?)
        .database(&required(name)?)
        .username(&required(user)?)
        .port(port);
    Ok(match &password.1 {
        Some(password) => options.password(password),
        None => options,
    })
}

/// Reads a length of time, longer than nothing.
pub fn duration(value: &str) -> Result<Duration, String> {
    match humantime::parse_duration(value) {
        Ok(duration) if duration.is_zero() => Err("must be longer than 0s".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write it like 30s, 500ms or 2m")),
    }
}
