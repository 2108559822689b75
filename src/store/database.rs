//! Which database, and how many connections to it: what the configuration hands to the store.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection, Executor};

use super::error::StoreError;
use crate::archive::Archive;

/// Host or socket, user, password, name: everything that it takes to connect. Its debug output hides the password.
pub use sqlx::postgres::PgConnectOptions as ConnectOptions;

/// A database to connect to.
#[derive(Clone)]
pub struct DatabaseConfig {
    pub options: ConnectOptions,
    /// Connections of one process, all of them.
    pub max_connections: u32,
    /// After this time of rest a pooled connection is closed.
    pub idle_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// Where its archived months are.
    pub archive: Option<Arc<Archive>>,
}

/// Reads `postgres://…`; `None` if it is not understood (the driver's error could repeat the password).
pub fn parse_url(url: &str) -> Option<ConnectOptions> {
    let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
    ConnectOptions::from_str(url).ok().filter(|_| scheme)
}

/// Where the server is, for people.
pub fn place(options: &ConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => format!("behind the socket in {}", socket.display()),
        None => format!("on {}:{}", options.get_host(), options.get_port()),
    }
}

/// The options as a URL, password included: for another process, not for a log.
pub fn to_url(options: &ConnectOptions) -> String {
    options.to_url_lossy().to_string()
}

/// Makes the database `name` over a connection to another one, if it is not there. `name` is a plain identifier.
pub async fn create_if_missing(other: &ConnectOptions, name: &'static str) -> Result<(), StoreError> {
    let mut connection = other.connect().await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        match connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await {
            Ok(_) => {}
            // Another process is just making it.
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P04" | "23505")) => {}
            Err(error) => return Err(error.into()),
        }
    }
    connection.close().await?;
    Ok(())
}
