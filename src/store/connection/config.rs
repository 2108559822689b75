//! The address of a database, and the limits of its connections.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection, Executor};

use crate::archive::place::Archive;
use crate::store::error::StoreError;

/// Host or socket, user, password and name. The debug output hides the password.
pub use sqlx::postgres::PgConnectOptions as ConnectOptions;

/// A database to connect to.
#[derive(Clone)]
pub struct DatabaseConfig {
    /// The servers of the database, of which one is the primary. Mostly it is one, or a proxy that finds the primary.
    pub servers: Vec<ConnectOptions>,
    /// The largest number of connections of one process to this database.
    pub max_connections: u32,
    /// A pooled connection that is idle for longer is closed.
    pub idle_timeout: Duration,
    /// The longest time that a task waits for a connection.
    pub connect_timeout: Duration,
    /// The archive of its partitions, if one is configured.
    pub archive: Option<Arc<Archive>>,
}

impl DatabaseConfig {
    /// Returns the addresses of the servers, for messages.
    pub fn place(&self) -> String {
        self.servers.iter().map(place).collect::<Vec<_>>().join(" or ")
    }

    /// Returns the name of the database with the addresses of its servers, for messages.
    pub fn address(&self) -> String {
        format!("the database {} {}", self.name(), self.place())
    }

    /// Returns the name of the database, for messages.
    pub fn name(&self) -> &str {
        let options = self.servers.first();
        options.and_then(|options| options.get_database()).unwrap_or("named like the user")
    }
}

/// Returns the address of a server, for messages.
pub(in crate::store) fn place(options: &ConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => format!("behind the socket in {}", socket.display()),
        None => format!("on {}:{}", options.get_host(), options.get_port()),
    }
}

/// Returns the options as a URL. It contains the password, so it is for another process and never for a log.
pub fn to_url(options: &ConnectOptions) -> String {
    let url = options.to_url_lossy().to_string();
    let (address, query) = url.split_once('?').unwrap_or((&url, ""));
    // A parameter of the driver that no other program knows.
    let known: Vec<_> = query.split('&').filter(|pair| !pair.starts_with("statement-cache-capacity=")).collect();
    format!("{address}?{}", known.join("&"))
}

/// Creates the database `name`, a plain identifier, if it does not exist, over a connection to another database.
pub async fn create_if_missing(other: &ConnectOptions, name: &'static str) -> Result<(), StoreError> {
    let mut connection = other.connect().await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        match connection.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await {
            Ok(_) => {}
            // Another process has created it at the same moment.
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P04" | "23505")) => {}
            Err(error) => return Err(error.into()),
        }
    }
    connection.close().await?;
    Ok(())
}
